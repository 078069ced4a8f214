#!/usr/bin/env bash
# Whether `corelane load` measures what wrk and oha measure, where all of them can: with the server as the bottleneck, and at a
# fixed rate well below what it can do. (Against a server that is faster than its clients a closed loop measures the clients: the
# slower one holds back more, so requests/s and latencies differ by nature.)
#
# Closed loop, beside wrk: each request computes for 100 µs. Open loop, beside oha -q: each computes for 2 ms, which is most of
# what it takes. The server has CPU 0, the client CPU 1. The clients take turns; medians of the rounds are compared: requests/s
# within 5 %, p50 and p99 within 10 %. Prints PASS or FAIL for each figure, and fails if one does. About two minutes.
#
# oha counts a latency from when it has sent the request; with --latency-correction, from when the request was due, its own timer
# included, which is a millisecond late at times. `corelane load` counts from when it was due, but not its timer's lateness, up to
# four milliseconds. While no request waits for a connection, oha's plain figures are thus the same thing, and the corrected ones
# too but for its timer. Both are judged.
#
#     benches/load-agrees.sh [rounds]
#
# Needs two CPUs, taskset, wrk and oha (cargo install oha --locked).
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5}
connections=32
rate=200
for tool in taskset wrk oha; do
    command -v "$tool" >/dev/null || { echo "there is no $tool" >&2; exit 2; }
done
cargo build --locked --release --quiet
program=${CARGO_TARGET_DIR:-target}/release/corelane
scratch=$(mktemp -d)
taskset -c 0 "$program" contender thread-per-core --listen 127.0.0.1:0 >"$scratch/server" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; rm -rf "$scratch"' EXIT
for _ in $(seq 100); do
    url=$(sed -n 's/^listening on //p' "$scratch/server" | head -n 1)
    [ -z "$url" ] || break
    sleep 0.1
done
[ -n "$url" ] || { cat "$scratch/server"; exit 2; }
closed="$url/burn?micros=100"
open="$url/burn?micros=2000"

# Each prints: loop name requests/s p50-ms p99-ms
ours() { # loop, flags
    local loop=$1
    shift
    taskset -c 1 "$program" load "$@" --warmup 0.5 --threads 1 | tee -a "$scratch/said" | awk -v loop="$loop" '
        /requests\/s/ { rate = $1 } /p50$/ { p50 = $1 } /p99$/ { p99 = $1 } END { print loop, "load", rate, p50, p99 }'
}
wrk_() {
    taskset -c 1 wrk -t1 -c"$connections" -d3s --latency "$closed" | awk '
        function millis(text,    value) {
            value = text + 0
            return text ~ /us$/ ? value / 1000 : text ~ /[0-9]s$/ ? value * 1000 : value
        }
        /Requests\/sec/ { rate = $2 } $1 == "50%" { p50 = millis($2) } $1 == "99%" { p99 = millis($2) }
        END { print "closed wrk", rate, p50, p99 }'
}
oha_() { # name, flags
    local name=$1
    shift
    taskset -c 1 oha --no-tui --output-format json -c "$connections" -z 4s -q "$rate" "$@" "$open" | tr -d ' \n' |
        sed 's/.*"requestsPerSec":\([^,}]*\).*"latencyPercentiles":{\([^}]*\)}.*/"rate":\1,\2/' |
        awk -v RS=, -v name="$name" '{ split($0, pair, ":"); value[pair[1]] = pair[2] + 0 }
            END { print "open", name, value["\"rate\""], value["\"p50\""] * 1000, value["\"p99\""] * 1000 }'
}
for _ in $(seq "$rounds"); do
    ours closed "$closed" --connections "$connections" --duration 3
    wrk_
    ours open "$open" --connections "$connections" --duration 4 --rate "$rate"
    oha_ oha
    oha_ oha-corrected --latency-correction
done | tee "$scratch/all"
grep -h '^the generator' "$scratch/said" | sort | uniq -c || true
awk '
    { key = $1 " " $2; n[key]++; for (i = 3; i <= 5; i++) v[key, i, n[key]] = $i }
    function median(key, i,    k, j, t, a) {
        for (k = 1; k <= n[key]; k++) a[k] = v[key, i, k]
        for (k = 1; k <= n[key]; k++) for (j = k + 1; j <= n[key]; j++) if (a[j] < a[k]) { t = a[k]; a[k] = a[j]; a[j] = t }
        return n[key] % 2 ? a[(n[key] + 1) / 2] : (a[n[key] / 2] + a[n[key] / 2 + 1]) / 2
    }
    function judge(loop, name, i, figure, most,    ours, theirs, ratio, word) {
        ours = median(loop " load", i); theirs = median(loop " " name, i)
        ratio = theirs > 0 ? ours / theirs : 0
        word = ratio >= 1 - most && ratio <= 1 + most ? "PASS" : "FAIL"
        if (word == "FAIL") failed = 1
        printf "%s %-6s load / %-13s %-10s %.3f  (%s / %s)\n", word, loop, name, figure, ratio, ours, theirs
    }
    function all(loop, name) {
        judge(loop, name, 3, "requests/s", 0.05)
        judge(loop, name, 4, "p50", 0.1)
        judge(loop, name, 5, "p99", 0.1)
    }
    END { all("closed", "wrk"); all("open", "oha"); all("open", "oha-corrected"); exit failed }' "$scratch/all"
