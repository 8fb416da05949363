"""Predicted minus measured accuracy of the best sub-networks of searches, on validation and on test images.

python3 examples/fashion/excess.py RUN [--old EXTRACT] [--rounds] searches RUN for five latency limits with four seeds, by
the predictor alone and with --supernet, evaluates the results on both splits, and prints one row per way of choosing.
RUN holds run/supernet.safetensors, accuracy.jsonl, estimator.safetensors and table.json (examples/fashion/run.sh makes
them). With --old the binary of an older release searches too, with estimator-old.safetensors, which it has fitted; with
--rounds three rounds are made too. SUPERNET, EXTRACT and DATA name binaries and images as in run.sh. Results
stay in RUN and are not searched again.
"""

import argparse
import json
import os
import subprocess

SUPERNET, EXTRACT = os.environ.get("SUPERNET", "supernet"), os.environ.get("EXTRACT", "extract")
DATA = os.environ.get("DATA", "idx:/usr/share/datasets/fashion-mnist")
TRAINED = "run/supernet.safetensors"
SHARES, SEEDS = (0.3, 0.4, 0.5, 0.6, 0.8), range(4)


def call(*words):
    done = subprocess.run([*words, "--json", "--quiet"], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def search(extract, estimator, limit, seed, more=()):
    out = f"excess-{os.path.basename(extract)}-{len(more)}-{limit:.1f}-{seed}.json"
    if not os.path.exists(out):
        call(extract, "search", "--space", "fashion", "--estimator", estimator, "--latency-table", "table.json",
             "--max-latency", f"{limit}us", "--seed", str(seed), "--out", out, *more)
    with open(out) as file:
        return flat(json.load(file)["best"])


def flat(best):
    """Its accuracy and the interval in fields of their own, as older versions of the file have them."""
    top1 = best.get("values", {}).get("top1")
    if top1 is None:
        return best
    ends = {f"accuracy_{end}": top1[end] for end in ("low", "high") if end in top1}
    return {"arch": best["arch"], "accuracy": top1["mean"], **ends}


def counted(archs, split):
    """Top-1 of each; those that were counted before are looked up."""
    path = f"excess-{split}.json"
    known = json.load(open(path)) if os.path.exists(path) else {}
    missing = sorted(set(archs) - set(known))
    if missing:
        results = call(SUPERNET, "eval", "--supernet", TRAINED, "--data", DATA, "--split", split, "--arch", *missing)
        known.update({result["arch"]: result["top1"] for result in results["results"]})
        with open(path, "w") as file:
            json.dump(known, file)
    return known


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--old")
    parser.add_argument("--rounds", action="store_true")
    arguments = parser.parse_args()
    os.chdir(arguments.run)
    largest = call(EXTRACT, "search", "--space", "fashion", "--estimator", "estimator.safetensors",
                   "--latency-table", "table.json", "--out", "excess-free.json")["best"]["latency_upper_ms"]
    ways = [("predictor alone", EXTRACT, "estimator.safetensors", ()),
            ("20 best evaluated", EXTRACT, "estimator.safetensors", ("--supernet", TRAINED, "--data", DATA))]
    if arguments.rounds:
        more = ("--rounds", "3", "--accuracy", "accuracy.jsonl")
        ways.append(("three rounds of 20", EXTRACT, "estimator.safetensors", (*ways[-1][3], *more)))
    if arguments.old:
        ways.insert(0, ("before", arguments.old, "estimator-old.safetensors", ()))
    found = {}
    for name, extract, estimator, more in ways:
        found[name] = [search(extract, estimator, 1e3 * share * largest, seed, more) for share in SHARES for seed in SEEDS]
    archs = [best["arch"] for bests in found.values() for best in bests]
    val, test = counted(archs, "val"), counted(archs, "test")
    print("| chosen by | expected | val | test | expected - val | most | expected - test | most | test within the interval |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, bests in found.items():
        mean = lambda values: sum(values) / len(bests)
        expected = mean([best["accuracy"] for best in bests])
        over = [[100 * (best["accuracy"] - split[best["arch"]]) for best in bests] for split in (val, test)]
        inside = [best["accuracy_low"] <= test[best["arch"]] <= best["accuracy_high"] for best in bests if "accuracy_low" in best]
        shares = [f"{100 * share:.2f} %" for share in (expected, mean([val[b["arch"]] for b in bests]), mean([test[b["arch"]] for b in bests]))]
        excess = [f"{figure:+.2f}" for values in over for figure in (mean(values), max(values))]
        interval = f"{sum(inside)} of {len(inside)}" if inside else "none given"
        print("| " + " | ".join([name, *shares, *excess, interval]) + " |")


main()
