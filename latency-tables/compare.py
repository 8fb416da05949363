"""Compares two tables of one machine, row by row: `python3 compare.py A.json B.json`. Needs nothing but Python."""

import json
import sys
from statistics import median

first, second = (json.load(open(path))["rows"] for path in sys.argv[1:3])
common = sorted(first.keys() & second.keys())
ratios = sorted(second[key]["median_us"] / first[key]["median_us"] for key in common)
quantile = lambda share: ratios[round(share * (len(ratios) - 1))]
overlap = lambda a, b: a["low_us"] <= b["high_us"] and b["low_us"] <= a["high_us"]
apart = [key for key in common if not overlap(first[key], second[key])]
marked = [key for key in apart if not (first[key]["converged"] and second[key]["converged"])]
discarded = [sum(row["discarded"] for row in rows.values()) for rows in (first, second)]
samples = [sum(row["samples"] for row in rows.values()) for rows in (first, second)]
print(f"{len(common)} rows; second / first: median {median(ratios):.4f}, 5 % {quantile(0.05):.3f}, 95 % {quantile(0.95):.3f}, "
      f"all {ratios[0]:.3f} to {ratios[-1]:.3f}")
print(f"95 % intervals overlap in {len(common) - len(apart)}; of the other {len(apart)}, {len(marked)} are marked unconverged")
print(f"samples that count {samples}, discarded {discarded}")
for key in apart:
    a, b = first[key], second[key]
    print(f"  {key}: {a['median_us']:.2f} [{a['low_us']:.2f}, {a['high_us']:.2f}] and "
          f"{b['median_us']:.2f} [{b['low_us']:.2f}, {b['high_us']:.2f}]")
