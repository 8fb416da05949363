#!/usr/bin/env bash
# Exports one verified folder per device from one trained supernet.
#
# Usage: examples/pipeline.sh SUPERNET DATA ESTIMATOR SPACE OUT TABLE.json@LIMIT...
#
#   SUPERNET      the trained weights, such as run/supernet.safetensors
#   DATA          images to calibrate with: digits, idx:FOLDER or folder:FOLDER
#   ESTIMATOR     estimator from `extract fit`
#   SPACE         preset name or TOML file
#   OUT           where the folders appear, each named after its table
#   TABLE@LIMIT   a device: its table from `extract measure`, and its latency limit
#
# Example: examples/pipeline.sh run/supernet.safetensors digits estimator.safetensors tiny ship \
#              phone.json@80us watch.json@2ms
#
# makes ship/phone and ship/watch: model.safetensors, config.json and SHA256SUMS, each folder compared bit for bit with
# the supernet. It may be run again: an existing folder is verified and left as it is; a broken one, or
# one with another sub-network than the search finds now, is an error. A device whose limit no sub-network keeps is left out.
#
# Exit codes are those of `extract`: 0 done, 1 failed, 2 wrong usage, 3 a device was left out and all others are
# there, 4 verification failed, 130 interrupted. EXTRACT names the binary if it is not on PATH.
set -euo pipefail

extract=${EXTRACT:-extract}

say() { echo "pipeline: $*" >&2; }
stop() { say "${@:2}"; exit "$1"; } # CODE WORD...

# Prints the text under a key of the JSON document on stdin, or nothing. Plain sed, as a build machine may have
# neither jq nor Python. Documents of `extract` are one line without spaces between tokens, and a quote within a string
# is escaped, so that `"key":"` is a key, never part of a message or a path.
text_of() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; } # KEY

# A folder is whole if it is the supernet's sub-network, and its files are those that were summed.
check() { # FOLDER
    "$extract" verify "$1" --supernet "$supernet" --data "$data" --quiet >/dev/null \
        || stop $? "$1 does not verify; move it away to export again"
    (cd "$1" && sha256sum -c SHA256SUMS) >&2 || stop 4 "$1 is not what SHA256SUMS says; move it away to export again"
}

# Exports the found sub-network as OUT/DEVICE. The folder is renamed when it is complete, so that a killed run leaves
# nothing that a later run takes for finished.
ship() { # DEVICE
    local staged=$work/$1
    "$extract" export --supernet "$supernet" --arch "$work/found.json" --data "$data" --out "$staged" --quiet \
        >/dev/null || stop $? "$1 is not exported"
    (cd "$staged" && sha256sum config.json model.safetensors >SHA256SUMS)
    check "$staged"
    mv "$staged" "$out/"
}

[ $# -ge 6 ] || stop 2 "usage: $0 SUPERNET DATA ESTIMATOR SPACE OUT TABLE.json@LIMIT..."
supernet=$1 data=$2 estimator=$3 space=$4 out=$5
shift 5
for device in "$@"; do
    [[ $device == ?*@?* ]] || stop 2 "expected TABLE.json@LIMIT, got $device"
done
for tool in "$extract" sha256sum; do
    command -v "$tool" >/dev/null || stop 2 "there is no $tool; put it on PATH, or name extract's place in EXTRACT"
done
mkdir -p "$out"
work=$(mktemp -d "$out/.pipeline-XXXXXX") # in OUT, so that `mv` renames
trap 'rm -rf "$work"' EXIT

result=0
for device in "$@"; do
    table=${device%@*} limit=${device##*@}
    name=$(basename "$table" .json) code=0
    document=$("$extract" search --space "$space" --estimator "$estimator" --latency-table "$table" \
        --max-latency "$limit" --out "$work/found.json" --json --quiet) || code=$?
    case $code in
        0) ;;
        3) # proved, so there is no use in trying again: on to the next device
            [ ! -e "$out/$name" ] || stop 1 "$out/$name does not keep $limit, nor can another; move it away"
            say "$name is left out: nothing keeps $limit, the nearest feasible limit is $(text_of text <<<"$document")"
            result=3
            continue ;;
        *) stop "$code" "the search for $name ended with code $code" ;;
    esac
    arch=$(text_of arch <<<"$document")
    if [ -e "$out/$name" ]; then
        check "$out/$name"
        there=$("$extract" inspect "$out/$name" --json | text_of arch)
        [ "$there" = "$arch" ] || stop 1 "$out/$name holds $there, found for $limit is $arch; move it away"
    else
        ship "$name"
    fi
    echo "$name $arch $out/$name"
done
exit "$result"
