#!/usr/bin/env bash
# Whether `corelane compare` tells a contender from itself: it runs the same one under two names again and again, and counts how
# often that comes out as a difference. At most one time in twenty is what the intervals promise: it fails if there are more.
# Eleven seconds each time, so twenty take about four minutes.
#
#     benches/compare-null.sh [contender] [times]
set -euo pipefail
cd "$(dirname "$0")/.."
contender=${1:-thread-per-core}
times=${2:-20}
cargo build --locked --release --quiet
program=${CARGO_TARGET_DIR:-target}/release/corelane
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
different=0
for run in $(seq "$times"); do
    "$program" compare --quick --rounds 5 --duration 0.6 --scenario hello --out "$scratch" \
        --contender "$contender" --contender "$contender#2" >"$scratch/out" 2>"$scratch/err" ||
        { cat "$scratch/err" >&2; exit 2; }
    # The mark of a row that is no different from the first.
    if grep -q '^~ ' "$scratch/out"; then
        echo "$run: no difference"
    else
        different=$((different + 1))
        echo "$run: a difference"
        sed -n '/^Verdict/,/^Altogether/p' "$scratch/out"
    fi
done
word=FAIL
[ $((different * 20)) -gt "$times" ] || word=PASS
echo "$word: $different of $times runs found a difference between $contender and itself"
[ "$word" = PASS ]
