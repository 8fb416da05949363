#!/usr/bin/env bash
# All checks that need a real GPU: `gpu/check.sh [FOLDER] [REPORT.md]`. FOLDER (default target/gpu) has
# once-for-all-cuda.tar.xz as gpu/build.sh leaves it; nothing is built here. Writes a page for docs/BENCHMARKS.md to REPORT
# (default gpu-report.md) as it goes, shows it, and fails if something is wrong.
#
# Needs NVIDIA's driver and CUDA 13's libraries: PyTorch's packages have them (and PyPI's nvidia-curand), and are found by
# Python. The comparison needs PyTorch; compute-sanitizer and ncu are used where they are. CUDA_DEVICE (default cuda:0) is
# the GPU; no setting of it is touched. PARTS="trainings pipeline" runs only these of the parts: layers, trainings,
# pipeline, sanitizer, profile (about eight minutes together), peer (begins nothing after PEER_SECONDS, 420 by default;
# CASES and PRECISIONS choose its rows, ROUNDS, 2 by default, are taken of each).
set -uo pipefail
cd "$(dirname "$0")/.."
folder=$(cd "${1:-target/gpu}" && pwd) || exit 1
report=$(realpath -m "${2:-gpu-report.md}")
device=${CUDA_DEVICE:-cuda:0}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
root=$PWD

say() { printf '%s\n' "$@" | tee -a "$report"; }
# Runs a part of the check; what it prints goes into the report.
part() {
    local short=$1 name=$2 status
    shift 2
    case " ${PARTS:-$short} " in *" $short "*) ;; *) return 0 ;; esac
    say "" "## $name" ""
    # not within a condition, where bash would not end a function at its first failure
    "$@" 2> >(tee "$work/err" >&2) | tee -a "$report"
    status=${PIPESTATUS[0]}
    [ "$status" = 0 ] && return
    failed=1
    say "" "**failed** (exit code $status)" "" '```' "$(tail -30 "$work/err")" '```'
}

: >"$report"
archive=$folder/once-for-all-cuda.tar.xz
size=$(stat -c %s "$archive") || exit 1
[ "$size" -lt 60000000 ] || { echo "gpu/check.sh: $archive is larger than 60 MB" >&2; exit 1; }
# not every box has xz; Python does
tar -C "$work" -xf "$archive" 2>/dev/null ||
    python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$archive" "$work" || exit 1
for place in "$work" /usr/local/cuda/bin /opt/nvidia/nsight-compute/*; do PATH=$PATH:$place; done
export PATH="$work:$PATH" LC_ALL=C
# of Python's packages only what our programs load: a profiler brings libraries of the same names as others there
mkdir "$work/cuda"
python3 - "$work/cuda" <<'E'
import glob, os, site, sys
wanted = ("libcublas.so", "libcublasLt.so", "libcurand.so", "libnvrtc.so", "libnvrtc-builtins.so")
for place in site.getsitepackages() + [site.getusersitepackages()]:
    for path in sorted(glob.glob(place + "/nvidia/*/lib/*.so*")):
        link = os.path.join(sys.argv[1], os.path.basename(path))
        if os.path.basename(path).startswith(wanted) and not os.path.exists(link):
            os.symlink(path, link)
E
export LD_LIBRARY_PATH="$work/cuda${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -1)
say "# ${gpu:-$device}" "" "Programs built without a GPU, $((size / 1000000)) MB packed. $(nproc) CPU cores."

part layers "Layers and networks compared with the CPU, and the bandwidth of kernels" gpu-check "$device"

# The number of steps in the log of a run.
taken() { cat "$1/log.jsonl" 2>/dev/null | grep -c '"event":"step"' || true; }
losses() { python3 "$root/gpu/losses.py" "$@" --markdown; }
trainings() (
    set -e
    cd "$work"
    short="train --space tiny --data digits --scale 0.002 --seed 3 --quiet"
    train="train --space tiny --data digits --scale 0.02 --seed 3 --quiet"
    supernet $short --out cpu-short >&2
    supernet $train --out cpu >&2
    for precision in f32 tf32 bf16; do
        supernet $short --out "$precision-short" --device "$device" --precision $precision >&2
        supernet $train --out $precision --device "$device" --precision $precision >&2
    done
    supernet $train --out again --device "$device" >&2
    # CPU, GPU, CPU: each is stopped after a third of the steps
    steps=$(taken cpu)
    for where in cpu "$device" cpu; do
        before=$(taken changing)
        supernet $train --out changing --resume --device "$where" >&2 & process=$!
        if [ $before -lt $((steps * 2 / 3)) ]; then
            while [ "$(taken changing)" -lt $((before + steps / 3)) ] && kill -0 $process 2>/dev/null; do sleep 0.005; done
            kill -TERM $process 2>/dev/null || true
        fi
        wait $process || [ $? = 130 ]
        echo "steps $before to $(taken changing) on $where" >&2
        [ $before -lt "$(taken changing)" ]
        [ "$where" != "$device" ] || [ "$(taken changing)" -lt "$steps" ]
    done
    # two CPUs part as far as this in the long run: roundings at the corners of activations grow (docs/BENCHMARKS.md)
    echo "| run | steps | largest difference of the first 20 losses from the CPU's | means of the last quarter |"
    echo "|---|---|---|---|"
    losses f32-short cpu-short --early 5e-3
    losses tf32-short cpu-short --early 5e-2
    losses bf16-short cpu-short --early 5e-2
    losses f32 cpu --early inf --late 0.1
    losses tf32 cpu --early inf --late 0.1
    losses bf16 cpu --early inf --late 0.1
    losses changing cpu --early 1e-6 --late 0.1
    cmp f32/supernet.safetensors again/supernet.safetensors
    echo
    echo "The same training twice on the GPU: the same bytes."
)
part trainings "Trainings" trainings

pipeline() (
    set -e
    cd "$work"
    [ -e f32/supernet.safetensors ] ||
        supernet train --space tiny --data digits --scale 0.02 --seed 3 --quiet --out f32 --device "$device" >&2
    extract export --supernet f32/supernet.safetensors --arch smallest --data digits --out model --device "$device"
    extract verify model --supernet f32/supernet.safetensors
    extract verify model --supernet f32/supernet.safetensors --device "$device"
    extract measure --space tiny --threads 1 --networks 16 --budget 120 --batch 32 --device "$device" --out table.json
)
part pipeline "Export and measuring" pipeline

sanitized() (
    set -e
    command -v compute-sanitizer >/dev/null || { echo "There is no compute-sanitizer here."; exit 0; }
    bench="supernet bench --space ofa-mbv3-w1.0 --batch 8 --steps 1 --warmup 0 --device $device"
    check() {
        local tool=$1 more=$2
        # NVIDIA's own matrix products are not checked, nor the failed attempts of its loader
        compute-sanitizer --tool "$tool" --report-api-errors no --kernel-name-exclude kernel_substring=gemm \
            --kernel-name-exclude kernel_substring=nvjet --kernel-name-exclude kernel_substring=cutlass \
            --error-exitcode 9 $bench $more >"$work/sanitizer" 2>&1 || { tail -40 "$work/sanitizer" >&2; exit 1; }
        # the program must have run under the tool
        grep -q 'ms per step' "$work/sanitizer" || { tail -40 "$work/sanitizer" >&2; exit 1; }
        echo "- $tool, $more: $(grep -E 'SUMMARY' "$work/sanitizer" | tail -1 | sed 's/^=* *//')"
    }
    for tool in memcheck racecheck synccheck; do check $tool "--resolution 64 --precision bf16"; done
    for tool in memcheck racecheck; do check $tool "--resolution 64 --mode shrink"; done
    check memcheck "--resolution 224"
    check memcheck "--resolution 64 --mode infer"
)
part sanitizer "compute-sanitizer" sanitized

profiled() (
    set -e
    for precision in bf16 f32; do
        echo "A step of the largest at 224 pixels and batch 128, $precision:"
        echo
        supernet bench --space ofa-mbv3-w1.0 --resolution 224 --batch 128 --steps 5 --device "$device" \
            --precision $precision --profile | sed 's/^/    /'
        echo
    done
    command -v ncu >/dev/null || { echo "There is no ncu here."; exit 0; }
    for precision in bf16 f32; do
        # one step, cold; clocks stay as they are
        ncu --csv --print-units base --log-file "$work/ncu.csv" --clock-control none --kernel-name-base function \
            --metrics gpu__time_duration.sum,dram__bytes.sum.per_second,dram__throughput.avg.pct_of_peak_sustained_elapsed \
            supernet bench --space ofa-mbv3-w1.0 --resolution 224 --batch 64 --steps 1 --warmup 0 --device "$device" \
            --precision $precision >&2 || { grep -a '^==' "$work/ncu.csv" >&2; exit 1; }
        echo "The most expensive kernels of a step at batch 64 by ncu, $precision:"
        echo
        python3 "$root/gpu/dearest.py" "$work/ncu.csv"
        echo
    done
)
part profile "Where a step's time goes, and the bandwidth of the most expensive kernels" profiled

part peer "Comparison with PyTorch" python3 gpu/compare.py --supernet "$work/supernet" --device "$device" --rounds "${ROUNDS:-2}" \
    --budget "${PEER_SECONDS:-420}" ${CASES:+--cases $CASES} ${PRECISIONS:+--precisions $PRECISIONS}
[ $failed = 0 ] || echo "gpu/check.sh: something failed, see $report" >&2
exit $failed
