#!/usr/bin/env bash
# Fuzzes every reader in turn: `fuzz/run.sh [SECONDS each, default 60]`. Needs a nightly toolchain and cargo-fuzz.
# Failing inputs are in fuzz/artifacts; after a fix, move them to fuzz/regressions/READER, which the tests read.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-60}
total=0
cargo +nightly fuzz build -s none --fuzz-dir .
for reader in $(cargo fuzz list --fuzz-dir .); do
    mkdir -p "corpus/$reader" artifacts
    log=$(cargo +nightly fuzz run -s none --fuzz-dir . "$reader" "corpus/$reader" "seeds/$reader" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 2>&1) \
        || { echo "$log" | tail -n 40; echo "fuzz: $reader failed" >&2; exit 1; }
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' <<<"$log")
    printf '%-12s %12d executions\n' "$reader" "$runs"
    total=$((total + runs))
done
printf '%-12s %12d executions, nothing found\n' all "$total"
