#!/usr/bin/env bash
# Runs what board/build.sh built under qemu (apt-get install qemu-user-static): a plan there and rows back into a table.
# The times mean nothing there; that every layer and whole sub-networks run, that a kill is survived and that the table
# is whole does; some six minutes. Needs `extract`, built for this machine: EXTRACT=target/release/extract.
set -euo pipefail
cd "$(dirname "$0")/.."

extract=${EXTRACT:-target/release/extract}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
board() { qemu-aarch64-static target/board/measure "$@"; }

"$extract" measure --quiet --space fuzz/seeds/space/micro.toml --resolutions 8 --threads 1 --half-width 50 --networks 8 --plan-only "$work/plan.jsonl"
# a power cut in the middle, and a torn last line
timeout -s KILL 5 qemu-aarch64-static target/board/measure "$work/plan.jsonl" "$work/rows.jsonl" --quiet || true
printf '{"layer":"mbc' >> "$work/rows.jsonl"
before=$(wc -l < "$work/rows.jsonl")
board "$work/plan.jsonl" "$work/rows.jsonl" --device-name qemu --quiet 2>"$work/refused" && exit 1
grep -q 'on another machine or with other flags' "$work/refused"
board "$work/plan.jsonl" "$work/rows.jsonl"
[ "$(wc -l < "$work/rows.jsonl")" -ge "$before" ]
"$extract" measure --space fuzz/seeds/space/micro.toml --resolutions 8 --rows "$work/rows.jsonl" --out "$work/table.json"
"$extract" table "$work/table.json" --space fuzz/seeds/space/micro.toml --resolutions 8 | sed -n '1,4p'
echo "measured under qemu: $before rows before the power cut, $(wc -l < "$work/rows.jsonl") in all"
