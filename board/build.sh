#!/usr/bin/env bash
# Builds `measure`, the program for a small device, as one static file for 64-bit ARM Linux (Raspberry Pi 3 and newer,
# most boards): target/board/measure. Needs a cross compiler for C and the target's standard library:
#   apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross && rustup target add aarch64-unknown-linux-gnu
# With another toolchain set RUSTC; on the board itself `cargo build --release -p extract --bin measure
# --no-default-features` does without all this.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
rustc=${RUSTC:-rustc}
if [ ! -d "$("$rustc" --print target-libdir --target "$target" 2>/dev/null)" ]; then
    rustup target add "$target"
fi
export CC_aarch64_unknown_linux_gnu=${CC_aarch64_unknown_linux_gnu:-aarch64-linux-gnu-gcc}
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER:-aarch64-linux-gnu-gcc}
command -v "$CC_aarch64_unknown_linux_gnu" >/dev/null ||
    { echo "error: no $CC_aarch64_unknown_linux_gnu; apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross" >&2; exit 1; }

# a folder of its own: another compiler's files must not mix with the main build's
RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols" cargo build --locked --release -p extract \
    --no-default-features --bin measure --target "$target" --target-dir target/board
cp "target/board/$target/release/measure" target/board/measure
ls -l target/board/measure
