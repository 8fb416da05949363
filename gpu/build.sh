#!/usr/bin/env bash
# Builds supernet and extract with CUDA, on any Linux machine with an x86-64 processor: no GPU, no driver, no CUDA needed.
#
#   gpu/build.sh [FOLDER]      puts supernet, extract, gpu-check and once-for-all-cuda.tar.xz into FOLDER (default target/gpu)
#
# The programs start on machines without CUDA too: they load its libraries when a GPU is requested, and report what is
# missing. Needs cargo, a C++ compiler that nvcc takes (GCC up to 15) and, unless nvcc is on PATH, Python's pip and unzip,
# with which CUDA's compiler is fetched from PyPI, 200 MB. CUDA_COMPUTE_CAP is the oldest GPU to run on: 80 (Ampere) by
# default. Lints are errors here.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-target/gpu}" && cd "${1:-target/gpu}" && pwd)
export CUDA_COMPUTE_CAP="${CUDA_COMPUTE_CAP:-80}"
export CUDAFORGE_THREADS="${CUDAFORGE_THREADS:-$(nproc)}"

if ! command -v nvcc >/dev/null; then
    export CUDA_HOME="${CUDA_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/once-for-all/cuda-13.0}"
    if [ ! -e "$CUDA_HOME/.complete" ]; then
        echo "fetching CUDA's compiler into $CUDA_HOME" >&2
        wheels=$(mktemp -d)
        trap 'rm -rf "$wheels"' EXIT
        python3 -m pip download -q --no-deps --only-binary=:all: -d "$wheels" \
            nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 \
            nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
        for wheel in "$wheels"/*.whl; do unzip -qo "$wheel" -d "$wheels/all"; done
        mkdir -p "$CUDA_HOME"
        cp -a "$wheels/all/nvidia/cu13/." "$CUDA_HOME/"
        chmod +x "$CUDA_HOME"/bin/* "$CUDA_HOME"/nvvm/bin/*
        ln -sfn lib "$CUDA_HOME/lib64"
        touch "$CUDA_HOME/.complete"
    fi
    export PATH="$CUDA_HOME/bin:$PATH"
fi
cuda=$(dirname "$(dirname "$(command -v nvcc)")")
export CUDA_HOME="${CUDA_HOME:-$cuda}" NVCC="${NVCC:-$cuda/bin/nvcc}"

# The linker gets empty libraries in place of CUDA's, except for the runtime, which is linked statically.
libraries=$out/link
mkdir -p "$libraries"
for name in cuda cublas cublasLt curand nvrtc; do
    rm -f "$libraries/lib$name.a"
    ar rcs "$libraries/lib$name.a"
done
runtime=$(find -L "$cuda" -name libcudart_static.a | head -1)
[ -n "$runtime" ] || { echo "gpu/build.sh: no libcudart_static.a under $cuda" >&2; exit 1; }
ln -sfn "$runtime" "$libraries/libcudart.a"
# Calls are bound when they are first made, to the libraries that the program has loaded by then.
export RUSTFLAGS="${RUSTFLAGS:-} -L native=$libraries -C relro-level=partial -C link-arg=-Wl,-z,lazy \
-C link-arg=-Wl,--unresolved-symbols=ignore-all -C link-arg=-lrt -C link-arg=-ldl -C link-arg=-lpthread"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$out/build}"

cargo clippy --locked --release --workspace --all-targets --features cuda -- -D warnings
cargo build --locked --release --workspace --bins --features cuda
for program in supernet extract gpu-check; do
    cp "$CARGO_TARGET_DIR/release/$program" "$out/$program"
    strip "$out/$program"
    if readelf -d "$out/$program" | grep -E 'NEEDED.*(cuda|cublas|curand|nvrtc)'; then
        echo "gpu/build.sh: $program would not start without these" >&2
        exit 1
    fi
done
tar -C "$out" -cf - supernet extract gpu-check | xz -T0 -3 >"$out/once-for-all-cuda.tar.xz"
ls -l "$out"/{supernet,extract,gpu-check} "$out/once-for-all-cuda.tar.xz"
