"""Compares training recipes on Fashion-MNIST: eight sub-networks with shared weights beside the same eight trained alone.

Usage: python3 recipes.py OUT archs
       python3 recipes.py OUT train RECIPE SCALE [SEED]      a supernet with that part of the recipe's epochs
       python3 recipes.py OUT rate INDEX LR                  a sub-network alone with this rate, validation only
       python3 recipes.py OUT alone INDEX LR                 a sub-network alone with this rate, on the test images
       python3 recipes.py OUT table                          the table, and the curves as curves.svg
       python3 recipes.py OUT single NUMBER LR [SEED]        one of 24 random sub-networks alone, on the test images
       python3 recipes.py OUT ranks RUN                      ranks of these with the shared weights of a run, and alone

Each command can be interrupted and repeated: it resumes, and skips what is done. SUPERNET names the binary, DATA the
images (default: idx:/usr/share/datasets/fashion-mnist), SPACE another space with the choices of `fashion`. CPU seconds are those of the command itself, all its threads.
Needs nothing but Python.
"""

import json
import math
import os
import random
import resource
import statistics
import subprocess
import sys
from pathlib import Path

SUPERNET = os.environ.get("SUPERNET", "supernet")
SPACE = os.environ.get("SPACE", "fashion")
DATA = os.environ.get("DATA", "idx:/usr/share/datasets/fashion-mnist")
# progressive's first phase has 180 epochs; a ninth of them are 20
ALONE_SCALE = os.environ.get("ALONE_SCALE", "0.1111111")
# eight epochs of a rank, likewise
SINGLE_SCALE = os.environ.get("SINGLE_SCALE", "0.0444444")
SINGLES = 24
SMALLEST = "r28:k3e3,k3e3/k3e3,k3e3"
LARGEST = "r28:" + "/".join(2 * [",".join(4 * ["k7e6"])])


def run(*words):
    return subprocess.run([SUPERNET, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True).stdout


def timed(note, *words):
    """Runs a training, and adds its CPU seconds to those that earlier parts of it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        run(*words)
    finally:
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        known = float(note.read_text()) if note.exists() else 0.0
        note.write_text(str(known + spent))


def archs(out):
    """Both ends, and of 400 random sub-networks at 28 px the middles of six equal shares by MACs."""
    path = out / "archs.json"
    if not path.exists():
        texts = [f"random:{number}" for number in range(1001, 1401)]
        drawn = json.loads(run("space", SPACE, "--arch", *texts, "--json"))["archs"]
        at_28 = sorted({"r28:" + row["arch"].split(":", 1)[1] for row in drawn})
        costs = json.loads(run("space", SPACE, "--arch", *at_28, "--json"))["archs"]
        costs.sort(key=lambda row: row["macs"])
        middles = [costs[(2 * share + 1) * len(costs) // 12] for share in range(6)]
        ends = json.loads(run("space", SPACE, "--arch", SMALLEST, LARGEST, "--json"))["archs"]
        path.write_text(json.dumps([ends[0], *middles, ends[1]], indent=1))
    return json.loads(path.read_text())


def train(out, recipe, scale, seed="0"):
    folder = out / f"{Path(recipe).stem}-{scale}-{seed}"
    result = folder / "test.json"
    if result.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    timed(folder / "cpu", "train", "--space", SPACE, "--data", DATA, "--out", folder / "run", "--recipe", recipe,
          "--scale", scale, "--seed", seed, "--resume", "--quiet")
    texts = [row["arch"] for row in archs(out)]
    evaluated = run("eval", "--supernet", folder / "run/supernet.safetensors", "--data", DATA, "--split", "test",
                    "--arch", *texts, "--json")
    result.write_text(evaluated)


def alone(out, index, lr, split, seed="0"):
    arch = archs(out)[int(index)]["arch"]
    train_alone(out / f"alone-{index}-{lr}-{seed}", arch, split, (ALONE_SCALE, lr, seed))


def train_alone(folder, arch, split, settings):
    """A sub-network from scratch by the recipe's first phase, and its accuracy on a split."""
    scale, lr, seed = settings
    result = folder / f"{split}.json"
    if result.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    timed(folder / "cpu", "train", "--space", SPACE, "--arch", arch, "--data", DATA, "--out", folder / "run",
          "--recipe", "progressive", "--scale", scale, "--lr", lr, "--seed", seed, "--resume", "--quiet")
    evaluated = run("eval", "--supernet", folder / "run/supernet.safetensors", "--data", DATA, "--split", split,
                    "--arch", "largest", "--json")
    result.write_text(evaluated)


def singles(out):
    """24 random sub-networks at 28 px."""
    path = out / "singles.json"
    if not path.exists():
        texts = [f"random:{number}" for number in range(2001, 2201)]
        drawn = json.loads(run("space", SPACE, "--arch", *texts, "--json"))["archs"]
        at_28 = list(dict.fromkeys("r28:" + row["arch"].split(":", 1)[1] for row in drawn))
        path.write_text(json.dumps(at_28[:SINGLES], indent=1))
    return json.loads(path.read_text())


def single(out, number, lr, seed="0"):
    folder = out / f"single-{number}-{seed}"
    train_alone(folder, singles(out)[int(number)], "test", (SINGLE_SCALE, lr, seed))


def tau(one, other):
    """Kendall's tau (b), and its standard deviation over 2,000 resamples of the pairs of values."""
    def of(indices):
        agree, ties = 0, [0, 0]
        for at, i in enumerate(indices):
            for j in indices[at + 1:]:
                x, y = one[i] - one[j], other[i] - other[j]
                agree += (x * y > 0) - (x * y < 0)
                ties = [ties[0] + (x != 0), ties[1] + (y != 0)]
        return agree / math.sqrt(ties[0] * ties[1]) if all(ties) else 0.0

    draw = random.Random(1)
    every = list(range(len(one)))
    drawn = [of([draw.choice(every) for _ in every]) for _ in range(2000)]
    return of(every), statistics.stdev(drawn)


def ranks(out, folder):
    """How a run's shared weights rank the 24, beside how two seeds alone rank those that have two."""
    texts = singles(out)
    alone = {}
    for number in range(SINGLES):
        for seed in "01":
            path = out / f"single-{number}-{seed}/test.json"
            if path.exists():
                alone[number, seed] = json.loads(path.read_text())["results"][0]["top1"]
    known = [number for number in range(SINGLES) if (number, "0") in alone]
    evaluated = json.loads(run("eval", "--supernet", Path(folder) / "run/supernet.safetensors", "--data", DATA, "--split",
                               "test", "--arch", *texts, "--json"))["results"]
    shared = [evaluated[number]["top1"] for number in known]
    single = [alone[number, "0"] for number in known]
    print("| sub-network | shared | alone |\n|---|---|---|")
    for number, one, other in sorted(zip(known, shared, single), key=lambda row: -row[2]):
        print(f"| `{texts[number]}` | {shown(one)} | {shown(other)} |")
    found, deviation = tau(shared, single)
    print(f"shared and alone, {len(known)} networks: tau {found:.2f} +- {1.96 * deviation:.2f}")
    both = [number for number in known if (number, "1") in alone]
    if len(both) > 2:
        two = [[alone[number, seed] for number in both] for seed in "01"]
        found, deviation = tau(*two)
        print(f"two seeds alone, {len(both)} networks: tau {found:.2f} +- {1.96 * deviation:.2f}")
        shared_of = dict(zip(known, shared))
        found, deviation = tau([shared_of[number] for number in both], two[0])
        print(f"shared and alone, the same networks: tau {found:.2f} +- {1.96 * deviation:.2f}")
    chosen = max(range(len(known)), key=lambda place: shared[place])
    print(f"the best by shared weights has {shown(single[chosen])} alone, the best alone {shown(max(single))}: "
          f"regret {100 * (max(single) - single[chosen]):.2f} points")


def best_alone(out, index):
    """Test top-1 of a sub-network alone, at the rate with the best validation; None if it was not trained."""
    found = [path for path in out.glob(f"alone-{index}-*/test.json")]
    top1 = lambda path: json.loads(path.read_text())["results"][0]["top1"]
    validated = lambda path: top1(path.with_name("val.json")) if path.with_name("val.json").exists() else 0.0
    return top1(max(sorted(found), key=validated)) if found else None


def half_width(shares, images):
    """Of the 95 % interval of a difference of two means of such shares, images drawn anew: binomial."""
    return 1.96 * math.sqrt(sum(share * (1 - share) for share in shares) / images) / len(shares) * math.sqrt(2)


def shown(share):
    return f"{100 * share:.2f}"


def table(out):
    rows = archs(out)
    singles = []
    for index, row in enumerate(rows):
        singles.append(best_alone(out, index))
    names = sorted(path.parent.name for path in out.glob("*/test.json") if not path.parent.name.startswith("alone"))
    tops = {name: [row["top1"] for row in json.loads((out / name / "test.json").read_text())["results"]] for name in names}
    print("| sub-network | MMACs | alone | " + " | ".join(f"`{name}`" for name in names) + " |")
    print("|---|" + "---|" * (2 + len(names)))
    for index, row in enumerate(rows):
        cells = [f"`{row['arch']}`", f"{row['macs'] / 1e6:.2f}", shown(singles[index]) if singles[index] else ""]
        print("| " + " | ".join(cells + [shown(tops[name][index]) for name in names]) + " |")
    known = [index for index, single in enumerate(singles) if single is not None]
    differences = []
    for name in names:
        pairs = [tops[name][index] - singles[index] for index in known]
        width = half_width([tops[name][index] for index in known], 10_000) if known else 0.0
        differences.append(f"{100 * statistics.mean(pairs):+.2f} ± {100 * width:.2f}" if known else "")
    print("| mean difference from alone | | | " + " | ".join(differences) + " |")
    means = [shown(statistics.mean(tops[name])) for name in names]
    own = shown(statistics.mean(singles[index] for index in known)) if known else ""
    print(f"| mean | | {own} | " + " | ".join(means) + " |")
    minutes = [f"{float((out / name / 'cpu').read_text()) / 60:.1f}" for name in names]
    print("| CPU minutes | | | " + " | ".join(minutes) + " |")
    (out / "curves.svg").write_text(curves(rows, singles, tops))


COLORS = ["#1b6ca8", "#c8553d", "#3f7d4f", "#8a5a9e", "#b8860b", "#4d4d4d", "#2aa198", "#aa3377"]


def curves(rows, singles, tops):
    """Top-1 over MACs: one line a recipe, circles for the networks trained alone."""
    width, height, left, right, top, bottom = 760, 420, 64, 190, 24, 52
    values = [value for line in tops.values() for value in line] + [value for value in singles if value]
    low, high = math.floor(200 * min(values)) / 2, math.ceil(200 * max(values)) / 2
    macs = [row["macs"] / 1e6 for row in rows]
    span = [math.log(macs[0] * 0.93), math.log(macs[-1] * 1.07)]
    across = lambda value: left + (math.log(value) - span[0]) / (span[1] - span[0]) * (width - left - right)
    up = lambda value: height - bottom - (100 * value - low) / (high - low) * (height - top - bottom)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
             f'font-size="13"><rect width="{width}" height="{height}" fill="white"/>']
    tick = low
    while tick <= high + 1e-9:
        at = up(tick / 100)
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>'
                     f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{tick:.1f}</text>')
        tick += 0.5
    for value in (1.0, 1.5, 2.0, 3.0, 4.0):
        if span[0] <= math.log(value) <= span[1]:
            parts.append(f'<text x="{across(value):.1f}" y="{height - bottom + 20}" text-anchor="middle">{value:g}</text>')
    middle = (left + width - right) / 2
    parts.append(f'<text x="{middle}" y="{height - 10}" text-anchor="middle">million multiply-accumulates</text>'
                 f'<text x="{left}" y="15" text-anchor="start">test top-1, %</text>')
    for at, (name, line) in enumerate(tops.items()):
        color = COLORS[at % len(COLORS)]
        points = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in zip(macs, line))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>'
                     f'<line x1="{width - right + 14}" x2="{width - right + 34}" y1="{40 + 20 * at}" y2="{40 + 20 * at}" '
                     f'stroke="{color}" stroke-width="2"/><text x="{width - right + 40}" y="{44 + 20 * at}">{name}</text>')
    for x, y in zip(macs, singles):
        if y:
            parts.append(f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="4" fill="white" stroke="black"/>')
    at = 40 + 20 * len(tops)
    parts.append(f'<circle cx="{width - right + 24}" cy="{at}" r="4" fill="white" stroke="black"/>'
                 f'<text x="{width - right + 40}" y="{at + 4}">trained alone</text></svg>')
    return "\n".join(parts)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    out, command, rest = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    out.mkdir(parents=True, exist_ok=True)
    match command:
        case "archs":
            print(json.dumps(archs(out), indent=1))
        case "train":
            train(out, *rest)
        case "rate":
            alone(out, rest[0], rest[1], "val")
        case "alone":
            alone(out, rest[0], rest[1], "test")
        case "table":
            table(out)
        case "single":
            single(out, *rest)
        case "ranks":
            ranks(out, *rest)
        case _:
            sys.exit(__doc__)


main()
