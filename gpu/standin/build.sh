#!/usr/bin/env bash
# Builds the stand-in for NVIDIA's driver libraries (see driver.cpp): `gpu/standin/build.sh FOLDER`. A CUDA build then
# runs without a GPU: `LD_LIBRARY_PATH=FOLDER:CUDA ./program`, where CUDA is the folder of NVIDIA's own libcudart, which
# needs no GPU to be loaded. Needs a C++ compiler and cudarc's sources (`cargo fetch`).
set -euo pipefail
[ $# = 1 ] || { echo "usage: build.sh FOLDER" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../../crates/kernels/src/cuda/source" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
cudarc=$(ls -d "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/cudarc-0.19.* 2>/dev/null | sort -V | tail -1 || true)
[ -n "$cudarc" ] || { echo "build.sh: no sources of cudarc 0.19; run 'cargo fetch'" >&2; exit 1; }
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

# library NAME VERSION, cudarc's module, prefix of its functions, status for what is not there, [source [library]]
#
# A program links all functions that cudarc declares, so all must be there: as weak symbols, which those of the source
# replace, and which say that they are not there when they are called.
library() {
    local missing="$made/$1.c" soname="lib$1.so.$2"
    {
        echo '#include <stdio.h>'
        echo 'static int missing(const char *name) {'
        echo "    fprintf(stderr, \"stand-in: %s is not there\\n\", name); return $5; }"
        grep -rhoE '\bfn [A-Za-z0-9_]+\(' "$cudarc/src/$3/sys" | sed 's/^fn //; s/($//' | sort -u | grep -E "^$4" |
            awk '{ type = "int"; result = "missing(\"" $1 "\")" }
                /Status(Name|String)$/ { type = "const char *"; result = "\"unknown\"" }
                { print "__attribute__((weak)) " type " " $1 "(void) { return " result "; }" }'
    } >"$missing"
    "${CC:-cc}" -O1 -fPIC -c "$missing" -o "$made/$1.o"
    "${CXX:-c++}" -std=c++17 -O3 -march=native -Wall -Wextra -fvisibility=hidden -fPIC -pthread -shared \
        -DSOURCE="\"$source\"" ${6:+"$here/$6"} "$made/$1.o" ${7:+"$out/$7"} -ldl \
        -Wl,-soname,"$soname" -Wl,-rpath,'$ORIGIN' -Wl,-z,defs -o "$out/$soname"
    ln -sf "$soname" "$out/lib$1.so"
}
library cuda 1 driver 'cu[A-Z]' 801 driver.cpp
library cublas 13 cublas cublas 15 blas.cpp libcuda.so.1
library cublasLt 13 cublaslt cublasLt 15
library curand 10 curand curand 999 random.cpp
library nvrtc 13 nvrtc nvrtc 11 nvrtc.cpp
