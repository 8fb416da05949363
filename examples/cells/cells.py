"""Cells of NAS-Bench-201 on Fashion-MNIST: 60 trained alone, the same 60 with shared weights, and their published accuracies.

Usage: python3 cells.py OUT data              writes 20,000 of the training images, and the test images, to OUT/data
       python3 cells.py OUT shared            trains a supernet of all 15,625 cells, and evaluates the 60
       python3 cells.py OUT alone             trains each of the 60 alone for 12 epochs
       python3 cells.py OUT scores            scores the 60 untrained
       python3 cells.py OUT table [CSV]       rank correlations; CSV is a table of published accuracies of all cells, with
                                              columns cell (six digits, edge by edge) and c10_test200

Each command can be interrupted and repeated: it goes on where it was. SUPERNET names the binary, FASHION the folder of
Fashion-MNIST in its own format (default: /usr/share/datasets/fashion-mnist), EPOCHS the supernet's epochs (default: 60).
Needs nothing but Python.
"""

import csv
import gzip
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "tiny"))
from estimators import SCORES, SUPERNET, evaluated, interval, kendall, seconds_each  # noqa: E402

FASHION = Path(os.environ.get("FASHION", "/usr/share/datasets/fashion-mnist"))
EPOCHS = float(os.environ.get("EPOCHS", "60"))
SPACE = HERE / "fashion-cells.toml"
IMAGES = 20_000
# digit by digit as published tables write them
OPERATORS = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
# epochs of the recipe `uniform`
RECIPE_EPOCHS = 250


def text_of(code):
    """The sub-network of a code such as 421211: the edges 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2."""
    names = [OPERATORS[int(digit)] for digit in code]
    nodes = [names[:1], names[1:3], names[3:]]
    return "r28:" + "+".join("|" + "".join(f"{name}~{start}|" for start, name in enumerate(node)) for node in nodes)


def chosen():
    """The 60 cells: random ones, no two of which are the same network, none of which leaves its input unread."""
    draw = random.Random(201)
    found = []
    while len(found) < 60:
        code = "".join(draw.choice("01234") for _ in range(6))
        a, b, c, d, e, f = (digit != "0" for digit in code)
        if code not in found and (d or (a and e) or ((b or (a and c)) and f)):
            found.append(code)
    return found


def data(out):
    folder = out / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", IMAGES), ("t10k", None)):
        for kind, size in (("images-idx3", 28 * 28), ("labels-idx1", 1)):
            name = f"{part}-{kind}-ubyte"
            content = gzip.decompress((FASHION / f"{name}.gz").read_bytes())
            if count:
                head = 16 if size > 1 else 8
                content = content[:4] + struct.pack(">I", count) + content[8:head + count * size]
            (folder / name).write_bytes(content)


def words(out):
    return ["--space", SPACE, "--data", f"idx:{out / 'data'}"]


def texts():
    return [text_of(code) for code in chosen()]


def shared(out):
    run = out / "run"
    subprocess.run([SUPERNET, "train", *words(out), "--recipe", "uniform", "--scale", str(EPOCHS / RECIPE_EPOCHS), "--out", run,
                    "--resume", "--quiet"], check=True)
    of = ["--supernet", run / "supernet.safetensors", "--data", f"idx:{out / 'data'}"]
    return evaluated(out / "shared.csv", texts(), [{}], of, ["top1", "loss"])


def alone(out):
    of = [*words(out), "--recipe", "uniform", "--scale", 12 / RECIPE_EPOCHS, "--out", out / "trials"]
    return evaluated(out / "alone.csv", texts(), [{}], of, ["top1", "loss"])


def scores(out):
    return evaluated(out / "scores.csv", texts(), [{}], [*words(out), "--zero-cost"], SCORES)


def read(path):
    with path.open() as file:
        return {row["arch"]: row for row in csv.DictReader(file)}


def table(out, published):
    truth = read(out / "alone.csv")
    known = {text_of(code): code for code in chosen() if text_of(code) in truth}
    rows = []
    for name, columns in (("shared", ["top1", "loss"]), ("scores", SCORES)):
        path = out / f"{name}.csv"
        if path.exists():
            of = read(path)
            rows += [(f"{name}: {column}", [(-1 if column == "loss" else 1) * float(of[text][column]) for text in known])
                     for column in columns]
    if published:
        with open(published) as file:
            accuracies = {row["cell"]: float(row["c10_test200"]) for row in csv.DictReader(file)}
        rows.append(("published, CIFAR-10, 200 epochs", [accuracies[code] for code in known.values()]))
    top1 = [float(truth[text]["top1"]) for text in known]
    print(f"{len(known)} cells alone, 12 epochs: top-1 {100 * min(top1):.2f} to {100 * max(top1):.2f} %, "
          f"{seconds_each(out / 'alone.csv', len(known)):.0f} CPU s each\n")
    print("| rank by | Kendall tau with top-1 alone, 95 % | top-1 alone of its best, % |\n|---|---|---|")
    for name, values in rows:
        low, high = interval(values, top1, random.Random(0))
        firsts = [top for value, top in zip(values, top1) if value == max(values)]
        best = sum(firsts) / len(firsts)
        print(f"| {name} | {kendall(values, top1):.2f} ({low:.2f} to {high:.2f}) | {100 * best:.2f} |")


def main():
    match sys.argv[1:]:
        case [out, "data"]:
            data(Path(out))
        case [out, "shared"]:
            shared(Path(out))
        case [out, "alone"]:
            alone(Path(out))
        case [out, "scores"]:
            scores(Path(out))
        case [out, "table", *published]:
            table(Path(out), published[0] if published else None)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
