"""Scores of untrained networks against published ones: 725 cells of NAS-Bench-201.

Usage: python3 zero_cost.py OUT SCORES.json

SCORES.json is the table of NASLib, {"cifar10": {"(0, 2, 3, 2, 3, 1)": {"params", "flops", "synflow", "val_accuracy"}, …}}: the operators
of the edges 0->1, 0->2, 0->3, 1->2, 1->3, 2->3, where 0 is skip_connect, 1 none, 2 nor_conv_3x3, 3 nor_conv_1x1, 4 avg_pool_3x3.
Of our scores, synflow (its logarithm), params and macs do not depend on images, so a few random arrays do for them. SUPERNET names the
binary. Can be interrupted and repeated. Needs numpy.
"""

import ast
import json
import random
import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent / "tiny"))
from estimators import SCORES, evaluated, interval, kendall, seconds_each  # noqa: E402

OPERATORS = ["skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3"]


def text_of(code):
    to1, to2, to3, one_to2, one_to3, two_to3 = (OPERATORS[digit] for digit in ast.literal_eval(code))
    return f"r32:|{to1}~0|+|{to2}~0|{one_to2}~1|+|{to3}~0|{one_to3}~1|{two_to3}~2|"


def depends_on_images(code):
    """Whether a way leads from the input to the output."""
    to1, to2, to3, one_to2, one_to3, two_to3 = (OPERATORS[digit] != "none" for digit in ast.literal_eval(code))
    return to3 or (to1 and one_to3) or ((to2 or (to1 and one_to2)) and two_to3)


def arrays(folder):
    draw = np.random.default_rng(0)
    for label in range(10):
        (folder / "train" / str(label)).mkdir(parents=True, exist_ok=True)
        for index in range(4):
            np.save(folder / "train" / str(label) / f"{index}.npy", draw.standard_normal((3, 32, 32)).astype(np.float32))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    arrays(out / "arrays")
    published = json.loads(Path(sys.argv[2]).read_text())["cifar10"]
    names = ["synflow", "params", "flops", "val_accuracy"]
    texts = {code: text_of(code) for code, scores in published.items()
             if depends_on_images(code) and all(name in scores for name in names)}
    words = ["--space", "nas-bench-201", "--data", f"npy:{out / 'arrays'}", "--zero-cost", "--batch", 2]
    ours = evaluated(out / "scores.csv", list(texts.values()), [{}], words, SCORES)

    def theirs(name):
        score = lambda of: of["score"] if isinstance(of, dict) else of
        return [float(score(published[code][name])) for code in texts]

    accuracy = theirs("val_accuracy")
    print(f"{len(texts)} cells whose output depends on the input and that have all scores, of {len(published)}, {seconds_each(out / 'scores.csv', len(texts)):.2f} CPU s each for all scores of ours\n")
    print("| score | Kendall tau with their score | with the published accuracy, 95 % | theirs with it |\n|---|---|---|---|")
    for name, their_name in (("synflow", "synflow"), ("params", "params"), ("macs", "flops")):
        own = [float(ours[text][name]) for text in texts.values()]
        low, high = interval(own, accuracy, random.Random(0))
        other = theirs(their_name)
        print(f"| `{name}` | {kendall(own, other):.3f} | {kendall(own, accuracy):.3f} ({low:.2f} to {high:.2f}) | "
              f"{kendall(other, accuracy):.3f} |")


if __name__ == "__main__":
    main()
