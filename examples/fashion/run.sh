#!/usr/bin/env bash
# Fashion-MNIST from the images to the table in docs/BENCHMARKS.md: trains a supernet, evaluates twenty sub-networks
# stratified by MACs on the test images, trains two of them alone, and judges the accuracy estimator on the twenty.
#
# Usage: examples/fashion/run.sh OUT [SCALE]
#
# OUT      a folder for everything; start it again to resume an interrupted run
# SCALE    of the recipe's epochs, default 0.25: about an hour and a half on two cores, all in all
#
# DATA names the images (default: idx:/usr/share/datasets/fashion-mnist, Debian's package dataset-fashion-mnist);
# SUPERNET and EXTRACT name the binaries if they are not on PATH.
set -euo pipefail

supernet=${SUPERNET:-supernet} extract=${EXTRACT:-extract}
data=${DATA:-idx:/usr/share/datasets/fashion-mnist}
[ $# -ge 1 ] || { echo "usage: $0 OUT [SCALE]" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
scale=${2:-0.25}

# The two that are trained alone too: the smallest at the largest resolution, and one of the middle.
small=r28:k3e3,k3e3/k3e3,k3e3
middle=r28:k5e4,k5e4,k5e4/k5e4,k5e4,k5e4

"$supernet" train --space fashion --data "$data" --out run --recipe progressive --scale "$scale" --resume
"$supernet" sample --supernet run/supernet.safetensors --data "$data" --count 400 --seed 1 --out accuracy.jsonl
"$extract" fit --accuracy accuracy.jsonl --out estimator.safetensors --json >fit.json

# Both ends, the two, and of 400 other random ones the sixteen in the middle of sixteen equal shares by MACs.
others=$(seq 1001 1400 | sed 's/^/random:/')
# shellcheck disable=SC2086
"$supernet" space fashion --arch $others | sort -n | awk 'NR % 25 == 13 { print $4 }' >archs
printf '%s\n' largest smallest $small $middle >>archs
mapfile -t archs <archs
"$supernet" eval --supernet run/supernet.safetensors --data "$data" --split test --arch "${archs[@]}" --json >test.json
"$supernet" space fashion --arch "${archs[@]}" --json >costs.json

# The recipe's first phase has 180 epochs; a ninth of them are 20.
alone() { # NAME ARCH
    "$supernet" train --space fashion --arch "$2" --data "$data" --out "$1" --recipe progressive --scale 0.1111111 --resume
    "$supernet" eval --supernet "$1/supernet.safetensors" --data "$data" --split test --arch largest --json >"$1.json"
}
alone small $small
alone middle $middle

"$extract" measure --space fashion --threads 1 --out table.json
"$extract" plot --accuracy accuracy.jsonl --latency-table table.json --out accuracy.svg
python3 "$here/table.py" .
