#!/usr/bin/env python3
"""The dearest kernels of a step, from `ncu --csv`'s output: their time and the memory bandwidth that they reached."""

import csv
import sys
from collections import defaultdict


def records(path):
    """Rows of the table that ncu prints after the program's own output."""
    lines = open(path).read().splitlines()
    start = next((at for at, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        sys.exit(f"{path}: no table of ncu's in it")
    return csv.DictReader(lines[start:])


SCALE = {"nsecond": 1e-6, "ns": 1e-6, "usecond": 1e-3, "us": 1e-3, "msecond": 1.0, "ms": 1.0, "second": 1e3, "s": 1e3}
RATE = {"byte/second": 1e-9, "Kbyte/second": 1e-6, "Mbyte/second": 1e-3, "Gbyte/second": 1.0, "Tbyte/second": 1e3,
        "byte/s": 1e-9, "Kbyte/s": 1e-6, "Mbyte/s": 1e-3, "Gbyte/s": 1.0, "Tbyte/s": 1e3}


def main():
    launches = defaultdict(dict)
    for row in records(sys.argv[1]):
        value = float(row["Metric Value"].replace(",", ""))
        launches[row["ID"], row["Kernel Name"]][row["Metric Name"]] = (value, row["Metric Unit"])
    kernels = defaultdict(lambda: [0, 0.0, 0.0, 0.0])
    for (_, name), metrics in launches.items():
        time, unit = metrics["gpu__time_duration.sum"]
        ms = time * SCALE[unit]
        rate, unit = metrics["dram__bytes.sum.per_second"]
        of_peak = metrics["dram__throughput.avg.pct_of_peak_sustained_elapsed"][0]
        sums = kernels[name]
        sums[0] += 1
        sums[1] += ms
        # means by time
        sums[2] += ms * rate * RATE[unit]
        sums[3] += ms * of_peak
    print("| kernel | launches | ms | GB/s | of the memory's peak |\n|---|---|---|---|---|")
    for name, (count, ms, rate, of_peak) in sorted(kernels.items(), key=lambda item: -item[1][1])[:8]:
        print(f"| `{name}` | {count} | {ms:.2f} | {rate / ms:.0f} | {of_peak / ms:.0f} % |")


if __name__ == "__main__":
    main()
