#!/usr/bin/env bash
# HTTP/2 from hostile clients: tests/http2/run.sh PROGRAM [NAME]..., where PROGRAM is the example `attacked`, built with
# optimizations:
#
#     cargo build --release --example attacked && tests/http2/run.sh target/release/examples/attacked
#
# Each attack starts a server of its own, on loopback, and prints PASS or FAIL with its figures. The status is 0 if all pass.

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=${HTTP2_VENV:-$here/../../target/http2-venv}
if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import h2, hpack, hyperframe' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0
fi
exec "$venv/bin/python" "$here/attacks.py" "$@"
