#!/usr/bin/env python3
"""Compares the expected memory of training runs with their peak.

    BIN=target/release python supernet/benches/memory.py [few | many]

Trains the presets `tiny` and `fashion` on the digits, and `ofa-mbv3-w1.0` and `ofa-resnet50`, each at a single resolution, on
generated images: one step of the largest network, one step with a teacher and two sub-networks, and the end of each phase.
With `few` images (40 to train with) the steps take most memory; with `many` (250) evaluation does, in batches of 200. Prints
one row per run: the estimate (`run.estimated_memory_mb` of plan.json), the peak of the process, and their ratio.
"""

import json
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("BIN", ROOT / "target/release")).resolve()
SIDE = 200

RECIPE = """version = 1
name = "memory"
batch = 8
lr_batch = 2048
momentum = 0.9
weight_decay = 0.00003
label_smoothing = 0.1

[[phases]]
name = "full"
allowed = { kernel = 1, depth = 1, expand = 1 }
subnetworks = 1
epochs = 0.01
warmup_epochs = 0
lr = 0.01
distill = false
sort_channels = false

[[phases]]
name = "all"
allowed = { kernel = 9, depth = 9, expand = 9 }
subnetworks = 2
epochs = 0.01
warmup_epochs = 0
lr = 0.01
distill = true
sort_channels = true
"""


def images(folder, train):
    """Colored noise in two classes, as PPM; a fifth as many for val."""
    rng = random.Random(1)
    for split, count in (("train", train), ("val", train // 5)):
        for number in range(count):
            path = folder / split / "ab"[number % 2] / f"{number}.ppm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"P6 %d %d 255\n" % (SIDE, SIDE) + rng.randbytes(3 * SIDE * SIDE))


def space(name, resolution, at):
    text = subprocess.run([BIN / "supernet", "space", name, "--toml"], stdout=subprocess.PIPE, check=True).stdout.decode()
    text = re.sub(r"(?ms)^resolutions = \[.*?\]", f"resolutions = [{resolution}]", text)
    text = re.sub(r"(?m)^classes = .*", "classes = 2", text)
    path = at / f"{name}-{resolution}.toml"
    path.write_text(text)
    return path


def measure(name, subject, data, batch, at):
    run = at / f"run-{name.replace(' ', '-')}-{batch}"
    words = ["train", "--space", subject, "--data", data, "--recipe", at / "recipe.toml", "--batch", batch, "--out", run, "--json", "--quiet"]
    done = subprocess.run([str(word) for word in [BIN / "supernet", *words]], stdout=subprocess.PIPE, check=True)
    peak = json.loads(done.stdout)["peak_rss_mb"]
    expected = json.loads((run / "plan.json").read_text())["run"]["estimated_memory_mb"]
    print(f"| {name} | {batch} | {expected:,.0f} MB | {peak:,.0f} MB | {expected / peak:.2f} |", flush=True)


def main():
    few = sys.argv[1:] != ["many"]
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        (at / "recipe.toml").write_text(RECIPE)
        images(at / "images", 40 if few else 250)
        print("| space | images per step | expected | peak | expected / peak |\n|---|---|---|---|---|")
        if few:
            for name in ("tiny", "fashion"):
                for batch in (64, 1024):
                    measure(name, name, "digits", batch, at)
        resolutions = {"ofa-mbv3-w1.0": (128, 192), "ofa-resnet50": (96, 160)} if few else {"ofa-mbv3-w1.0": (128, 192), "ofa-resnet50": (96,)}
        for name, sides in resolutions.items():
            for side in sides:
                for batch in (8, 16, 32) if few else (8,):
                    subject = space(name, side, at)
                    measure(f"{name}, {side} px", subject, f"folder:{at / 'images'}", batch, at)


main()
