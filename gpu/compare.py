#!/usr/bin/env python3
"""Times `supernet bench` beside PyTorch (the `ofa` package) on one GPU.

    pip install torch torchvision ofa
    python gpu/compare.py --supernet PATH [--device cuda:0] [--rounds 3] [--steps 20] [--cases NAME ...]
                          [--precisions f32 tf32 bf16] [--json FILE]

A case is called KIND-RESOLUTION-BATCH. Kinds are largest, random (another sub-network each step) and teacher+4 (a step
of progressive shrinking); both sides train the same list of random sub-networks. Any resolution and batch will do:
`--device cpu --precisions f32 --steps 2 --rounds 1 --cases largest-32-2` tries this script where there is no GPU.

Each measurement is a process of its own. In each round ours stands between PyTorch's default layout and its
channels_last, and the better of the two counts; a ratio is always of one round, and above 1 where ours is faster.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# before this folder, whose compare.py is this one
sys.path.insert(0, str(ROOT / "supernet/benches/pytorch"))
sys.dont_write_bytecode = True  # no __pycache__ among the sources
import compare as cpu  # noqa: E402
sys.dont_write_bytecode = False

SPACE = cpu.Arch.space
# name: (mode, sub-networks)
KINDS = {
    "largest": ("train", [cpu.LARGEST]),
    "random": ("train", cpu.random_archs(10)),
    "teacher+4": ("shrink", cpu.random_archs(16)),
}
CASES = ["largest-224-64", "largest-224-128", "largest-224-256", "random-224-128", "teacher+4-224-64", "largest-64-512",
         "random-64-512", "teacher+4-64-512"]
LAYOUTS = ["default", "channels_last"]
PRECISIONS = ["f32", "tf32", "bf16"]
# on both sides: each of the random sub-networks comes once; cudnn.benchmark tunes in the first
WARMUP = 10
OUT_OF_MEMORY = re.compile("out.of.memory|alloc_failed", re.IGNORECASE)


class Case:
    """A case by its name."""

    def __init__(self, name):
        kind, resolution, batch = name.rsplit("-", 2)
        self.name, self.resolution, self.batch = name, int(resolution), int(batch)
        self.mode, self.archs = KINDS[kind]

    def plan(self, steps):
        """For each step, warm-up first, the sub-networks that it trains; `supernet bench` takes the same."""
        width = 4 if self.mode == "shrink" else 1
        settings = [arch.settings() for arch in self.archs]
        return [[settings[(step * width + i) % len(settings)] for i in range(width)] for step in range(WARMUP + steps)]


def case_name(text):
    try:
        return Case(text).name
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"{text}: expected KIND-RESOLUTION-BATCH, KIND one of {', '.join(KINDS)}")


# ---------------------------------------------------------------- the peer, in a process of its own

class Torch(cpu.Torch):
    """PyTorch on a device."""

    def __init__(self, case, layout, precision, device):
        threads = len(os.sched_getaffinity(0))
        super().__init__(SPACE, case.mode, case.resolution, case.batch, threads, layout == "channels_last")
        torch = self.torch
        self.device, self.precision = torch.device(device), precision
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "f32"
        # among random sub-networks there are too many shapes to tune each of them: it would take longer than the steps
        torch.backends.cudnn.benchmark = len(case.archs) == 1
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        self.net, self.images, self.labels = (it.to(self.device) for it in (self.net, self.images, self.labels))
        self.teacher = self.teacher.to(self.device) if case.mode == "shrink" else None
        groups = [{key: group[key] for key in ("params", "weight_decay")} for group in self.optimizer.param_groups]
        settings = {"lr": 7.5e-3, "momentum": 0.9, "nesterov": True}
        try:
            self.optimizer = torch.optim.SGD(groups, **settings, fused=True)
        except (RuntimeError, TypeError):
            self.optimizer = torch.optim.SGD(groups, **settings, foreach=True)
        if len(case.archs) > 1:
            # a step that trains every parameter: the fused optimizer wants a momentum for all of them or for none
            self.step([cpu.Arch.uniform(3, 6, 4).settings()])

    def autocast(self):
        return self.torch.autocast(self.device.type, self.torch.bfloat16, enabled=self.precision == "bf16")

    def step(self, archs):
        torch = self.torch
        soft = None
        if self.teacher:
            with torch.no_grad(), self.autocast():
                soft = self.teacher(self.images).softmax(1)
        for arch in archs:
            self.net.set_active_subnet(**arch)
            with self.autocast():
                logits = self.net(self.images)
                loss = cpu.smoothed_cross_entropy(logits, self.labels)
                if soft is not None:
                    loss = loss - (soft * logits.log_softmax(1)).sum(1).mean()
            loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def wait(self):
        if self.device.type == "cuda":
            self.torch.cuda.synchronize(self.device)

    def memory(self):
        """In megabytes: what is taken, told as `supernet bench` tells it, and what PyTorch's allocator reserved."""
        if self.device.type == "cuda":
            free, total = self.torch.cuda.mem_get_info(self.device)
            return (total - free) / 1e6, self.torch.cuda.max_memory_reserved(self.device) / 1e6
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, None


def worker(name, layout, precision, device, steps):
    """Prints one measurement."""
    import time
    case = Case(name)
    peer = Torch(case, layout, precision, device)
    times = []
    for number, archs in enumerate(case.plan(int(steps))):
        if number == WARMUP and peer.device.type == "cuda":
            # without what tuning tried
            peer.wait()
            peer.torch.cuda.reset_peak_memory_stats(peer.device)
        start = time.perf_counter()
        peer.step(archs)
        peer.wait()
        times.append((time.perf_counter() - start) * 1e3)
    memory, reserved = peer.memory()
    median = statistics.median(times[WARMUP:])
    print(json.dumps({"ms": median, "memory_mb": memory, "max_memory_reserved_mb": reserved}))


def about(device):
    """Prints what the peer runs on. A process of its own: this one must not hold memory of the GPU."""
    try:
        import torch
        import ofa.imagenet_classification.elastic_nn.networks  # noqa: F401
    except ImportError as error:
        print(f"{error}: `pip install torch torchvision ofa` into {sys.executable}", file=sys.stderr)
        sys.exit(2)
    gpu = "no GPU"
    if torch.device(device).type == "cuda":
        if not torch.cuda.is_available():
            sys.exit(f"PyTorch {torch.__version__} finds no GPU")
        gpu = torch.cuda.get_device_name(device)
    print(json.dumps({"gpu": gpu, "torch": torch.__version__, "cuda": torch.version.cuda,
                      "cudnn": torch.backends.cudnn.version()}))


# ---------------------------------------------------------------- measurements and rounds

def measure(name, command):
    """The JSON that a program prints; where there is none, why."""
    environment = dict(os.environ, PYTHONWARNINGS="ignore")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout[done.stdout.index("{"):])
    if OUT_OF_MEMORY.search(done.stderr):
        return {"failure": "out of memory"}
    print(f"{name}: exit status {done.returncode}\n{done.stderr.strip()}", file=sys.stderr)
    return {"failure": "failed"}


def theirs(case, layout, precision, arguments):
    return measure(layout, [sys.executable, __file__, "--worker", case.name, layout, precision, arguments.device,
                            str(arguments.steps)])


def ours(case, precision, arguments):
    report = measure("ours", [
        arguments.supernet, "bench", "--json", "--quiet", "--space", SPACE, "--mode", case.mode, "--resolution",
        str(case.resolution), "--batch", str(case.batch), "--steps", str(arguments.steps), "--warmup", str(WARMUP),
        "--device", arguments.device, "--precision", precision, "--arch", *[arch.text() for arch in case.archs]])
    if "failure" in report:
        return report
    memory = report.get("gpu_memory_mb") or report.get("peak_rss_mb")
    return {"ms": report["step_ms"]["median"], "memory_mb": memory, "launches": report.get("launches_per_step")}


def compare(case, precision, arguments):
    """Takes the rounds and prints their row. What failed once is not tried again."""
    rounds, failures = [], {}
    for number in range(arguments.rounds):
        rounds.append({})
        for who in ("default", "ours", "channels_last"):
            if who in failures:
                continue
            answer = ours(case, precision, arguments) if who == "ours" else theirs(case, who, precision, arguments)
            if "failure" in answer:
                failures[who] = answer["failure"]
            else:
                rounds[-1][who] = answer
            told = failures.get(who) or f"{answer['ms']:.2f} ms"
            print(f"{case.name} {precision}, round {number + 1}, {who}: {told}", file=sys.stderr, flush=True)
    result = {"case": case.name, "precision": precision, "rounds": rounds, "failures": failures}
    print(row(result), flush=True)
    return result


def median_ms(reports):
    return f"{statistics.median(report['ms'] for report in reports):.2f}"


def most_memory(reports):
    return f"{max(report['memory_mb'] for report in reports):.0f}" if reports else "–"


def row(result):
    rounds, failures = result["rounds"], result["failures"]
    bests = []
    for taken in rounds:
        layouts = [layout for layout in LAYOUTS if layout in taken]
        if layouts:
            bests.append(min(layouts, key=lambda layout: taken[layout]["ms"]))
    mine = [taken["ours"] for taken in rounds if "ours" in taken]
    peer = [taken[best] for taken, best in zip(rounds, bests)]
    ratios = [taken[best]["ms"] / taken["ours"]["ms"] for taken, best in zip(rounds, bests) if "ours" in taken]
    lost = [f"{layout}: {failures[layout]}" for layout in LAYOUTS if layout in failures]
    which = [statistics.mode(bests)] if bests else []
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "–"
    launches = mine[-1]["launches"] if mine else None
    cells = [
        result["case"],
        result["precision"],
        median_ms(peer) if peer else "–",
        "; ".join(which + lost),
        median_ms(mine) if mine else failures["ours"],
        ratio,
        f"{launches[0]:.0f} kernels, {launches[1]:.0f} products" if launches else "–",
        f"{most_memory(peer)} / {most_memory(mine)}",
    ]
    return f"| {' | '.join(cells)} |"


def main():
    if sys.argv[1:2] == ["--worker"]:
        return worker(*sys.argv[2:])
    if sys.argv[1:2] == ["--about"]:
        return about(sys.argv[2])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--supernet", required=True, help="the program, with CUDA unless the device is cpu")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cases", nargs="+", type=case_name, default=CASES, metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.steps < 1:
        parser.error("--rounds and --steps: expected 1 or more")
    if not shutil.which(arguments.supernet):
        parser.error(f"--supernet {arguments.supernet}: there is no such program")
    told = subprocess.run([sys.executable, __file__, "--about", arguments.device], stdout=subprocess.PIPE, text=True)
    if told.returncode:
        sys.exit(told.returncode)
    peer = json.loads(told.stdout)
    print(f"{peer['gpu']}, PyTorch {peer['torch']}, CUDA {peer['cuda']}, cuDNN {peer['cudnn']}; medians of "
          f"{arguments.rounds} rounds of {arguments.steps} steps. Memory is what is taken of the GPU after them.\n\n"
          "| case | precision | PyTorch best, ms | which | ours, ms | ratio (range) | our launches a step |"
          " memory theirs / ours, MB |\n|---|---|---|---|---|---|---|---|", flush=True)
    results = []
    for name in arguments.cases:
        for precision in arguments.precisions:
            results.append(compare(Case(name), precision, arguments))
            if arguments.json:
                arguments.json.write_text(json.dumps({"peer": peer, "results": results}, indent=1) + "\n")
    return int(any("failed" in result["failures"].values() for result in results))


if __name__ == "__main__":
    sys.exit(main())
