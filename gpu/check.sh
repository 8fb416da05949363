#!/usr/bin/env bash
# Everything that wants a real GPU, in one go: `gpu/check.sh [FOLDER] [REPORT.md]`. FOLDER (default target/gpu) has
# once-for-all-cuda.tar.xz as gpu/build.sh leaves it; nothing is built here. Writes a page for docs/BENCHMARKS.md to REPORT
# (default gpu-report.md), shows it, and fails if something is wrong.
#
# Needs NVIDIA's driver and CUDA 13's libraries: those of PyTorch's packages do, and are found by Python. The comparison
# with PyTorch needs the packages torch and ofa; compute-sanitizer and ncu are used where they are. CUDA_DEVICE (default
# cuda:0) is the GPU. Some ten minutes.
set -uo pipefail
cd "$(dirname "$0")/.."
folder=$(cd "${1:-target/gpu}" && pwd) || exit 1
report=${2:-gpu-report.md}
device=${CUDA_DEVICE:-cuda:0}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

say() { printf '%s\n' "$*" | tee -a "$report"; }
# Runs a part of the check; what it prints goes into the report.
part() { local name=$1; shift; say "" "## $name" ""
    if ! "$@" >"$work/out" 2>"$work/err"; then failed=1; say "**failed**" "" '```'; tail -30 "$work/err" | tee -a "$report"; say '```'; fi
    tee -a "$report" <"$work/out"; }

: >"$report"
size=$(stat -c %s "$folder/once-for-all-cuda.tar.xz") || exit 1
tar -C "$work" -xf "$folder/once-for-all-cuda.tar.xz" || exit 1
export PATH="$work:$PATH"
packages=$(python3 -c 'import glob, site
for place in site.getsitepackages() + [site.getusersitepackages()]:
    print(":".join(sorted(glob.glob(place + "/nvidia/*/lib"))), end=":")' 2>/dev/null)
export LD_LIBRARY_PATH="$packages${LD_LIBRARY_PATH:-}"
say "# $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | head -1)" "" \
    "Programs built without a GPU, $((size / 1000000)) MB packed. $(nproc) CPU cores."

part "Layers and networks beside the CPU, and the kernels' bandwidth" gpu-check "$device"

losses() { python3 -c '
import json, sys
for line in open(sys.argv[1] + "/log.jsonl"):
    record = json.loads(line)
    if record.get("event") == "step":
        print(record["loss"])' "$1"; }
trainings() (
    set -e
    cd "$work"
    train="train --space tiny --data digits --scale 0.02 --seed 3 --quiet"
    supernet $train --out cpu >&2
    supernet $train --out gpu --device "$device" >&2
    supernet $train --out again --device "$device" >&2
    supernet $train --out bf16 --device "$device" --precision bf16 >&2
    # from one to the other and back, each stopped after a third of the steps
    steps=$(losses cpu | wc -l)
    for where in cpu "$device" cpu; do
        until=$(($(losses changing 2>/dev/null | wc -l) + steps / 3))
        supernet $train --out changing --resume --device "$where" >&2 & process=$!
        if [ "$where" = "$device" ] || [ ! -e turned ]; then
            while [ "$(losses changing 2>/dev/null | wc -l)" -lt "$until" ] && kill -0 $process 2>/dev/null; do sleep 0.01; done
            kill -INT $process 2>/dev/null || true
        fi
        [ "$where" = "$device" ] && touch turned
        wait $process || [ $? = 130 ]
    done
    echo "| run | steps | losses beside the CPU's, at most apart |"
    echo "|---|---|---|"
    for run in gpu changing bf16; do
        paste <(losses $run) <(losses cpu) | awk -v run=$run '
            NF != 2 { exit 1 }
            { apart = ($1 - $2) / $2; if (apart < 0) apart = -apart; if (apart > worst) worst = apart }
            END { printf "| %s | %d | %.1e |\n", run, NR, worst; exit !(worst <= (run == "bf16" ? .1 : .02)) }'
    done
    cmp gpu/supernet.safetensors again/supernet.safetensors && echo && echo "The same training twice: the same bytes."
)
part "Trainings" trainings

pipeline() (
    set -e
    cd "$work"
    extract export --supernet gpu/supernet.safetensors --arch smallest --data digits --out model --device "$device"
    extract verify model --supernet gpu/supernet.safetensors
    extract measure --space tiny --threads 1 --networks 16 --budget 60 --batch 32 --device "$device" --out table.json
)
part "Export and measuring" pipeline

sanitized() (
    set -e
    command -v compute-sanitizer >/dev/null || { echo "There is no compute-sanitizer here."; exit 0; }
    for tool in memcheck racecheck; do
        compute-sanitizer --tool $tool --error-exitcode 9 supernet bench --space ofa-mbv3-w1.0 --resolution 64 \
            --batch 8 --steps 1 --warmup 0 --device "$device" --precision bf16 >"$work/sanitizer" || { cat "$work/sanitizer" >&2; exit 1; }
        echo "$tool: $(tail -1 "$work/sanitizer")"
    done
)
part "compute-sanitizer" sanitized

part "Beside PyTorch" python3 gpu/compare.py --supernet "$work/supernet" --device "$device"

profiled() {
    supernet bench --space ofa-mbv3-w1.0 --resolution 224 --batch 128 --steps 5 --device "$device" --precision bf16 \
        --profile | sed 's/^/    /'
    command -v ncu >/dev/null || { echo "There is no ncu here."; return 0; }
    ncu --csv --kernel-name-base function --launch-skip 1200 --launch-count 600 \
        --metrics gpu__time_duration.sum,dram__bytes.sum.per_second,dram__throughput.avg.pct_of_peak_sustained_elapsed \
        supernet bench --space ofa-mbv3-w1.0 --resolution 224 --batch 64 --steps 2 --warmup 1 --device "$device" \
        >"$work/ncu.csv" || return 1
    python3 gpu/dearest.py "$work/ncu.csv"
}
part "Where a step's time goes, and what the dearest kernels move" profiled
[ $failed = 0 ] || echo "gpu/check.sh: something failed, see $report" >&2
exit $failed
