#!/usr/bin/env python3
"""How good is a search, and how long does it take, beside the tutorial's of PyTorch's `ofa` package?

    cargo build --release -p extract
    python ofa_search.py --tools ../../target/release --predictor acc_predictor.pth --tables DIR --seeds 5 --our-seeds 50

Both search with the same predictor and the same latency tables (DIR/note10_160_lookup_table.yaml and so on, at 160, 176,
192, 208 and 224), two threads each, one after the other. `ofa`'s finder runs as its tutorial sets it: 500 generations of
100. Its tables are read here, for its own reader calls yaml.load without a Loader, which PyYAML has refused since 6.0.
Needs torch, numpy, PyYAML and `ofa`; CI does not run it. Run it on a quiet machine.

    python ofa_search.py --tools ../../target/release … --beside OLD/target/release --our-seeds 10

compares two builds of `extract` instead, which take turns seed by seed, at six latency limits; it needs none of those.
"""

import argparse
import contextlib
import io
import json
import os
import random
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

SIZES = [160, 176, 192, 208, 224]
LIMIT_MS = 25
GENERATIONS, POPULATION = 500, 100
LIMITS_MS = 15, 20, 25, 35, 45, 60


class Tables:
    """The tutorial's latency of a sample, by its own look-up."""

    def __init__(self, folder):
        import yaml
        from ofa.tutorial.latency_table import LatencyEstimator

        self.tables = {}
        for size in SIZES:
            table = LatencyEstimator.__new__(LatencyEstimator)
            table.lut = yaml.load((folder / f"note10_{size}_lookup_table.yaml").read_text(), Loader=yaml.CSafeLoader)
            self.tables[size] = table

    def predict_efficiency(self, sample):
        return self.tables[sample["r"][0]].predict_network_latency_given_spec(sample)


def theirs(arguments):
    import numpy as np
    import torch
    from ofa.tutorial.accuracy_predictor import AccuracyPredictor
    from ofa.tutorial.evolution_finder import EvolutionFinder

    torch.set_num_threads(2)
    predictor = AccuracyPredictor(pretrained=False, device="cpu")
    predictor.model.load_state_dict(torch.load(arguments.predictor, map_location="cpu"))
    tables, runs = Tables(arguments.tables), []
    for seed in range(arguments.seeds):
        random.seed(seed)
        np.random.seed(seed)
        finder = EvolutionFinder(
            "note10", LIMIT_MS, tables, predictor, population_size=POPULATION, max_time_budget=GENERATIONS
        )
        began = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):
            values, _ = finder.run_evolution_search()
        runs.append((100 * values[-1], time.perf_counter() - began, POPULATION * (GENERATIONS + 1)))
    return runs


def ours(arguments, folder, extra=(), limit=LIMIT_MS, tools=None, seeds=None):
    estimator, table = folder / "estimator.safetensors", folder / "table.json"
    extract = (tools or arguments.tools) / "extract"
    space = ["--space", "ofa-mbv3-w1.2"]
    files = [arguments.tables / f"note10_{size}_lookup_table.yaml" for size in SIZES]
    quiet = dict(check=True, capture_output=True, text=True)
    subprocess.run([extract, "import", "predictor", arguments.predictor, *space, "--out", estimator], **quiet)
    subprocess.run([extract, "import", "table", *files, "--out", table], **quiet)
    runs = []
    for seed in range(arguments.our_seeds) if seeds is None else seeds:
        command = [extract, "search", *space, "--resolutions", ",".join(map(str, SIZES)), "--estimator", estimator]
        command += ["--latency-table", table, "--max-latency", f"{limit}ms", "--seed", seed, "--threads", 2]
        command += ["--out", folder / "found.json", "--quiet", "--json", *extra]
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        found = json.loads(subprocess.run(list(map(str, command)), **quiet).stdout)
        cpu = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
        runs.append((100 * found["best"]["accuracy"], found["seconds"], found["candidates"], cpu))
    return runs


def row(name, runs):
    accuracies, seconds, candidates, _ = map(list, zip(*runs))
    rate = statistics.median(count / max(time, 1e-3) for time, count in zip(seconds, candidates))
    median = statistics.median
    print(
        f"| {name} | {len(runs)} | {min(accuracies):.2f} / {median(accuracies):.2f} / {max(accuracies):.2f} "
        f"| {median(seconds):.2f} | {max(seconds):.2f} | {median(candidates):.0f} | {rate:.0f} |"
    )


def beside(arguments, folder):
    print("| limit, ms | expected top-1 %, min / mean / max: before | now | s, 10th percentile: before | now | CPU s, 10th percentile: before | now |")
    print("|---|---|---|---|---|---|---|")
    for limit in LIMITS_MS:
        runs = [[], []]
        for seed in range(arguments.our_seeds):
            for tools, run in zip((arguments.beside, arguments.tools), runs):
                run += ours(arguments, folder, limit=limit, tools=tools, seeds=[seed])
        (before, then, _, cpu_then), (now, today, _, cpu_today) = (list(zip(*run)) for run in runs)
        spread = lambda values: f"{min(values):.3f} / {statistics.mean(values):.3f} / {max(values):.3f}"
        low = lambda values: f"{sorted(values)[len(values) // 10]:.3f}"
        times = " | ".join(map(low, (then, today, cpu_then, cpu_today)))
        print(f"| {limit} | {spread(before)} | {spread(now)} | {times} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", type=Path, required=True)
    parser.add_argument("--predictor", type=Path, required=True, help="acc_predictor.pth of OFA's authors")
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--our-seeds", type=int, default=50)
    parser.add_argument("--beside", type=Path, help="another build's folder of binaries, to take turns with")
    arguments = parser.parse_args()
    if arguments.beside:
        with tempfile.TemporaryDirectory() as folder:
            return beside(arguments, Path(folder))
    print("| search | seeds | expected top-1 %, min / median / max | s, median | s, max | candidates | a second |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        row("extract search, 25 ms", ours(arguments, Path(folder)))
        row("extract search --front, 60 ms", ours(arguments, Path(folder), ["--front"], 60))
    row("ofa.tutorial EvolutionFinder, 25 ms", theirs(arguments))


if __name__ == "__main__":
    main()
