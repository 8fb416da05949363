"""Every sub-network of `tiny` evaluated once: the ground on which strategies and estimators of performance are compared.

Usage: python3 estimators.py OUT all        trains a supernet on the digits and evaluates its 16,200 sub-networks
       python3 estimators.py OUT alone      trains 64 of them alone, at several fidelities
       python3 estimators.py OUT predictor  fits predictors to some of the sub-networks, and searches with them
       python3 estimators.py OUT tables     compares estimators: rank correlation, regret, CPU seconds
       python3 estimators.py OUT studies    compares strategies on both tables (`extract study`)

Each command can be interrupted and repeated: it goes on where it was. SUPERNET and EXTRACT name the binaries. Needs nothing
but Python. Both tables are CSV: `all.csv` has a line for each sub-network, with the top-1 and the loss of the shared weights
on all and on a quarter of the validation images and the scores of `--zero-cost`; `alone.csv` one for each of 64.
"""

import csv
import itertools
import json
import os
import random
import resource
import subprocess
import sys
from pathlib import Path

SUPERNET = os.environ.get("SUPERNET", "supernet")
EXTRACT = os.environ.get("EXTRACT", "extract")
DATA = os.environ.get("DATA", "digits")
SCALE = os.environ.get("SCALE", "0.5")
ALONE_SCALE = os.environ.get("ALONE_SCALE", "0.1111111")
HERE = Path(__file__).resolve().parent
SCORES = ["grad-norm", "jacov", "nwot", "synflow", "params", "macs"]
# two values of six properties: resolution 12, each stage one kernel and one expand ratio in all its blocks
HALVES = list(itertools.product([3, 7], [3, 6], [1, 2], [3, 7], [3, 6], [1, 2]))
TRAINED = [("steps", 1.0), ("steps", 0.25), ("images", 0.25), ("resolution", 0.6667)]


def archs():
    blocks = [f"k{kernel}e{expand}" for kernel in (3, 5, 7) for expand in (3, 4, 6)]
    stages = blocks + [f"{one},{other}" for one in blocks for other in blocks]
    return [f"r{side}:{one}/{other}" for side in (8, 12) for one in stages for other in stages]


def half(choice):
    stage = lambda kernel, expand, depth: ",".join(depth * [f"k{kernel}e{expand}"])
    return f"r12:{stage(*choice[:3])}/{stage(*choice[3:])}"


def children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def evaluated(path, texts, requests, words, columns):
    """The answers of a `supernet trial --serve` for each text, as rows of a CSV file; what it has already stays."""
    known = {}
    if path.exists():
        with path.open() as file:
            known = {row["arch"]: row for row in csv.DictReader(file) if None not in row.values()}
    left = [text for text in texts if text not in known]
    if left:
        before = children()
        program = subprocess.Popen([SUPERNET, "trial", *map(str, words), "--serve", "--quiet"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True, bufsize=1)
        with path.open("a") as file:
            writer = csv.writer(file)
            if not known:
                writer.writerow(["arch", *columns])
            for text in left:
                row = [text]
                for request in requests:
                    program.stdin.write(json.dumps({"arch": text, **request}) + "\n")
                    program.stdin.flush()
                    answer = json.loads(program.stdout.readline())
                    metrics = answer.get("metrics") or sys.exit(f"{text}: {answer.get('error')}")
                    row += [metrics[name] for name in request_columns(words)]
                writer.writerow(row)
                file.flush()
        program.stdin.close()
        program.wait()
        seconds = path.with_suffix(".cpu")
        spent = float(seconds.read_text()) if seconds.exists() else 0.0
        seconds.write_text(str(spent + children() - before))
    with path.open() as file:
        return {row["arch"]: row for row in csv.DictReader(file)}


def request_columns(words):
    return SCORES if "--zero-cost" in words else ["top1", "loss"]


def seconds_each(path, count):
    return float(path.with_suffix(".cpu").read_text()) / count


def trained(out):
    run = out / "run"
    subprocess.run([SUPERNET, "train", "--space", "tiny", "--data", DATA, "--recipe", "sandwich", "--scale", SCALE,
                    "--out", run, "--resume", "--quiet"], check=True)
    return run / "supernet.safetensors"


def whole(out):
    supernet = trained(out)
    texts = archs()
    shared = evaluated(out / "shared.csv", texts, [{"fidelity": 1.0}, {"fidelity": 0.25}],
                       ["--supernet", supernet, "--data", DATA], ["top1", "loss", "top1_quarter", "loss_quarter"])
    scores = evaluated(out / "scores.csv", texts, [{}], ["--space", "tiny", "--data", DATA, "--zero-cost"], SCORES)
    with (out / "all.csv").open("w") as file:
        writer = csv.writer(file)
        names = ["top1", "loss", "top1_quarter", "loss_quarter"]
        writer.writerow(["arch", *names, *SCORES])
        for text in texts:
            writer.writerow([text, *(shared[text][name] for name in names), *(scores[text][name] for name in SCORES)])


def alone(out):
    texts = [half(choice) for choice in HALVES]
    rows = {}
    for of, fidelity in TRAINED:
        words = ["--space", "tiny", "--data", DATA, "--scale", ALONE_SCALE, "--fidelity-of", of, "--out", out / f"trials-{of}"]
        path = out / f"alone-{of}-{fidelity}.csv"
        rows[of, fidelity] = evaluated(path, texts, [{"fidelity": fidelity}], words, ["top1", "loss"])
    again = ["--space", "tiny", "--data", DATA, "--scale", ALONE_SCALE, "--seed", 1, "--out", out / "trials-again"]
    rows["again"] = evaluated(out / "alone-again.csv", texts, [{"fidelity": 1.0, "seed": 1}], again, ["top1", "loss"])
    with (out / "alone.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["kernel1", "expand1", "depth1", "kernel2", "expand2", "depth2", "top1", "loss", "loss_quarter"])
        for choice in HALVES:
            of = lambda key: rows[key][half(choice)]
            writer.writerow([*choice, of(("steps", 1.0))["top1"], of(("steps", 1.0))["loss"], of(("steps", 0.25))["loss"]])


def kendall(one, other):
    """Kendall's tau-b: pairs that are equal in either count in its ends."""
    agree = apart = ties_one = ties_other = 0
    for (a, b), (c, d) in itertools.combinations(list(zip(one, other)), 2):
        first, second = (a > c) - (a < c), (b > d) - (b < d)
        agree += first * second > 0
        apart += first * second < 0
        ties_one += first == 0 and second != 0
        ties_other += second == 0 and first != 0
    ends = ((agree + apart + ties_one) * (agree + apart + ties_other)) ** 0.5
    return (agree - apart) / ends if ends else 0.0


def interval(one, other, draw):
    """A 95 % interval of Kendall's tau: 200 bootstrap draws of the networks."""
    found = []
    for _ in range(200):
        places = [draw.randrange(len(one)) for _ in one]
        found.append(kendall([one[place] for place in places], [other[place] for place in places]))
    found.sort()
    return found[5], found[194]


def read(path, key):
    with path.open() as file:
        return {row[key]: {name: float(value) for name, value in row.items() if name != key} for row in csv.DictReader(file)}


def best_by(texts, score):
    return max(texts, key=lambda text: (score(text), text))


def tables(out):
    draw = random.Random(0)
    everything = read(out / "all.csv", "arch")
    texts = list(everything)
    least = min(row["loss"] for row in everything.values())
    most = max(row["top1"] for row in everything.values())
    print(f"{len(texts)} sub-networks with shared weights: least loss {least:.4f}, highest top-1 {100 * most:.2f} %\n")
    print("| estimator | Kendall tau with the loss on all images (1,000 of them) | its best: loss more | top-1 less, points | CPU ms each |")
    print("|---|---|---|---|---|")
    some = draw.sample(texts, 1000)
    shared_ms = 1e3 * seconds_each(out / "shared.csv", len(texts))
    scores_ms = 1e3 * seconds_each(out / "scores.csv", len(texts))
    # both fidelities are evaluated by one program, and calibration is most of it
    rows = [("shared weights, a quarter of the images", lambda text: -everything[text]["loss_quarter"], shared_ms / 2)]
    for name in SCORES:
        free = name in ("params", "macs")
        rows.append((f"`{name}`", lambda text, name=name: everything[text][name], 0.0 if free else scores_ms))
    for name, score, price in rows:
        tau = kendall([score(text) for text in some], [-everything[text]["loss"] for text in some])
        best = everything[best_by(texts, score)]
        print(f"| {name} | {tau:.2f} | {best['loss'] - least:.4f} | {100 * (most - best['top1']):.2f} | {price:.1f} |")
    if not (out / "alone.csv").exists():
        return
    print("\n| of 64 trained alone | Kendall tau with the loss alone, 95 % | its best: loss more | CPU s each |")
    print("|---|---|---|---|")
    halves = [half(choice) for choice in HALVES]
    of = {key: read(out / f"{key}.csv", "arch") for key in
          ["alone-again", *(f"alone-{of}-{fidelity}" for of, fidelity in TRAINED)]}
    truth = {text: of["alone-steps-1.0"][text]["loss"] for text in halves}
    rows = [("the same again, another seed", lambda text: -of["alone-again"][text]["loss"], "alone-again")]
    for kind, fidelity in TRAINED[1:]:
        key = f"alone-{kind}-{fidelity}"
        rows.append((f"{fidelity:g} of the {kind}", lambda text, key=key: -of[key][text]["loss"], key))
    rows = [(name, score, seconds_each(out / f"{key}.csv", 64)) for name, score, key in rows]
    rows.append(("shared weights", lambda text: -everything[text]["loss"], shared_ms / 2e3))
    for name in SCORES:
        free = name in ("params", "macs")
        rows.append((f"`{name}`", lambda text, name=name: everything[text][name], 0.0 if free else scores_ms / 1e3))
    for name, score, price in rows:
        one, other = [score(text) for text in halves], [-truth[text] for text in halves]
        low, high = interval(one, other, draw)
        more = truth[best_by(halves, score)] - min(truth.values())
        print(f"| {name} | {kendall(one, other):.2f} ({low:.2f} to {high:.2f}) | {more:.4f} | {price:.3f} |")
    whole_price = seconds_each(out / "alone-steps-1.0.csv", 64)
    print(f"\nAlone: {whole_price:.2f} CPU s each; least loss {min(truth.values()):.4f}, highest {max(truth.values()):.4f}")


def predictor(out):
    """Predictors fitted to few sub-networks with shared weights: what a search with each finds, and what it visits."""
    everything = read(out / "all.csv", "arch")
    least = min(row["loss"] for row in everything.values())
    most = max(row["top1"] for row in everything.values())
    print("| predictor fitted to | model | strategy | predictions | proof | its best: loss more | top-1 less, points |")
    print("|---|---|---|---|---|---|---|")
    rows = out / "accuracy.jsonl"
    for count in (50, 200, 800):
        run = lambda tool, *words: subprocess.run([tool, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True).stdout
        run(SUPERNET, "sample", "--supernet", out / "run/supernet.safetensors", "--data", DATA, "--count", count, "--seed", 1,
            "--out", rows, "--quiet")
        estimator = out / f"estimator-{count}.safetensors"
        fitted = json.loads(run(EXTRACT, "fit", "--accuracy", rows, "--out", estimator, "--json", "--quiet"))
        for strategy in ("exact", "climbers", "gradient", "evolution"):
            found = json.loads(run(EXTRACT, "search", "--space", "tiny", "--estimator", estimator, "--strategy", strategy,
                                   "--evaluations", 20000, "--out", out / "found.json", "--json", "--quiet"))
            best = everything[found["best"]["arch"]]
            print(f"| {count} | {fitted.get('model', fitted.get('kind', ''))} | `{strategy}` | {found['candidates']} | "
                  f"{found['proof'] or ''} | {best['loss'] - least:.4f} | {100 * (most - best['top1']):.2f} |")


def studies(out):
    for name in ["tiny-shared", "tiny-alone"]:
        text = (HERE / f"{name}.toml").read_text()
        (out / f"{name}.toml").write_text(text)
        subprocess.run([EXTRACT, "study", out / f"{name}.toml", "--out", out / name], check=True)


def main():
    commands = {"all": whole, "alone": alone, "predictor": predictor, "tables": tables, "studies": studies}
    if len(sys.argv) != 3 or sys.argv[2] not in commands:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    commands[sys.argv[2]](out)


if __name__ == "__main__":
    main()
