#!/usr/bin/env python3
"""What PyTorch's `ofa` predicts with small accuracy predictors of both kinds.

    python make_predictors.py            # writes predictors.jsonl beside itself
    python make_predictors.py --seeds    # writes the small files of ../../fuzz/seeds/predictor

Needs torch, safetensors and `ofa`. The weights are make_golden.py's formula of their names; the features are the package's own. The
widths are small. `base_acc` is 0.75.
"""

import json
import random
import sys

import torch
from make_golden import HERE, value
from ofa.nas.accuracy_predictor import AccuracyPredictor, MobileNetArchEncoder, ResNetArchEncoder
from ofa.tutorial.accuracy_predictor import AccuracyPredictor as TutorialPredictor
from safetensors.torch import save_file

HIDDEN, ROWS, BASE = 24, 12, 0.75
SIZES = [192, 128, 224, 160]  # in no order: a predictor's own list decides


class ProxylessEncoder(MobileNetArchEncoder):
    SPACE_TYPE = "mbv2"


def fill(module):
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.copy_(torch.tensor([BASE]) if name == "base_acc" else value(name, tuple(tensor.shape)))
    return module.double().eval()


def tutorial(draw):
    predictor = TutorialPredictor(pretrained=False, device="cpu")
    layers = [torch.nn.Linear(128, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.ReLU()]
    predictor.model = fill(torch.nn.Sequential(*layers, torch.nn.Linear(HIDDEN, 1)))
    rows = []
    for _ in range(ROWS):
        sample = {
            "ks": [draw.choice([3, 5, 7]) for _ in range(20)],
            "e": [draw.choice([3, 4, 6]) for _ in range(20)],
            "d": [draw.choice([2, 3, 4]) for _ in range(5)],
            "r": [draw.choice([160, 176, 188, 192, 208, 224])],
        }
        features = TutorialPredictor.spec2feats(sample["ks"][:], sample["e"][:], sample["d"], sample["r"][0])
        rows.append({"sample": sample, "accuracy": predictor.model(features.double()[None]).item()})
    return "ofa-mbv3-w1.2", [], rows


def library(space, encoder, draw):
    predictor = fill(AccuracyPredictor(encoder, hidden_size=HIDDEN, n_layers=2, device="cpu"))
    random.seed(draw.random())
    rows = []
    for _ in range(ROWS):
        sample = encoder.random_sample_arch()
        if isinstance(encoder, ProxylessEncoder):
            sample["d"][-1] = 1
        elif isinstance(encoder, ResNetArchEncoder):
            # of the two indices that make equal networks, the greater stands for both
            sample["w"][0] = max(sample["w"][0], 1)
        features = torch.tensor(encoder.arch2feature(sample), dtype=torch.float64)
        rows.append({"sample": sample, "accuracy": predictor(features[None]).item()})
    return space, encoder.image_size_list, rows


def seeds():
    """A predictor of each kind with few weights: the library's for the space `tiny`, the tutorial's."""
    library = {"base_acc": torch.tensor([BASE])}
    for part, inputs, outputs in [("layers.0.0", 26, 4), ("layers.1.0", 4, 4), ("layers.2", 4, 1)]:
        library[f"{part}.weight"] = value(f"{part}.weight", (outputs, inputs))
        if outputs > 1:
            library[f"{part}.bias"] = value(f"{part}.bias", (outputs,))
    tutorial = {}
    for part, inputs, outputs in [("0", 128, 2), ("2", 2, 1)]:
        tutorial[f"{part}.weight"] = value(f"{part}.weight", (outputs, inputs))
        tutorial[f"{part}.bias"] = value(f"{part}.bias", (outputs,))
    folder = HERE.parents[1] / "fuzz" / "seeds" / "predictor"
    save_file(library, folder / "library.safetensors")
    torch.save(library, folder / "library.pth")
    save_file(tutorial, folder / "tutorial.safetensors")


def main():
    if "--seeds" in sys.argv:
        return seeds()
    draw = random.Random(0)
    cases = [
        tutorial(draw),
        library("ofa-mbv3-w1.0", MobileNetArchEncoder(image_size_list=SIZES), draw),
        library("ofa-proxyless-w1.3", ProxylessEncoder(image_size_list=SIZES), draw),
        library("ofa-resnet50", ResNetArchEncoder(image_size_list=SIZES), draw),
    ]
    lines = [{"space": space, "resolutions": sizes, **row} for space, sizes, rows in cases for row in rows]
    (HERE / "predictors.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
