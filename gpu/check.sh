#!/usr/bin/env bash
# Everything that wants a real GPU, in one go: `gpu/check.sh [FOLDER] [REPORT.md]`. FOLDER (default target/gpu) has
# once-for-all-cuda.tar.xz as gpu/build.sh leaves it; nothing is built here. Writes a page for docs/BENCHMARKS.md to REPORT
# (default gpu-report.md), shows it, and fails if something is wrong.
#
# Needs NVIDIA's driver and CUDA 13's libraries: those of PyTorch's packages do, and are found by Python. The comparison
# with PyTorch needs the packages torch and ofa; compute-sanitizer and ncu are used where they are. CUDA_DEVICE (default
# cuda:0) is the GPU. PARTS="trainings pipeline" runs only these of the parts (layers, trainings, pipeline, sanitizer, peer,
# profile): all of them take over half an hour, most of it beside PyTorch; ROUNDS (default 2) are the rounds there.
set -uo pipefail
cd "$(dirname "$0")/.."
folder=$(cd "${1:-target/gpu}" && pwd) || exit 1
report=${2:-gpu-report.md}
device=${CUDA_DEVICE:-cuda:0}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
root=$PWD

say() { printf '%s\n' "$*" | tee -a "$report"; }
# Runs a part of the check; what it prints goes into the report.
part() { local short=$1 name=$2; shift 2
    case " ${PARTS:-$short} " in *" $short "*) ;; *) return ;; esac
    say "" "## $name" ""
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

part layers "Layers and networks beside the CPU, and the kernels' bandwidth" gpu-check "$device"

trainings() (
    set -e
    cd "$work"
    train="train --space tiny --data digits --scale 0.02 --seed 3 --quiet"
    supernet $train --out cpu >&2
    supernet $train --out gpu --device "$device" >&2
    supernet $train --out again --device "$device" >&2
    supernet $train --out bf16 --device "$device" --precision bf16 >&2
    # from one to the other and back, each stopped after a third of the steps
    taken() { cat "$1/log.jsonl" 2>/dev/null | grep -c '"event":"step"' || true; }
    steps=$(taken cpu)
    for where in cpu "$device" cpu; do
        until=$(($(taken changing) + steps / 3))
        supernet $train --out changing --resume --device "$where" >&2 & process=$!
        if [ "$where" = "$device" ] || [ ! -e turned ]; then
            while [ "$(taken changing)" -lt "$until" ] && kill -0 $process 2>/dev/null; do sleep 0.01; done
            kill -TERM $process 2>/dev/null || true
        fi
        [ "$where" = "$device" ] && touch turned
        wait $process || [ $? = 130 ]
    done
    echo "| run | steps | first 20 losses beside the CPU's, at most apart | means of the last quarter |"
    echo "|---|---|---|---|"
    python3 "$root/gpu/losses.py" gpu cpu --markdown
    python3 "$root/gpu/losses.py" changing cpu --markdown
    python3 "$root/gpu/losses.py" bf16 cpu --early 0.05 --markdown
    cmp gpu/supernet.safetensors again/supernet.safetensors && echo && echo "The same training twice: the same bytes."
)
part trainings "Trainings" trainings

pipeline() (
    set -e
    cd "$work"
    extract export --supernet gpu/supernet.safetensors --arch smallest --data digits --out model --device "$device"
    extract verify model --supernet gpu/supernet.safetensors
    extract measure --space tiny --threads 1 --networks 16 --budget 60 --batch 32 --device "$device" --out table.json
)
part pipeline "Export and measuring" pipeline

sanitized() (
    set -e
    command -v compute-sanitizer >/dev/null || { echo "There is no compute-sanitizer here."; exit 0; }
    for tool in memcheck racecheck; do
        compute-sanitizer --tool $tool --error-exitcode 9 supernet bench --space ofa-mbv3-w1.0 --resolution 64 \
            --batch 8 --steps 1 --warmup 0 --device "$device" --precision bf16 >"$work/sanitizer" || { cat "$work/sanitizer" >&2; exit 1; }
        echo "$tool: $(tail -1 "$work/sanitizer")"
    done
)
part sanitizer "compute-sanitizer" sanitized

part peer "Beside PyTorch" python3 gpu/compare.py --supernet "$work/supernet" --device "$device" --rounds "${ROUNDS:-2}"

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
part profile "Where a step's time goes, and what the dearest kernels move" profiled
[ $failed = 0 ] || echo "gpu/check.sh: something failed, see $report" >&2
exit $failed
