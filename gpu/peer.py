#!/usr/bin/env python3
"""PyTorch's side of gpu/compare.py: OFA's elastic MobileNetV3 (width 1.0), and a process that times its steps.

The network needs PyTorch alone. It computes what the `ofa` package's does (tests/parity/gpu_peer.py), with PyTorch's own
activations in place of that package's, which are chains of elementwise operations: nobody who trains for speed keeps
those. `python gpu/peer.py DEVICE` reads one measurement per line as JSON and answers in one line: PyTorch starts once, and
cuDNN tunes once for each shape.
"""

import gc
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

EXPAND, DEPTH = 6, 4
# channels, stride, activation, squeeze-and-excite
STAGES = [(24, 2, F.relu, False), (40, 2, F.relu, True), (80, 2, F.hardswish, False), (112, 1, F.hardswish, True),
          (160, 2, F.hardswish, True)]


def divisible(value):
    """As the `ofa` package rounds channels: to multiples of 8, never by more than a tenth down."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * value else rounded + 8


class Norm(nn.BatchNorm2d):
    """A batch norm of the first channels."""

    def __init__(self, channels):
        super().__init__(channels, eps=1e-5)

    def forward(self, x):
        n = x.shape[1]
        if n == self.num_features:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean[:n], self.running_var[:n], self.weight[:n], self.bias[:n], True,
                            self.momentum, self.eps)


class Block(nn.Module):
    """An inverted residual block; `kernel` and `expand` may be changed at any time."""

    def __init__(self, inputs, outputs, stride, activation, squeeze, elastic=True):
        super().__init__()
        self.stride, self.activation, self.elastic, self.squeeze = stride, activation, elastic, squeeze
        self.kernel, self.expand = (7, EXPAND) if elastic else (3, 1)
        self.outputs = outputs
        middle = divisible(inputs * self.expand)
        if elastic:
            self.wide, self.wide_bn = nn.Conv2d(inputs, middle, 1, bias=False), Norm(middle)
            self.to5, self.to3 = nn.Parameter(torch.eye(25)), nn.Parameter(torch.eye(9))
        self.deep = nn.Conv2d(middle, middle, self.kernel, groups=middle, bias=False)
        self.deep_bn = Norm(middle)
        if squeeze:
            self.reduce = nn.Conv2d(middle, divisible(middle // 4), 1)
            self.widen = nn.Conv2d(divisible(middle // 4), middle, 1)
        self.narrow, self.narrow_bn = nn.Conv2d(middle, outputs, 1, bias=False), Norm(outputs)

    def filters(self, n):
        weight = self.deep.weight[:n]
        if self.kernel <= 5 and self.elastic:
            weight = F.linear(weight[:, :, 1:6, 1:6].reshape(n, 25), self.to5).view(n, 1, 5, 5)
        if self.kernel == 3 and self.elastic:
            weight = F.linear(weight[:, :, 1:4, 1:4].reshape(n, 9), self.to3).view(n, 1, 3, 3)
        return weight

    def forward(self, x):
        inputs, y = x.shape[1], x
        n = divisible(inputs * self.expand)
        if self.elastic:
            y = self.activation(self.wide_bn(F.conv2d(y, self.wide.weight[:n])))
        y = F.conv2d(y, self.filters(n), None, self.stride, self.kernel // 2, 1, n)
        y = self.activation(self.deep_bn(y))
        if self.squeeze:
            m = divisible(n // 4)
            s = y.mean((2, 3), keepdim=True)
            s = F.relu(F.conv2d(s, self.reduce.weight[:m, :n], self.reduce.bias[:m]))
            y = y * F.hardsigmoid(F.conv2d(s, self.widen.weight[:n, :m], self.widen.bias[:n]))
        y = self.narrow_bn(F.conv2d(y, self.narrow.weight[:, :n]))
        return y + x if self.stride == 1 and inputs == self.outputs else y


class Supernet(nn.Module):
    """`set_active_subnet(ks, e, d)` as the `ofa` package has it: lists of 20, 20 and 5."""

    def __init__(self, dropout=0.1, classes=1000):
        super().__init__()
        self.stem, self.stem_bn = nn.Conv2d(3, 16, 3, 2, 1, bias=False), Norm(16)
        self.first = Block(16, 16, 1, F.relu, False, elastic=False)
        inputs, self.stages = 16, nn.ModuleList()
        for outputs, stride, activation, squeeze in STAGES:
            sides = [(inputs, stride)] + [(outputs, 1)] * (DEPTH - 1)
            self.stages.append(nn.ModuleList(Block(i, outputs, s, activation, squeeze) for i, s in sides))
            inputs = outputs
        self.last, self.last_bn = nn.Conv2d(inputs, 960, 1, bias=False), Norm(960)
        self.mix, self.classifier = nn.Conv2d(960, 1280, 1, bias=False), nn.Linear(1280, classes)
        self.depths, self.dropout = [DEPTH] * len(STAGES), dropout

    def set_active_subnet(self, ks, e, d):
        blocks = [block for stage in self.stages for block in stage]
        for block, kernel, expand in zip(blocks, ks, e):
            block.kernel, block.expand = kernel, expand
        self.depths = list(d)

    def forward(self, x):
        x = self.first(F.hardswish(self.stem_bn(self.stem(x))))
        for stage, depth in zip(self.stages, self.depths):
            for block in stage[:depth]:
                x = block(x)
        x = F.hardswish(self.last_bn(self.last(x))).mean((2, 3), keepdim=True)
        x = F.hardswish(self.mix(x)).flatten(1)
        return self.classifier(F.dropout(x, self.dropout, self.training))

    def groups(self, weight_decay=3e-5):
        """The optimizer's: batch norms and biases without decay."""
        named = list(self.named_parameters())
        bare = [p for name, p in named if "bn" in name or "bias" in name]
        rest = [p for name, p in named if not ("bn" in name or "bias" in name)]
        return [{"params": rest, "weight_decay": weight_decay}, {"params": bare, "weight_decay": 0.0}]


# ---------------------------------------------------------------- steps, timed

def stepper(case, device):
    """A function that takes one step over some sub-networks."""
    precision, variant, side = case["precision"], case["variant"], case["resolution"]
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "f32"
    torch.backends.cudnn.benchmark = True
    layout = torch.contiguous_format if variant == "default" else torch.channels_last
    net = Supernet().to(device, memory_format=layout).train()
    teacher = None
    if case["mode"] == "shrink":
        teacher = Supernet(dropout=0.0).to(device, memory_format=layout).train()
    images = torch.randn(case["batch"], 3, side, side).to(device, memory_format=layout)
    labels = torch.randint(0, 1000, (case["batch"],)).to(device)
    optimizer = torch.optim.SGD(net.groups(), 7.5e-3, momentum=0.9, nesterov=True, fused=True)
    runs = [net]

    def autocast():
        # a graph must not hold what another step's casts left
        return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16",
                              cache_enabled=variant != "graph")

    def step(archs):
        soft = None
        if teacher is not None:
            with torch.no_grad(), autocast():
                soft = teacher(images).softmax(1)
        for arch in archs:
            net.set_active_subnet(**arch)
            with autocast():
                logits = runs[-1](images)
                loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
                if soft is not None:
                    loss = loss + F.cross_entropy(logits, soft)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    # a step that trains every parameter: the fused optimizer wants a momentum for all of them or for none
    step([{"ks": [3] * 20, "e": [6] * 20, "d": [4] * 5}])
    if variant == "compiled":
        runs.append(torch.compile(net))
    return step


def graphed(step, archs):
    """A step over one sub-network as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(archs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(archs)
    return lambda _: graph.replay()


def measure(case, device):
    """The lower of the median step and of steps that are not waited for one by one: a training's overlap what Python does
    for the next."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    step, plan, warmup = stepper(case, device), case["plan"], case["warmup"]
    if case["variant"] == "graph":
        step = graphed(step, plan[0])
    for archs in plan[:warmup]:
        step(archs)
    wait()
    if device.type == "cuda":
        # without what tuning tried
        torch.cuda.reset_peak_memory_stats(device)
    times = []
    for archs in plan[warmup:]:
        start = time.perf_counter()
        step(archs)
        wait()
        times.append((time.perf_counter() - start) * 1e3)
    start = time.perf_counter()
    for archs in plan[warmup:]:
        step(archs)
    wait()
    together = (time.perf_counter() - start) * 1e3 / len(times)
    memory = torch.cuda.max_memory_reserved(device) / 1e6 if device.type == "cuda" else None
    return {"ms": min(statistics.median(times), together), "each_ms": statistics.median(times),
            "together_ms": together, "memory_mb": memory}


def about(device):
    gpu = "no GPU"
    if device.type == "cuda":
        if not torch.cuda.is_available():
            sys.exit(f"PyTorch {torch.__version__} finds no GPU")
        gpu = torch.cuda.get_device_name(device)
        torch.cuda.set_device(device)
    return {"gpu": gpu, "torch": torch.__version__, "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version()}


def main():
    device = torch.device(sys.argv[1])
    print(json.dumps(about(device)), flush=True)
    for line in sys.stdin:
        try:
            answer = measure(json.loads(line), device)
        except torch.OutOfMemoryError:
            answer = {"failure": "out of memory"}
        except Exception as error:  # reported, and the next measurement is taken
            answer = {"failure": f"{type(error).__name__}: {error}"[:300]}
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
