#!/usr/bin/env python3
"""Does TensorBoard read what `supernet train --tensorboard` writes, as the log has it?

    pip install tensorboard
    BIN=target/release python tests/parity/tensorboard.py

Trains `tiny` on the digits, kills it within a phase after a checkpoint, and resumes it; reads the run's folder with TensorBoard's
EventAccumulator, and compares every curve, point by point, with log.jsonl: what the killed process wrote beyond its
checkpoint must be gone. Then fine-tunes an exported network likewise. Prints what was read of each. CI does not run it.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# this file has the package's name
sys.path.pop(0)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("BIN", ROOT / "target/release")).resolve()
TRAIN = "train --space tiny --data digits --scale 0.03 --tensorboard --quiet"


def command(name, words, at):
    return subprocess.Popen([str(BIN / name), *words.split()], cwd=at, stdout=subprocess.DEVNULL)


def run(name, words, at):
    if command(name, words, at).wait() != 0:
        sys.exit(f"{name} {words} failed")


def kill_beyond_a_checkpoint(words, run, at, mark):
    """Kills a run when its log has twelve lines after one that holds `mark`."""
    process = command("supernet", words, at)
    while process.poll() is None:
        lines = (run / "log.jsonl").read_text().splitlines() if (run / "log.jsonl").exists() else []
        marked = [number for number, line in enumerate(lines) if mark in line]
        if marked and len(lines) > marked[-1] + 12:
            break
        time.sleep(0.005)
    process.kill()
    if process.wait() != -signal.SIGKILL:
        sys.exit(f"{words}: it ended before the kill")


def logged(path, batch, largest):
    """The points of each curve by the log: steps taken, value."""
    curves = {}
    for line in path.read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "step":
            values = {name: event[name] for name in ("loss", "lr", "resolution")}
            values["images_per_second"] = batch / event["ms"] * 1e3
            step = event["step"] + 1
        elif event["event"] == "evaluation":
            role = "" if largest is None else "/largest" if event["arch"] == largest else "/smallest"
            values, step = {f"val/top1{role}": event["top1"]}, event["step"]
        else:
            continue
        for name, value in values.items():
            curves.setdefault(name, []).append((step, value))
    return curves


def compare(run, batch, largest):
    accumulator = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    accumulator.Reload()
    expected = logged(run / "log.jsonl", batch, largest)
    names = sorted(accumulator.Tags()["scalars"])
    if names != sorted(expected):
        sys.exit(f"{run.name}: curves {names}, not {sorted(expected)}")
    for name in names:
        got = [(event.step, event.value) for event in accumulator.Scalars(name)]
        same = [a[0] == b[0] and abs(a[1] - b[1]) <= 1e-6 * abs(b[1]) for a, b in zip(got, expected[name])]
        if len(got) != len(expected[name]) or not all(same):
            sys.exit(f"{run.name}: {name}: {len(got)} points, {len(expected[name])} logged, {sum(same)} the same")
    files = sorted(path.name for path in (run / "tensorboard").iterdir())
    print(f"{run.name}: {len(files)} files, " + ", ".join(f"{name} {len(expected[name])}" for name in names))


def main():
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        kill_beyond_a_checkpoint(f"{TRAIN} --checkpoint-seconds 0 --out run", at / "run", at, '"checkpoint"')
        # steps are there then that no checkpoint holds
        kill_beyond_a_checkpoint(f"{TRAIN} --out run --resume", at / "run", at, '"resumed"')
        run("supernet", f"{TRAIN} --out run --resume", at)
        space = subprocess.run([BIN / "supernet", "space", "tiny", "--json"], stdout=subprocess.PIPE, check=True)
        largest = json.loads(space.stdout)["largest"]["12"]["arch"]
        compare(at / "run", json.loads((at / "run/plan.json").read_text())["plan"]["batch"], largest)
        run("extract", "export --supernet run/supernet.safetensors --arch smallest --data digits --out model --quiet", at)
        tune = "finetune model --data digits --epochs 5 --tensorboard --quiet --out tuned"
        kill_beyond_a_checkpoint(f"{tune} --checkpoint-seconds 0", at / "tuned", at, '"checkpoint"')
        run("supernet", f"{tune} --resume", at)
        compare(at / "tuned", json.loads((at / "tuned/plan.json").read_text())["plan"]["batch"], None)


main()
