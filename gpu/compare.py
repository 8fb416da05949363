#!/usr/bin/env python3
"""Compares the times of `supernet bench` and PyTorch on one GPU.

    python gpu/compare.py --supernet PATH [--device cuda:0] [--rounds 2] [--steps 20] [--cases NAME ...]
                          [--precisions bf16 tf32 f32] [--compiled] [--budget SECONDS] [--json FILE]

Needs PyTorch alone (gpu/peer.py). A case is called KIND-RESOLUTION-BATCH. Kinds are largest, random (another sub-network
each step) and teacher+4 (a step of progressive shrinking); both sides train the same list of random sub-networks. Any
resolution and batch will do: `--device cpu --precisions f32 --steps 2 --rounds 1 --cases largest-32-2` tries this script
where there is no GPU.

PyTorch runs its default layout, channels_last, and for the largest network a CUDA graph of the latter; with --compiled
also torch.compile. The best of them in each round counts. In a round ours stands between them; a ratio is always of one
round, and above 1 where ours is faster. No step reads new images on either side.
"""

import argparse
import json
import os
import re
import select
import shutil
import statistics
import subprocess
import sys
import time
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
CASES = ["largest-224-128", "teacher+4-224-64", "largest-64-512", "random-224-128", "teacher+4-64-512", "random-64-512",
         "largest-224-64", "largest-224-256"]
PRECISIONS = ["bf16", "tf32", "f32"]
# on both sides: each of the random sub-networks comes once, and cuDNN tunes for it
WARMUP = 10
# seconds that one measurement may take
PATIENCE = 240
OUT_OF_MEMORY = re.compile("out.of.memory|alloc_failed|no room left", re.IGNORECASE)


class Case:
    """A case by its name."""

    def __init__(self, name):
        kind, resolution, batch = name.rsplit("-", 2)
        self.name, self.kind, self.resolution, self.batch = name, kind, int(resolution), int(batch)
        self.mode, self.archs = KINDS[kind]

    def plan(self, steps):
        """For each step, warm-up first, the sub-networks that it trains; `supernet bench` takes the same."""
        width = 4 if self.mode == "shrink" else 1
        settings = [arch.settings() for arch in self.archs]
        return [[settings[(step * width + i) % len(settings)] for i in range(width)] for step in range(WARMUP + steps)]

    def variants(self, arguments):
        """PyTorch's. A graph holds one sub-network, and what is compiled anew for each step's would never be done."""
        alone = self.kind == "largest"
        graph = ["graph"] if alone and arguments.device.startswith("cuda") else []
        return ["default", "channels_last", *graph, *(["compiled"] if alone and arguments.compiled else [])]


def case_name(text):
    try:
        return Case(text).name
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"{text}: expected KIND-RESOLUTION-BATCH, KIND one of {', '.join(KINDS)}")


class Peer:
    """PyTorch in a process that answers a line with a line."""

    def __init__(self, device):
        self.device, self.process, self.about = device, None, None
        self.start()

    def start(self):
        environment = dict(os.environ, PYTHONWARNINGS="ignore", PYTHONDONTWRITEBYTECODE="1")
        command = [sys.executable, str(ROOT / "gpu/peer.py"), self.device]
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self.line()
        if self.about is None:
            sys.exit(f"gpu/peer.py does not begin; is PyTorch in {sys.executable}?")

    def line(self):
        """The next line of the answer, or None."""
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if ready else ""
        return json.loads(line) if line.startswith("{") else None

    def ask(self, question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.line()
        if answer is None:
            self.close()
            self.start()
            return {"failure": f"no answer in {PATIENCE} s"}
        return answer

    def close(self):
        self.process.kill()
        self.process.wait()


def theirs(peer, case, variant, precision, arguments):
    return peer.ask({"mode": case.mode, "resolution": case.resolution, "batch": case.batch, "variant": variant,
                     "precision": precision, "plan": case.plan(arguments.steps), "warmup": WARMUP})


def ours(case, precision, arguments):
    command = [
        arguments.supernet, "bench", "--json", "--quiet", "--space", SPACE, "--mode", case.mode, "--resolution",
        str(case.resolution), "--batch", str(case.batch), "--steps", str(arguments.steps), "--warmup", str(WARMUP),
        "--device", arguments.device, "--precision", precision, "--arch", *[arch.text() for arch in case.archs]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return {"failure": f"no answer in {PATIENCE} s"}
    if done.returncode or "{" not in done.stdout:
        if OUT_OF_MEMORY.search(done.stderr + done.stdout):
            return {"failure": "out of memory"}
        print(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr.strip()}", file=sys.stderr)
        return {"failure": "failed"}
    report = json.loads(done.stdout[done.stdout.index("{"):])
    memory = report.get("gpu_memory_mb") or report.get("peak_rss_mb")
    return {"ms": report["step_ms"]["median"], "memory_mb": memory, "launches": report.get("launches_per_step")}


def compare(peer, case, precision, arguments):
    """Measures all rounds and prints their row. A variant that failed once is not tried again."""
    rounds, failures = [], {}
    variants = case.variants(arguments)
    for number in range(arguments.rounds):
        rounds.append({})
        for who in [variants[0], "ours", *variants[1:]]:
            if who in failures:
                continue
            mine = who == "ours"
            answer = ours(case, precision, arguments) if mine else theirs(peer, case, who, precision, arguments)
            if "failure" in answer:
                failures[who] = answer["failure"]
            else:
                rounds[-1][who] = answer
            outcome = failures.get(who) or f"{answer['ms']:.2f} ms"
            print(f"{case.name} {precision}, round {number + 1}, {who}: {outcome}", file=sys.stderr, flush=True)
    result = {"case": case.name, "precision": precision, "variants": variants, "rounds": rounds, "failures": failures}
    print(row(result), flush=True)
    return result


def median_ms(reports):
    return f"{statistics.median(report['ms'] for report in reports):.2f}"


def most_memory(reports):
    known = [report["memory_mb"] for report in reports if report["memory_mb"]]
    return f"{max(known):.0f}" if known else "–"


def row(result):
    rounds, failures, variants = result["rounds"], result["failures"], result["variants"]
    bests = []
    for taken in rounds:
        there = [variant for variant in variants if variant in taken]
        bests.append(min(there, key=lambda variant: taken[variant]["ms"]) if there else None)
    mine = [taken["ours"] for taken in rounds if "ours" in taken]
    best = [(taken, which) for taken, which in zip(rounds, bests) if which]
    peer = [taken[which] for taken, which in best]
    ratios = [taken[which]["ms"] / taken["ours"]["ms"] for taken, which in best if "ours" in taken]
    lost = [f"{variant}: {failures[variant]}" for variant in variants if variant in failures]
    which = [statistics.mode(which for _, which in best)] if best else []
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--supernet", required=True, help="the program, with CUDA unless the device is cpu")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cases", nargs="+", type=case_name, default=CASES, metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--compiled", action="store_true", help="torch.compile too, for the largest network")
    parser.add_argument("--budget", type=float, default=float("inf"), metavar="SECONDS",
                        help="begin no further row after that")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.steps < 1:
        parser.error("--rounds and --steps: expected 1 or more")
    if not shutil.which(arguments.supernet):
        parser.error(f"--supernet {arguments.supernet}: there is no such program")
    began = time.monotonic()
    peer = Peer(arguments.device)
    about = peer.about
    print(f"{about['gpu']}, PyTorch {about['torch']}, CUDA {about['cuda']}, cuDNN {about['cudnn']}; medians of "
          f"{arguments.rounds} rounds of {arguments.steps} steps. Memory is what PyTorch's allocator reserved, and what "
          "is taken of the GPU after ours.\n\n"
          "| case | precision | PyTorch best, ms | which | ours, ms | ratio (range) | our launches per step |"
          " memory theirs / ours, MB |\n|---|---|---|---|---|---|---|---|", flush=True)
    results, left = [], 0
    for precision in arguments.precisions:
        for name in arguments.cases:
            if time.monotonic() - began > arguments.budget:
                left += 1
                continue
            results.append(compare(peer, Case(name), precision, arguments))
            if arguments.json:
                arguments.json.write_text(json.dumps({"peer": about, "results": results}, indent=1) + "\n")
    peer.close()
    if left:
        print(f"\n{left} rows were not begun: {arguments.budget:.0f} s were over.", flush=True)
    return int(any("ours" in result["failures"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
