#!/usr/bin/env python3
"""Golden numbers for the static networks, made with PyTorch in double precision.

    python make_golden.py                # writes block.safetensors and network.safetensors beside itself
    python make_golden.py --check-ofa    # compares with the `ofa` package instead; writes nothing

Needs torch, numpy and safetensors (and `ofa` for --check-ofa). No input is stored: every weight, image and
upstream gradient is a formula of (name, flat index), which the Rust tests compute too.

    h = FNV-1a 32 of the UTF-8 name: h = 0x811c9dc5; for each byte: h = (h ^ byte) * 0x01000193 (mod 2^32)
    z = (h << 32 | i) + 0x9e3779b97f4a7c15          (i: row-major index in the tensor; all of it mod 2^64)
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9          (the finalizer of SplitMix64)
    z = (z ^ z >> 27) * 0x94d049bb133111eb
    z =  z ^ z >> 31
    u = (z >> 40) / 2^23 - 1                        (in [-1, 1), exact in f32)

    images, gradient    u                           *.running_mean    0.1 * u
    teacher             2 * u                       *.running_var     1 + 0.5 * u
    *.bn.weight         1 + 0.2 * u                 *.bias            0.1 * u      (of BN and of the rest)
    other *.weight      u * sqrt(3 / fan_in)        fan_in: product of the dimensions after the first

Values are computed in f64 and rounded to f32 once; labels are i mod classes.
"""

import argparse
import math
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
BATCH_NORM_EPS = 1e-5
LABEL_SMOOTHING = 0.1

# in, out, kernel, stride, expand, activation, SE
BLOCKS = [(16, 16, 5, 1, 4, "h_swish", True), (16, 24, 7, 2, 3, "relu", False)]
BLOCK_IMAGES = (6, 16, 9, 9)

# A MobileNetV3 in OFA's structure: stem, block 0, a relu stage without SE, an h_swish stage with SE, head.
IMAGES, STEM, FINAL_EXPAND, FEATURE_MIX, CLASSES = (5, 1, 14, 14), 8, 48, 64, 10
NETWORK = [
    (8, 8, 3, 1, 1, "relu", False),
    (8, 16, 5, 2, 3, "relu", False),
    (16, 16, 3, 1, 4, "relu", False),
    (16, 24, 7, 2, 6, "h_swish", True),
    (24, 24, 3, 1, 3, "h_swish", True),
    (24, 24, 5, 1, 4, "h_swish", True),
]


# --- the formula ---


def fnv1a(name):
    h = 0x811C9DC5
    for byte in name.encode():
        h = (h ^ byte) * 0x01000193 & 0xFFFFFFFF
    return h


def unit(name, count):
    z = np.arange(count, dtype=np.uint64) | np.uint64(fnv1a(name) << 32)
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    z = z ^ z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) / 2.0**23 - 1.0


def value(name, shape):
    """The f32 tensor of a name."""
    u = unit(name, math.prod(shape))
    if name in ("images", "gradient"):
        v = u
    elif name == "teacher":
        v = 2.0 * u
    elif name.endswith(".running_var"):
        v = 1.0 + 0.5 * u
    elif name.endswith(".bn.weight"):
        v = 1.0 + 0.2 * u
    elif name.endswith((".bias", ".running_mean")):
        v = 0.1 * u
    elif name.endswith(".weight"):
        v = u * math.sqrt(3.0 / math.prod(shape[1:]))
    else:
        raise ValueError(f"no formula for {name}")
    return torch.from_numpy(v.astype(np.float32).reshape(shape))


def fill(module, prefix=""):
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                tensor.copy_(value(prefix + name, tuple(tensor.shape)))


# --- the modules, named as in `ofa` ---


def make_divisible(v, divisor=8):
    n = max(divisor, int(v + divisor / 2) // divisor * divisor)
    return n + divisor if n < 0.9 * v else n


class HSigmoid(nn.Module):
    def forward(self, x):
        return F.relu6(x + 3.0) / 6.0


class HSwish(nn.Module):
    def forward(self, x):
        return x * F.relu6(x + 3.0) / 6.0


def sequential(**modules):
    return nn.Sequential(OrderedDict((k, m) for k, m in modules.items() if m is not None))


def conv_bn(inputs, outputs, kernel=1, stride=1, groups=1, bn=True, act=None, se=None):
    return sequential(
        conv=nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        bn=nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS) if bn else None,
        act={"relu": nn.ReLU, "h_swish": HSwish, None: lambda: None}[act](),
        se=se,
    )


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        mid = make_divisible(channels // 4)
        self.fc = sequential(
            reduce=nn.Conv2d(channels, mid, 1), relu=nn.ReLU(), expand=nn.Conv2d(mid, channels, 1), h_sigmoid=HSigmoid()
        )

    def forward(self, x):
        return x * self.fc(x.mean((2, 3), keepdim=True))


class Block(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride, expand, act, se):
        super().__init__()
        mid = make_divisible(round(inputs * expand))
        se = SqueezeExcite(mid) if se else None
        self.residual = stride == 1 and inputs == outputs
        self.conv = sequential(
            inverted_bottleneck=conv_bn(inputs, mid, act=act) if expand != 1 else None,
            depth_conv=conv_bn(mid, mid, kernel, stride, groups=mid, act=act, se=se),
            point_linear=conv_bn(mid, outputs),
        )

    def forward(self, x):
        return self.conv(x) + x if self.residual else self.conv(x)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first_conv = conv_bn(IMAGES[1], STEM, 3, act="h_swish")
        self.blocks = nn.ModuleList(Block(*b) for b in NETWORK)
        self.final_expand_layer = conv_bn(NETWORK[-1][1], FINAL_EXPAND, act="h_swish")
        self.feature_mix_layer = conv_bn(FINAL_EXPAND, FEATURE_MIX, bn=False, act="h_swish")
        self.classifier = sequential(linear=nn.Linear(FEATURE_MIX, CLASSES))

    def forward(self, x):
        x = self.first_conv(x)
        for block in self.blocks:
            x = block(x)
        x = self.final_expand_layer(x).mean((2, 3), keepdim=True)
        return self.classifier(self.feature_mix_layer(x).flatten(1))


# --- the numbers ---


def gradients(module, prefix=""):
    return {f"gradient.{prefix}{name}": p.grad for name, p in module.named_parameters()}


def run_block(module, index, dtype=torch.float64):
    prefix = f"blocks.{index}."
    module = module.to(dtype).train()
    fill(module, prefix)
    images = value("images", BLOCK_IMAGES).to(dtype).requires_grad_()
    output = module(images)
    output.backward(value("gradient", tuple(output.shape)).to(dtype))
    numbers = {"output": output, "input_gradient": images.grad, **gradients(module, prefix)}
    return {("second." if index else "") + name: tensor.detach() for name, tensor in numbers.items()}


def run_network(net, dtype=torch.float64):
    net = net.to(dtype).eval()
    fill(net)
    images = value("images", IMAGES).to(dtype)
    numbers = {"eval_logits": net(images)}

    def calibrate(name):  # what a BN sees before it normalises
        def hook(_, inputs):
            numbers[f"calibrated.{name}.mean"] = inputs[0].mean((0, 2, 3))
            numbers[f"calibrated.{name}.var"] = inputs[0].var((0, 2, 3), unbiased=False)

        return hook

    for name, module in net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(calibrate(name))
    logits = net.train()(images)
    labels = torch.arange(IMAGES[0]) % CLASSES
    teacher = value("teacher", (IMAGES[0], CLASSES)).to(dtype)
    loss = F.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING)
    loss = loss - (F.softmax(teacher, 1) * F.log_softmax(logits, 1)).sum(1).mean()
    loss.backward()
    numbers |= {"loss": loss.reshape(1), "logits": logits, **gradients(net)}
    return {name: tensor.detach() for name, tensor in numbers.items()}


def watch_kinks(module):
    """Records how near any activation input of a training pass comes to a point where the derivative jumps."""
    distances = []

    def watch(m, inputs):
        if m.training:
            centre = 0.0 if isinstance(m, nn.ReLU) else 3.0
            distances.append((inputs[0].abs() - centre).abs().min().item())

    for m in module.modules():
        if isinstance(m, (nn.ReLU, HSwish, HSigmoid)):
            m.register_forward_pre_hook(watch)
    return distances


def save(path, numbers):
    arrays = {name: np.ascontiguousarray(tensor.numpy().astype(np.float32)) for name, tensor in numbers.items()}
    save_file(arrays, path)
    path.chmod(0o644)
    print(f"{path.name}: {len(arrays)} tensors, {path.stat().st_size} bytes")


def print_check_values():
    print(f"fnv1a('images') = {fnv1a('images'):#010x}")
    for name, shape, i in [
        ("images", (5, 1, 14, 14), 0),
        ("blocks.0.conv.inverted_bottleneck.conv.weight", (64, 16, 1, 1), 1023),
        ("blocks.0.conv.depth_conv.bn.weight", (64,), 7),
        ("first_conv.bn.running_var", (8,), 3),
    ]:
        v = value(name, shape).flatten()[i].numpy()
        print(f"{name}{list(shape)}[{i}] = {v!s} (bits {v.view(np.uint32):#010x}; u = {float(unit(name, i + 1)[i])!r})")


# --- the comparison with `ofa` ---


def check_ofa():
    from ofa.imagenet_classification.networks import MobileNetV3
    from ofa.utils.layers import ResidualBlock

    def block(inputs, outputs, kernel, stride, expand, act, se):
        conv = dict(name="MBConvLayer", in_channels=inputs, out_channels=outputs, kernel_size=kernel, stride=stride)
        conv |= dict(expand_ratio=expand, mid_channels=make_divisible(round(inputs * expand)), act_func=act, use_se=se)
        identity = dict(name="IdentityLayer", in_channels=inputs, out_channels=outputs)
        return dict(conv=conv, shortcut=identity if stride == 1 and inputs == outputs else None)

    def conv(inputs, outputs, **rest):
        return dict(name="ConvLayer", in_channels=inputs, out_channels=outputs, act_func="h_swish", **rest)

    def network():
        classifier = dict(name="LinearLayer", in_features=FEATURE_MIX, out_features=CLASSES)
        return MobileNetV3.build_from_config(
            dict(
                bn=dict(momentum=0.1, eps=BATCH_NORM_EPS),
                first_conv=conv(IMAGES[1], STEM, kernel_size=3),
                blocks=[block(*b) for b in NETWORK],
                final_expand_layer=conv(NETWORK[-1][1], FINAL_EXPAND, kernel_size=1),
                feature_mix_layer=conv(FINAL_EXPAND, FEATURE_MIX, kernel_size=1, use_bn=False),
                classifier=classifier,
            )
        )

    def shapes(module):
        return [(name, tuple(t.shape)) for name, t in module.state_dict().items()]

    def compare(label, ours, run):
        theirs = run(torch.float64)
        assert list(ours) == list(theirs), label
        single = run(torch.float32)
        worst = max((ours[k] - theirs[k]).abs().max().item() for k in ours)
        rounding = {k: ((ours[k] - single[k]).abs().max() / ours[k].abs().max().clamp(1e-3)).item() for k in ours}
        k = max(rounding, key=rounding.get)
        print(f"{label}: {len(ours)} tensors, f64 within {worst:.1e} of ofa; ofa in f32 within {rounding[k]:.1e} "
              f"of each tensor's largest value (at least 1e-3; worst: {k})")
        assert worst < 1e-11 and rounding[k] < 1e-4, label

    assert shapes(Network()) == shapes(network())
    for index, shape in enumerate(BLOCKS):
        assert shapes(Block(*shape)) == shapes(ResidualBlock.build_from_config(block(*shape)))
        ours = run_block(Block(*shape), index)
        compare(f"block {index}", ours, lambda t: run_block(ResidualBlock.build_from_config(block(*shape)), index, t))
    compare("network", run_network(Network()), lambda t: run_network(network(), t))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check-ofa", action="store_true", help="compare with the `ofa` package; write nothing")
    check = parser.parse_args().check_ofa
    torch.set_num_threads(1)
    if check:
        return check_ofa()
    print(f"torch {torch.__version__}, numpy {np.__version__}")
    blocks = [Block(*b) for b in BLOCKS]
    net = Network()
    kinks = [watch_kinks(m) for m in (*blocks, net)]
    save(HERE / "block.safetensors", {k: v for i, b in enumerate(blocks) for k, v in run_block(b, i).items()})
    save(HERE / "network.safetensors", run_network(net))
    print("nearest to a kink:", ", ".join(f"{min(k):.1e}" for k in kinks))
    print_check_values()


if __name__ == "__main__":
    main()
