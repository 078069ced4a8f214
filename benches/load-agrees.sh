#!/usr/bin/env bash
# Whether `corelane load` measures what wrk and oha measure: the same server, the same connections, one after the other and
# again. Prints requests/s, p50 and p99 of each, and the ratio of the medians. Needs wrk; oha if it is there (cargo install oha).
#
#     benches/load-agrees.sh [connections] [rounds]
set -euo pipefail
cd "$(dirname "$0")/.."
connections=${1:-64}
rounds=${2:-5}
cargo build --locked --release --quiet
program=${CARGO_TARGET_DIR:-target}/release/corelane
scratch=$(mktemp -d)
"$program" serve --listen 127.0.0.1:0 --cores 1 >"$scratch/server" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; rm -rf "$scratch"' EXIT
for _ in $(seq 100); do
    url=$(sed -n 's/^listening on //p' "$scratch/server" | head -n 1)
    [ -z "$url" ] || break
    sleep 0.1
done
[ -n "$url" ] || { cat "$scratch/server"; exit 1; }

# Each prints: name requests/s p50-ms p99-ms
ours() {
    "$program" load "$url/" --connections "$connections" --duration 4 --warmup 1 --threads 1 |
        awk '/requests\/s/ { rate = $1 } /p50$/ { p50 = $1 } /p99$/ { p99 = $1 } END { print "load", rate, p50, p99 }'
}
millis() { # of a time as wrk and oha write it
    awk -v text="$1" 'BEGIN { value = text + 0
        if (text ~ /us$/) value /= 1000; else if (text ~ /[0-9]s$/) value *= 1000
        print value }'
}
wrk_() {
    wrk -t1 -c"$connections" -d4s --latency "$url/" >"$scratch/wrk"
    echo wrk "$(awk '/Requests\/sec/ { print $2 }' "$scratch/wrk")" \
        "$(millis "$(awk '$1 == "50%" { print $2 }' "$scratch/wrk")")" \
        "$(millis "$(awk '$1 == "99%" { print $2 }' "$scratch/wrk")")"
}
oha_() {
    command -v oha >/dev/null || return 0
    oha --no-tui --output-format json -c "$connections" -z 4s "$url/" >"$scratch/oha"
    tr -d ' \n' <"$scratch/oha" | sed 's/.*"requestsPerSec":\([^,}]*\).*"latencyPercentiles":{\([^}]*\)}.*/"rate":\1,\2/' |
        awk -v RS=, '{ split($0, pair, ":"); value[pair[1]] = pair[2] + 0 }
            END { print "oha", value["\"rate\""], value["\"p50\""] * 1000, value["\"p99\""] * 1000 }'
}
for _ in $(seq "$rounds"); do
    ours
    wrk_
    oha_
done | tee "$scratch/all"
awk '
    { n[$1]++; for (i = 2; i <= 4; i++) v[$1, i, n[$1]] = $i }
    function median(name, i,    k, j, t, a) {
        for (k = 1; k <= n[name]; k++) a[k] = v[name, i, k]
        for (k = 1; k <= n[name]; k++) for (j = k + 1; j <= n[name]; j++) if (a[j] < a[k]) { t = a[k]; a[k] = a[j]; a[j] = t }
        return a[int((n[name] + 1) / 2)]
    }
    END {
        for (name in n) if (name != "load")
            printf "load / %s: requests/s %.3f, p50 %.3f, p99 %.3f\n", name,
                median("load", 2) / median(name, 2), median("load", 3) / median(name, 3), median("load", 4) / median(name, 4)
    }' "$scratch/all"
