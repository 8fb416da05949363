#!/usr/bin/env python3
"""Compares the losses of two runs of one training, computed in different places.

    python gpu/losses.py RUN REFERENCE [--early 1e-3] [--late 0.05] [--markdown]

Roundings grow from step to step, so that two runs part in the end. Of the first 20 steps none may be further apart than
--early; of the rest only the means over the last quarter are compared, with --late.
"""

import argparse
import json
import sys
from pathlib import Path

EARLY_STEPS = 20


def losses(run):
    lines = (Path(run) / "log.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [record["loss"] for record in records if record.get("event") == "step"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("reference")
    parser.add_argument("--early", type=float, default=1e-3)
    parser.add_argument("--late", type=float, default=0.05)
    parser.add_argument("--markdown", action="store_true", help="print a row of a table")
    given = parser.parse_args()
    got, expected = losses(given.run), losses(given.reference)
    if not got or len(got) != len(expected):
        sys.exit(f"{given.run}: {len(got)} steps, {len(expected)} in {given.reference}")
    early = max(abs(a - b) / b for a, b in zip(got[:EARLY_STEPS], expected[:EARLY_STEPS]))
    last = max(len(got) // 4, 1)
    late = abs(sum(got[-last:]) / sum(expected[-last:]) - 1)
    steps = min(EARLY_STEPS, len(got))
    if given.markdown:
        print(f"| {Path(given.run).name} | {len(got)} | {early:.1e} | {late:.1e} |")
    else:
        print(f"{given.run} and {given.reference}: {len(got)} steps, the first {steps} at most {early:.1e} apart, "
              f"means of the last {last} {late:.1e}", file=sys.stderr)
    # so that no number is too far
    if not (early <= given.early and late <= given.late):
        sys.exit(f"{given.run} and {given.reference} are too far apart")


if __name__ == "__main__":
    main()
