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
from estimators import SCORES, SUPERNET, evaluated, interval, kendall  # noqa: E402

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


def columns(out):
    """What cells are ranked by: a name, and the value of each cell by its text."""
    for name, of in (("shared", ["top1", "loss"]), ("scores", SCORES)):
        path = out / f"{name}.csv"
        if path.exists():
            rows = read(path)
            for column in of:
                sign = -1 if column == "loss" else 1
                yield f"{name}: {column}", {text: sign * float(row[column]) for text, row in rows.items()}


def tau(values, truth):
    """Kendall's tau over the cells that have both, with its interval."""
    both = [text for text in values if text in truth]
    pair = [values[text] for text in both], [truth[text] for text in both]
    low, high = interval(*pair, random.Random(0))
    return f"{kendall(*pair):.2f} ({low:.2f} to {high:.2f})"


def table(out, csv_file):
    alone = {text: float(row["top1"]) for text, row in read(out / "alone.csv").items()}
    rows = list(columns(out))
    published = {}
    if csv_file:
        with open(csv_file) as file:
            accuracies = {row["cell"]: float(row["c10_test200"]) for row in csv.DictReader(file)}
        published = {text_of(code): accuracies[code] for code in chosen()}
        rows.append(("published, CIFAR-10, 200 epochs", published))
    spent = out / "alone.cpu"
    seconds = f", {float(spent.read_text()) / len(alone):.0f} CPU s each" if spent.exists() else ""
    low, high = min(alone.values()), max(alone.values())
    print(f"{len(alone)} cells alone, 12 epochs: top-1 {100 * low:.2f} to {100 * high:.2f} %{seconds}\n")
    print(f"| rank by | Kendall tau with top-1 alone ({len(alone)} cells), 95 % | with published accuracy ({len(published)} cells) |")
    print("|---|---|---|")
    for name, values in rows:
        beside = tau(values, published) if published and values is not published else ""
        print(f"| {name} | {tau(values, alone)} | {beside} |")


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
