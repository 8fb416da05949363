#!/usr/bin/env python3
"""The most expensive kernels of a step, from `ncu --csv --print-units base`: their time and the memory bandwidth they reached."""

import csv
import sys
from collections import defaultdict

TIME, RATE = "gpu__time_duration.sum", "dram__bytes.sum.per_second"
OF_PEAK = "dram__throughput.avg.pct_of_peak_sustained_elapsed"
# to milliseconds and GB/s, whatever a version calls the units
SCALE = {"nsecond": 1e-6, "ns": 1e-6, "usecond": 1e-3, "us": 1e-3, "msecond": 1.0, "ms": 1.0, "second": 1e3, "s": 1e3,
         "byte": 1e-9, "B": 1e-9, "Kbyte": 1e-6, "KB": 1e-6, "Mbyte": 1e-3, "MB": 1e-3, "Gbyte": 1.0, "GB": 1.0,
         "Tbyte": 1e3, "TB": 1e3, "%": 1.0}


def records(path):
    """Rows of the table that ncu prints, which other lines stand before and behind."""
    lines = [line for line in open(path, errors="replace").read().splitlines() if line.startswith('"')]
    start = next((at for at, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        sys.exit(f"{path}: no table of ncu's in it")
    return csv.DictReader(lines[start:])


def main():
    launches = defaultdict(dict)
    for row in records(sys.argv[1]):
        try:
            value = float(row["Metric Value"].replace(",", ""))
        except (KeyError, AttributeError, ValueError):
            continue  # a metric that was not to be had
        unit = (row["Metric Unit"] or "").split("/")[0]
        launches[row["ID"], row["Kernel Name"]][row["Metric Name"]] = value * SCALE.get(unit, 1.0)
    kernels = defaultdict(lambda: [0, 0.0, 0.0, 0.0])
    for (_, name), metrics in launches.items():
        if not {TIME, RATE, OF_PEAK} <= metrics.keys():
            continue
        ms, sums = metrics[TIME], kernels[name]
        sums[0] += 1
        sums[1] += ms
        # means by time
        sums[2] += ms * metrics[RATE]
        sums[3] += ms * metrics[OF_PEAK]
    if not kernels:
        sys.exit(f"{sys.argv[1]}: no kernel with all three metrics")
    print("| kernel | launches | ms | GB/s | of the memory's peak |\n|---|---|---|---|---|")
    for name, (count, ms, rate, of_peak) in sorted(kernels.items(), key=lambda item: -item[1][1])[:10]:
        print(f"| `{name}` | {count} | {ms:.2f} | {rate / ms:.0f} | {of_peak / ms:.0f} % |")


if __name__ == "__main__":
    main()
