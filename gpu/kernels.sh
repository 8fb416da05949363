#!/usr/bin/env bash
# Compiles every CUDA kernel for real GPUs, without one: `gpu/kernels.sh [ARCH ...]`, default sm_80 sm_90. Prints the
# registers and shared memory of each, and fails on a compiler error or on spills over 80 bytes. Needs CUDA's nvcc, from 12.0 on, on PATH (PyPI's nvidia-cuda-nvcc, nvidia-nvvm,
# nvidia-cuda-crt, nvidia-cuda-runtime and nvidia-cuda-cccl are enough).
set -euo pipefail
cd "$(dirname "$0")/../crates/kernels/src/cuda/source"

command -v nvcc >/dev/null || { echo "gpu/kernels.sh: no nvcc on PATH" >&2; exit 1; }
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
failed=0
printf '| kernel | GPU, storage | registers | shared bytes | spilled bytes |\n|---|---|---|---|---|\n'
for arch in "${@:-sm_80 sm_90}"; do
    for gpu in $arch; do
        for storage in f32 bf16; do
            define=$([ "$storage" = bf16 ] && echo -DBF16 || echo -DF32)
            for source in *.cu; do
                # the macro exports a kernel for the host; here there is nothing to export
                nvcc -arch="$gpu" -std=c++17 '-DEXPORT(kernel)=' "$define" -cubin -Xptxas -v "$source" \
                    -o "$out/cubin" 2>"$out/log" || { cat "$out/log" >&2; exit 1; }
                awk -v where="$gpu, $storage" '
                    /Compiling entry function/ { split($0, quoted, "\x27"); name = quoted[2] }
                    /bytes spill stores/ { for (i = 2; i <= NF; i++) if ($i == "bytes" && $(i + 2) ~ /^stores/) spill = $(i - 1) }
                    /Used [0-9]+ registers/ {
                        shared = 0
                        for (i = 2; i <= NF; i++) {
                            if ($i ~ /^registers/) registers = $(i - 1)
                            if ($i ~ /^smem/) shared = $(i - 2)
                        }
                        printf "| `%s` | %s | %d | %d | %d |\n", name, where, registers, shared, spill
                        if (spill > 80) { bad = 1 }
                    }
                    END { exit bad }' "$out/log" || failed=1
            done
        done
    done
done
[ $failed = 0 ] || { echo "gpu/kernels.sh: a kernel spills its registers" >&2; exit 1; }
