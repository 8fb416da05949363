#!/usr/bin/env python3
"""Does an imported accuracy predictor expect what PyTorch's `ofa` package expects?

    cargo build --release -p extract && cargo build --release --example expected
    python ofa_predictor.py --tools ../../target/release --tutorial acc_predictor.pth

Imports the tutorial's predictor (its authors' file) and, for each encoder of the library, a predictor with random weights
saved by torch.save; predicts 1,000 random sub-networks with both programs and prints the largest difference. Needs torch,
numpy and `ofa`; CI does not run it.
"""

import argparse
import random
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from ofa.nas.accuracy_predictor import AccuracyPredictor, MobileNetArchEncoder, ResNetArchEncoder
from ofa.tutorial.accuracy_predictor import AccuracyPredictor as TutorialPredictor

COUNT = 1000
WIDTHS = ["0.65", "0.8", "1"]


class ProxylessEncoder(MobileNetArchEncoder):
    SPACE_TYPE = "mbv2"


def mobile_text(ks, e, d, side):
    stages = [[f"k{ks[4 * s + p]}e{e[4 * s + p]}" for p in range(depth)] for s, depth in enumerate(d)]
    return f"r{side}:" + "/".join(",".join(stage) for stage in stages)


def resnet_text(d, e, w, side):
    stages = [f"w{WIDTHS[w[0]]}:" + ("k3e1" if d[0] == 2 else ""), f"w{WIDTHS[w[1]]}:k3e1"]
    start = 0
    for stage, (base, more) in enumerate(zip([2, 2, 4, 2], d[1:])):
        blocks = ",".join(f"k3e{ratio}" for ratio in e[start : start + base + more])
        stages.append(f"w{WIDTHS[w[2 + stage]]}:{blocks}")
        start += base + 2
    return f"r{side}:" + "/".join(stages)


def ours(tools, folder, predictor, space, sizes, archs):
    estimator = folder / "estimator.safetensors"
    listed = ["--resolutions", ",".join(map(str, sizes))] if sizes else []
    command = [tools / "extract", "import", "predictor", predictor, "--space", space, "--out", estimator, "--quiet"]
    subprocess.run(command + listed, check=True, capture_output=True)
    lines = "".join(f"{arch}\n" for arch in archs)
    done = subprocess.run([tools / "examples/expected", estimator], input=lines, text=True, check=True, capture_output=True)
    return np.array(done.stdout.split(), dtype=np.float64)


def tutorial(path):
    predictor = TutorialPredictor(pretrained=False, device="cpu")
    predictor.model.load_state_dict(torch.load(path, map_location="cpu"))
    samples = [
        {
            "ks": random.choices([3, 5, 7], k=20),
            "e": random.choices([3, 4, 6], k=20),
            "d": random.choices([2, 3, 4], k=5),
            "r": [random.choice(range(160, 225, 4))],
        }
        for _ in range(COUNT)
    ]
    archs = [mobile_text(s["ks"], s["e"], s["d"], s["r"][0]) for s in samples]
    return archs, predictor.predict_accuracy(samples).flatten().double().numpy()


def library(encoder, file):
    predictor = AccuracyPredictor(encoder, device="cpu")
    predictor.base_acc.fill_(0.76)
    torch.save(predictor.state_dict(), file)
    samples = [encoder.random_sample_arch() for _ in range(COUNT)]
    for sample in samples:
        if isinstance(encoder, ProxylessEncoder):
            sample["d"][-1] = 1
        if isinstance(encoder, ResNetArchEncoder):
            sample["w"][0] = max(sample["w"][0], 1)  # two indices make equal networks, named by the greater
    if isinstance(encoder, ResNetArchEncoder):
        archs = [resnet_text(s["d"], s["e"], s["w"], s["image_size"]) for s in samples]
    else:
        archs = [mobile_text(s["ks"], s["e"], s["d"], s["image_size"]) for s in samples]
    with torch.no_grad():
        return archs, predictor.predict_acc(samples).double().numpy()


def report(name, got, expected):
    difference = np.abs(got - expected).max()
    print(f"{name:34} {len(got)} sub-networks, {expected.min():.4f} to {expected.max():.4f}, difference {difference:.1e}")
    assert difference <= 1e-5, name


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", type=Path, required=True)
    parser.add_argument("--tutorial", type=Path, help="acc_predictor.pth of OFA's authors")
    arguments = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if arguments.tutorial:
            archs, expected = tutorial(arguments.tutorial)
            got = ours(arguments.tools, folder, arguments.tutorial, "ofa-mbv3-w1.2", [], archs)
            report("tutorial, ofa-mbv3-w1.2", got, expected)
        for space, encoder in [
            ("ofa-mbv3-w1.0", MobileNetArchEncoder(image_size_list=[128, 160, 192, 224])),
            ("ofa-proxyless-w1.3", ProxylessEncoder(image_size_list=[160, 176, 192, 208, 224])),
            ("ofa-resnet50", ResNetArchEncoder(image_size_list=[128, 144, 160, 176, 192, 224, 208])),
        ]:
            archs, expected = library(encoder, folder / "predictor.pth")
            got = ours(arguments.tools, folder, folder / "predictor.pth", space, encoder.image_size_list, archs)
            report(f"library, {space}", got, expected)


if __name__ == "__main__":
    main()
