#!/usr/bin/env bash
# What a byte of a download costs: processor time (user and system, /proc/PID/stat) of `corelane serve` with a `files` route, and of
# nginx with sendfile, for the same file and the same client in turns. Each round prints nanoseconds for each KiB of both and their
# ratio; the last line has the median of the ratios, and says PASS if it is 1 at most. About a minute; the machine may be busy, since
# processor time is counted, but a busy one spreads the ratios.
#
#     benches/downloads.sh [rounds] [bytes of the file] [connections]
#
# Needs nginx and h2load (nghttp2-client). PROGRAM=PATH measures another corelane than this source's. COPY=1 has Corelane copy the file instead of sending it inside the system, by HTTP/2.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-7}
size=${2:-1048576}
connections=${3:-16}
version=--h1
[ -z "${COPY:-}" ] || version=-m1
# So many requests that a round moves four gigabytes, or asks a hundred thousand times.
requests=$((4294967296 / size))
[ "$requests" -le 100000 ] || requests=100000
[ "$requests" -ge "$connections" ] || requests=$connections
for tool in nginx h2load; do
    command -v "$tool" >/dev/null || { echo "there is no $tool" >&2; exit 2; }
done
program=${PROGRAM:-}
if [ -z "$program" ]; then
    cargo build --locked --release --quiet --bin corelane
    program=${CARGO_TARGET_DIR:-target}/release/corelane
fi
program=$(realpath "$program")
scratch=$(mktemp -d)
started=
finish() {
    # shellcheck disable=SC2086 # one word per process
    [ -z "$started" ] || kill $started 2>/dev/null || true
    wait
    rm -rf "$scratch"
}
trap finish EXIT
mkdir "$scratch/site"
head -c "$size" /dev/urandom >"$scratch/site/file.bin"
chmod -R a+rX "$scratch"
port=$((20000 + RANDOM % 10000))

cat >"$scratch/nginx.conf" <<END
daemon off;
worker_processes 2;
pid $scratch/nginx.pid;
error_log $scratch/nginx.log;
events { worker_connections 1024; }
http {
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    server { listen 127.0.0.1:$((port + 1)) reuseport; root $scratch/site; }
}
END
nginx -c "$scratch/nginx.conf" -e "$scratch/nginx.log" &
nginx=$!
started=$nginx
cat >"$scratch/corelane.toml" <<END
[runtime]
cores = 2
[[listener]]
name = "public"
address = "127.0.0.1:$port"
[[route]]
path = "/*"
files = { dir = "site" }
END
"$program" serve --config "$scratch/corelane.toml" >"$scratch/corelane.log" 2>&1 &
corelane=$!
started="$nginx $corelane"
for one in $port $((port + 1)); do
    for _ in $(seq 100); do
        ! curl -sf -o /dev/null "http://127.0.0.1:$one/file.bin" || break
        sleep 0.1
    done
    curl -sf "http://127.0.0.1:$one/file.bin" | cmp - "$scratch/site/file.bin"
done

# Ticks that a process and its children have had, without its name, which may have spaces.
ticks() { # pid
    local pid
    for pid in $1 $(cat "/proc/$1/task/$1/children"); do
        sed 's/.*) //' "/proc/$pid/stat" | awk '{ print $12 + $13 }'
    done | awk '{ sum += $1 } END { print sum }'
}
second=$(getconf CLK_TCK)
# Nanoseconds for each KiB.
cost() { # pid port version
    local before after
    before=$(ticks "$1")
    timeout 120 h2load "$3" -n "$requests" -c "$connections" -t 1 "http://127.0.0.1:$2/file.bin" >"$scratch/h2load" 2>&1
    after=$(ticks "$1")
    grep -q " $requests succeeded, 0 failed" "$scratch/h2load" || { cat "$scratch/h2load" >&2; return 1; }
    awk -v ticks=$((after - before)) -v second="$second" -v kib="$((requests * size / 1024))" \
        'BEGIN { printf "%.1f", ticks / second * 1e9 / kib }'
}
# Once for the caches, the counters and the congestion windows.
cost "$corelane" "$port" "$version" >/dev/null
cost "$nginx" $((port + 1)) --h1 >/dev/null
echo "round  corelane ns/KiB  nginx ns/KiB  ratio"
for round in $(seq "$rounds"); do
    if [ $((round % 2)) -eq 0 ]; then
        ours=$(cost "$corelane" "$port" "$version")
        theirs=$(cost "$nginx" $((port + 1)) --h1)
    else
        theirs=$(cost "$nginx" $((port + 1)) --h1)
        ours=$(cost "$corelane" "$port" "$version")
    fi
    ratio=$(awk -v ours="$ours" -v theirs="$theirs" 'BEGIN { printf "%.3f", ours / theirs }')
    echo "$round  $ours  $theirs  $ratio"
    echo "$ratio" >>"$scratch/ratios"
done
median=$(sort -n "$scratch/ratios" | awk '{ all[NR] = $1 } END { print (all[int((NR + 1) / 2)] + all[int(NR / 2) + 1]) / 2 }')
word=PASS
awk -v median="$median" 'BEGIN { exit median <= 1 ? 0 : 1 }' || word=FAIL
echo "$word: the median of $rounds ratios is $median ($size bytes, $connections connections)"
[ "$word" = PASS ]
