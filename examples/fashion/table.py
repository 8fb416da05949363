"""Prints the table of a run of run.sh as Markdown: `python3 table.py FOLDER`. Needs nothing but Python."""

import json
import sys
from pathlib import Path

folder = Path(sys.argv[1])
read = lambda name: json.loads((folder / name).read_text())
share = lambda row: f"{100 * row['top1']:.2f} [{100 * row['interval'][0]:.2f}, {100 * row['interval'][1]:.2f}]"

alone = {row["arch"]: row for name in ("small.json", "middle.json") for row in read(name)["results"]}
costs = {row["arch"]: row for row in read("costs.json")["archs"]}
print("| sub-network | MMACs | parameters | test top-1 [95 %] | trained alone |\n|---|---|---|---|---|")
results = sorted(read("test.json")["results"], key=lambda row: costs[row["arch"]]["macs"])
for row in results:
    arch, cost = row["arch"], costs[row["arch"]]
    # a network by itself bears the same text: choices that are the only ones are written all the same
    own = share(alone[arch]) if arch in alone else ""
    print(f"| `{arch}` | {cost['macs'] / 1e6:.2f} | {cost['params']:,} | {share(row)} | {own} |")
fit = read("fit.json")
low, high = fit["kendall_interval"]
print(f"\nEstimator ({fit['model']}, {fit['n']} rows, {fit['folds']} folds): Kendall {fit['kendall']:.3f} "
      f"[{low:.3f}, {high:.3f}], Spearman {fit['spearman']:.3f}, RMSE {100 * fit['rmse']:.3f} %")
