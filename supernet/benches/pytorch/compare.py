#!/usr/bin/env python3
"""Times `supernet bench` next to PyTorch (the `ofa` package) and ONNX Runtime on this machine.

    pip install torch ofa onnx onnxruntime
    cargo build --release -p supernet
    python supernet/benches/pytorch/compare.py [--rounds 5] [--cases NAME ...]

Machines drift, so ours and theirs take turns in short rounds, and a ratio is always of neighbors in time. PyTorch runs
four ways: its default layout and channels_last, each with glibc's default allocator and with one that keeps freed
memory. The best of the four in each round counts. Both sides train the same list of random sub-networks.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
KERNELS, EXPANDS, DEPTHS, STAGES = [3, 5, 7], [3, 4, 6], [2, 3, 4], 5
KEEPING = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}


class Arch:
    """A sub-network of OFA's MobileNetV3 space: for each stage a list of (kernel, expand ratio)."""

    space = "ofa-mbv3-w1.0"

    def __init__(self, stages):
        self.stages = stages

    @classmethod
    def uniform(cls, kernel, expand, depth):
        return cls([[(kernel, expand)] * depth for _ in range(STAGES)])

    @classmethod
    def sample(cls, rng):
        return cls([[(rng.choice(KERNELS), rng.choice(EXPANDS)) for _ in range(rng.choice(DEPTHS))]
                    for _ in range(STAGES)])

    def text(self):
        """The form that `supernet` reads."""
        return "r128:" + "/".join(",".join(f"k{k}e{e}" for k, e in stage) for stage in self.stages)

    def settings(self):
        """The form that `set_active_subnet` takes: four blocks a stage, whether used or not."""
        padded = [stage + [(3, 3)] * (4 - len(stage)) for stage in self.stages]
        return {
            "ks": [k for stage in padded for k, _ in stage],
            "e": [e for stage in padded for _, e in stage],
            "d": [len(stage) for stage in self.stages],
        }


class LargestResNet:
    """The largest of OFA's ResNet50D space."""

    space = "ofa-resnet50"

    def text(self):
        return "largest"

    def settings(self):
        return {"d": 2, "e": 0.35, "w": 2}


LARGEST, SMALLEST = Arch.uniform(7, 6, 4), Arch.uniform(3, 3, 2)


def random_archs(count):
    rng = random.Random(20)
    return [Arch.sample(rng) for _ in range(count)]


# name: (mode, sub-networks, resolution, batch, threads, steps a round, factor wanted)
CASES = {
    "largest": ("train", [LARGEST], 64, 32, 2, 7, 2.5),
    "random": ("train", random_archs(10), 64, 32, 2, 10, 2.5),
    "smallest": ("train", [SMALLEST], 64, 32, 2, 10, 2.0),
    "largest-128": ("train", [LARGEST], 128, 16, 2, 5, 2.5),
    "resnet50": ("train", [LargestResNet()], 128, 8, 2, 4, 1.0),
    "shrink": ("shrink", random_archs(16), 64, 32, 2, 4, 3.0),
    "calibrate": ("calibrate", [LARGEST], 128, 100, 2, 4, 50 / 12),
    "infer": ("infer", [LARGEST], 224, 1, 1, 60, 1 / 1.3),
}


# ---------------------------------------------------------------- the peer, in a process of its own

def smoothed_cross_entropy(logits, labels, smoothing=0.1):
    import torch.nn.functional as F
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


class Torch:
    """One way to run PyTorch, ready to time steps of one case."""

    def __init__(self, space, mode, resolution, batch, threads, channels_last):
        import torch
        from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3, OFAResNets
        from ofa.imagenet_classification.networks import MobileNetV3Large
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.torch, self.mode = torch, mode
        if space == LargestResNet.space:
            self.net = OFAResNets(dropout_rate=0, depth_list=[0, 1, 2], expand_ratio_list=[0.2, 0.25, 0.35],
                                  width_mult_list=[0.65, 0.8, 1.0]).train()
        else:
            self.net = OFAMobileNetV3(dropout_rate=0.1, width_mult=1.0, ks_list=KERNELS, expand_ratio_list=EXPANDS,
                                      depth_list=DEPTHS).train()
        self.images = torch.randn(batch, 3, resolution, resolution)
        self.labels = torch.randint(0, 1000, (batch,))
        self.teacher = MobileNetV3Large(dropout_rate=0, width_mult=1.0, ks=7, expand_ratio=6, depth_param=4).train()
        if channels_last:
            layout = {"memory_format": torch.channels_last}
            self.net, self.teacher = self.net.to(**layout), self.teacher.to(**layout)
            self.images = self.images.to(**layout)
        norms_and_biases = [p for name, p in self.net.named_parameters() if "bn" in name or "bias" in name]
        others = [p for name, p in self.net.named_parameters() if not ("bn" in name or "bias" in name)]
        groups = [{"params": others, "weight_decay": 3e-5}, {"params": norms_and_biases, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, 7.5e-3, momentum=0.9, nesterov=True)

    def step(self, archs):
        """One step over these sub-networks."""
        torch = self.torch
        if self.mode == "calibrate":
            from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics
            self.net.set_active_subnet(**archs[0])
            set_running_statistics(self.net, [(self.images, None)])
            return
        soft = None
        if self.mode == "shrink":
            with torch.no_grad():
                soft = self.teacher(self.images).softmax(1)
        self.net.zero_grad()
        for arch in archs:
            self.net.set_active_subnet(**arch)
            logits = self.net(self.images)
            loss = smoothed_cross_entropy(logits, self.labels)
            if soft is not None:
                loss = loss - (soft * logits.log_softmax(1)).sum(1).mean()
            loss.backward()
        self.optimizer.step()


class Onnx:
    """The extracted largest network in ONNX Runtime."""

    def __init__(self, resolution, batch, threads):
        import io
        import onnxruntime
        import torch
        from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3
        torch.manual_seed(0)
        net = OFAMobileNetV3(dropout_rate=0, width_mult=1.0, ks_list=KERNELS, expand_ratio_list=EXPANDS,
                             depth_list=DEPTHS)
        net.set_active_subnet(**LARGEST.settings())
        images = torch.randn(batch, 3, resolution, resolution)
        file = io.BytesIO()
        torch.onnx.export(net.get_active_subnet(preserve_weight=True).eval(), images, file, dynamo=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
        self.feed = {self.session.get_inputs()[0].name: images.numpy()}

    def step(self, _):
        self.session.run(None, self.feed)


def serve(space, mode, resolution, batch, threads, variant):
    """Answers each line of steps (a list of lists of sub-networks) with a line of milliseconds and memory."""
    import resource
    import time
    if mode == "infer":
        peer = Onnx(resolution, batch, threads)
    else:
        peer = Torch(space, mode, resolution, batch, threads, "channels_last" in variant)
    print("ready", flush=True)
    for line in sys.stdin:
        times = []
        for archs in json.loads(line):
            start = time.perf_counter()
            peer.step(archs)
            times.append((time.perf_counter() - start) * 1e3)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        print(json.dumps({"ms": times, "memory": memory}), flush=True)


class Peer:
    """A process that serves one variant."""

    def __init__(self, case, variant):
        mode, archs, resolution, batch, threads, _, _ = CASES[case]
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), PYTHONWARNINGS="ignore")
        if "keeping" in variant:
            environment.update(KEEPING)
        command = [sys.executable, __file__, "--serve", archs[0].space, mode, str(resolution), str(batch), str(threads),
                   variant]
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
        while (line := self.process.stdout.readline().strip()) != "ready":
            if not line and self.process.poll() is not None:
                sys.exit(f"the peer for {case} ended: are torch, ofa, onnx and onnxruntime installed?")

    def run(self, steps):
        print(json.dumps(steps), file=self.process.stdin, flush=True)
        while not (line := self.process.stdout.readline()).startswith("{"):
            if not line:
                sys.exit("the peer ended in the middle of a round")
        return json.loads(line)

    def end(self):
        self.process.stdin.close()
        self.process.wait()


# ---------------------------------------------------------------- ours, and the rounds

def ours(binary, case, steps):
    mode, archs, resolution, batch, threads, _, _ = CASES[case]
    command = [binary, "bench", "--json", "--quiet", "--space", archs[0].space, "--mode", mode, "--resolution",
               str(resolution), "--batch", str(batch), "--threads", str(threads), "--steps", str(steps), "--arch",
               *[arch.text() for arch in archs]]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(binary, case, rounds):
    """Prints one row: medians over all rounds, and the ratio of each round's best peer to ours."""
    mode, archs, _, batch, _, steps, wanted = CASES[case]
    width = 4 if mode == "shrink" else 1
    settings = [arch.settings() for arch in archs]
    plan = [[settings[(step * width + i) % len(settings)] for i in range(width)] for step in range(steps)]
    variants = ["onnxruntime"] if mode == "infer" else ["default", "channels_last", "default keeping",
                                                        "channels_last keeping"]
    peers = {variant: Peer(case, variant) for variant in variants}
    for peer in peers.values():
        peer.run(plan[:2])
    mine, theirs, ratios, memory = [], {variant: [] for variant in variants}, [], {}
    for _ in range(rounds):
        round_best = float("inf")
        for variant, peer in peers.items():
            answer = peer.run(plan)
            theirs[variant].append(statistics.median(answer["ms"]))
            memory[variant] = answer["memory"]
            round_best = min(round_best, theirs[variant][-1])
        report = ours(binary, case, steps)
        mine.append(report["step_ms"]["median"])
        memory["ours"] = report["peak_rss_mb"]
        ratios.append(round_best / mine[-1])
    for peer in peers.values():
        peer.end()
    best = min(variants, key=lambda variant: statistics.median(theirs[variant]))
    scale = 2000 / batch if mode == "calibrate" else 1
    print(f"| {case} | " + " / ".join(f"{scale * statistics.median(theirs[v]):.0f}" for v in variants)
          + f" ms | {scale * statistics.median(mine):.1f} ms | {statistics.median(ratios):.2f}x"
          f" ({min(ratios):.2f} to {max(ratios):.2f}) | {wanted:.2f}x | {memory[best]:.0f} / {memory['ours']:.0f} MB |",
          flush=True)


def main():
    if sys.argv[1:2] == ["--serve"]:
        space, mode, resolution, batch, threads, variant = sys.argv[2:]
        return serve(space, mode, int(resolution), int(batch), int(threads), variant)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--supernet", default=ROOT / "target/release/supernet")
    arguments = parser.parse_args()
    print("| case | peer: default / channels_last / both again with memory kept | ours | peer's best / ours (range) |"
          " wanted | memory peer / ours |\n|---|---|---|---|---|---|")
    for case in arguments.cases:
        compare(str(arguments.supernet), case, arguments.rounds)


if __name__ == "__main__":
    main()
