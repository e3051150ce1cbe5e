#!/usr/bin/env bash
# Times, medians and ratios, for the parts of bench.sh. $scratch is where the series are kept.
set -euo pipefail

# Runs a command and adds its seconds to the series of that name.
timed() {
    local series="$1" begin end
    shift
    begin=$EPOCHREALTIME
    if ! "$@" >"$scratch/output" 2>&1; then
        echo "bench: $series failed: $*" >&2
        tail -n 20 "$scratch/output" >&2
        exit 1
    fi
    end=$EPOCHREALTIME
    awk -v a="$begin" -v b="$end" 'BEGIN { printf "%.3f\n", b - a }' >>"$scratch/$series.times"
}

median() {
    sort -n "$scratch/$1.times" | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# ours theirs goal: prints both medians and their ratio.
compare() {
    local ours theirs
    ours="$(median "$1")" theirs="$(median "$2")"
    awk -v o="$ours" -v t="$theirs" -v n="$2" -v m="$1" -v g="$3" \
        'BEGIN { printf "  %-34s %8.2f s\n  %-34s %8.2f s\n  ratio %.2f (goal: at most %s)\n\n", m, o, n, t, o / t, g }'
}
