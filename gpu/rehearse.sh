#!/usr/bin/env bash
# Runs a CUDA build on a machine without a GPU, with the stand-in for NVIDIA's driver (gpu/standin), and compares it with
# the CPU: `gpu/rehearse.sh [FOLDER]`, FOLDER having supernet, extract and gpu-check as gpu/build.sh leaves them (default
# target/gpu). Trainings, resumes on the other device, evaluation, fine-tuning, export, measuring, and the errors without
# driver, GPU or memory. It tests everything between the command line and the hardware; gpu/standin/driver.cpp lists the
# limits.
set -euo pipefail
cd "$(dirname "$0")/.."
programs=$(cd "${1:-target/gpu}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
gpu/standin/build.sh "$work/driver" >&2
root=$PWD
cd "$work"

supernet() { LD_LIBRARY_PATH="$work/driver" "$programs/supernet" "$@"; }
extract() { LD_LIBRARY_PATH="$work/driver" "$programs/extract" "$@"; }
say() { printf '%s\n' "$*" >&2; }
close() { python3 "$root/gpu/losses.py" "$@"; }
# Fails unless the command fails and says the words.
refused() { local words=$1 said; shift
    if said=$("$@" 2>&1); then say "expected a refusal: $*"; exit 1; fi
    case $said in *"$words"*) say "refused: $said" ;; *) say "expected \"$words\", got: $said"; exit 1 ;; esac; }

train="train --space tiny --data digits --scale 0.002 --seed 3 --quiet"
say "layers and networks"
LD_LIBRARY_PATH="$work/driver" "$programs/gpu-check" cuda:0 tiny tiny-resnet >&2

say "training"
supernet $train --out cpu >/dev/null
STANDIN_REPORT=1 supernet $train --out gpu --device cuda:0 >/dev/null 2>report || { cat report >&2; exit 1; }
tail -20 report >&2
close gpu cpu --early 5e-3
supernet $train --out bf16 --device cuda:0 --precision bf16 >/dev/null
close bf16 cpu --early 0.05

say "stopped, and resumed elsewhere: CPU, GPU, CPU"
mkdir changing
train="train --space tiny --data digits --scale 0.02 --seed 3 --quiet"
supernet $train --out whole >/dev/null
steps=$(grep -c '"event":"step"' whole/log.jsonl)
# The number of steps in the log of the changing run.
taken() { cat changing/log.jsonl 2>/dev/null | grep -c '"event":"step"' || true; }
# Resumes the run and stops it some steps later; fails if it made no step or reached the end.
stopped() {
    local before after process
    before=$(taken)
    env LD_LIBRARY_PATH="$work/driver" "$programs/supernet" $train --out changing --resume "$@" >/dev/null & process=$!
    while [ "$(taken)" -lt $((before + 3)) ] && kill -0 $process 2>/dev/null; do sleep 0.002; done
    kill -TERM $process 2>/dev/null || true
    wait $process || [ $? = 130 ]
    after=$(taken)
    say "steps $before to $after"
    [ "$before" -lt "$after" ] && [ "$after" -lt "$steps" ] || { say "not stopped within the run"; exit 1; }
}
stopped
stopped --device cuda:0
supernet $train --out changing --resume >/dev/null
close changing whole --early inf --late 0.1

say "evaluation, sampling, fine-tuning, export, measuring"
weights=gpu/supernet.safetensors
for device in cpu cuda:0; do
    supernet eval --supernet $weights --data digits --arch largest smallest --device $device --quiet
    supernet sample --supernet $weights --data digits --count 3 --out rows-$device.jsonl --device $device --quiet >/dev/null
    cat "rows-$device.jsonl" >&2
done
extract export --supernet $weights --arch smallest --data digits --out model --device cuda:0 --format safetensors,onnx
extract verify model --supernet $weights --device cuda:0
extract verify model --supernet $weights
supernet finetune model --data digits --out tuned --epochs 1 --device cuda:0 --quiet >/dev/null
extract measure --space tiny --threads 1 --networks 0 --half-width 50 --batch 4 --device cuda:0 --precision bf16 --out table.json
supernet bench --space ofa-mbv3-w1.0 --resolution 32 --batch 2 --steps 2 --warmup 1 --device cuda:0
supernet bench --space ofa-mbv3-w1.0 --resolution 32 --batch 2 --steps 2 --warmup 1 --device cuda:0 --precision bf16
supernet bench --space ofa-mbv3-w1.0 --resolution 32 --batch 2 --steps 1 --warmup 1 --device cuda:0 --mode shrink
supernet bench --space ofa-mbv3-w1.0 --resolution 32 --batch 2 --steps 2 --warmup 1 --device cuda:0 --mode infer
supernet bench --space tiny --data digits --resolution 12 --batch 32 --steps 5 --device cuda:0

say "refusals"
refused "a number below the count of GPUs" supernet $train --out no --device cuda:7
refused "no CUDA-capable device" env STANDIN_DEVICES=0 LD_LIBRARY_PATH="$work/driver" "$programs/supernet" $train --out no --device cuda:0
refused "CUDA's driver" env -u LD_LIBRARY_PATH "$programs/supernet" $train --out no --device cuda:0
refused "smaller batch" env STANDIN_MEMORY=3000000 LD_LIBRARY_PATH="$work/driver" "$programs/supernet" $train --out no2 --device cuda:0
refused "f32 on \`cpu\`" supernet $train --out no --precision bf16
"$programs/supernet" space tiny >/dev/null
say "all is well"
