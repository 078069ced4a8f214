#!/usr/bin/env python3
"""SIGTERM under a mixed load, again and again: nothing that was accepted is lost, and the end comes in time.

    cargo build --release
    python3 tests/drain/sigterms.py target/release/corelane [TIMES]

Each time `corelane serve` has a thousand idle connections, a hundred that are silent, and a hundred requests under way: clients that
take a large file slowly. Every tenth time there are ten with half a head as well, which have five seconds for the rest of it. After SIGTERM every one of these must get all of its file, the others must be
closed, and the program must end with status 0 within the time of its drain and a second. Prints one line for each mode; the status is 0
if all went well.
"""

import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time

DRAIN = 8
LARGE = 4_000_000
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def connected(address, receive=None):
    client = socket.socket()
    if receive:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    client.connect(address)
    client.settimeout(10)
    return client


def one(program, mode, directory, half_heads):
    config = os.path.join(directory, "server.toml")
    server = subprocess.Popen(
        [program, "serve", "--config", config, "--mode", mode], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    problems = []
    idle, silent, halves, active = [], [], [], {}
    try:
        address = None
        while address is None:
            line = server.stdout.readline()
            if line.startswith("listening on http://"):
                host, port = line.strip().rsplit("/", 1)[1].split(":")
                address = (host, int(port))
        for _ in range(1000):
            client = connected(address)
            client.sendall(GET)
            idle.append(client)
        for client in idle:
            while b"Hello" not in client.recv(4096):
                pass
        silent = [connected(address) for _ in range(100)]
        for _ in range(half_heads):
            client = connected(address)
            client.sendall(GET[:20])
            halves.append(client)
        for _ in range(100):
            client = connected(address, 16384)
            client.sendall(b"GET /files/large HTTP/1.1\r\nhost: a\r\n\r\n")
            active[client] = len(client.recv(1024))
            client.setblocking(False)
        began = time.perf_counter()
        server.send_signal(signal.SIGTERM)
        chosen = selectors.DefaultSelector()
        for client in active:
            chosen.register(client, selectors.EVENT_READ)
        ended = {}
        while len(ended) < len(active) and time.perf_counter() - began < DRAIN + 5:
            for key, _ in chosen.select(0.1):
                try:
                    piece = key.fileobj.recv(65536)
                except OSError as error:
                    piece, ended[key.fileobj] = b"", str(error)
                active[key.fileobj] += len(piece)
                if not piece:
                    ended.setdefault(key.fileobj, "closed")
                    chosen.unregister(key.fileobj)
            # Slowly: a file takes a good part of a second.
            time.sleep(0.002)
        short = [count for count in active.values() if count < LARGE]
        if short:
            problems.append(f"{len(short)} of the requests under way were cut, one after {short[0]} bytes")
        try:
            status = server.wait(DRAIN + 2)
        except subprocess.TimeoutExpired:
            problems.append("it did not end")
            server.kill()
            status = server.wait()
        took = time.perf_counter() - began
        if status != 0:
            problems.append(f"status {status}: {server.stderr.read()[-300:]}")
        if took > DRAIN + 1:
            problems.append(f"it took {took:.1f} s")
        for client in idle + silent + halves:
            try:
                while client.recv(4096):
                    pass
            except OSError:
                pass
        return took, problems
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
        for client in [*idle, *silent, *halves, *active]:
            client.close()


def main():
    program = os.path.abspath(sys.argv[1])
    times = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    fine = True
    with tempfile.TemporaryDirectory() as directory:
        os.mkdir(os.path.join(directory, "site"))
        with open(os.path.join(directory, "site", "large"), "wb") as large:
            large.write(os.urandom(LARGE))
        with open(os.path.join(directory, "server.toml"), "w") as config:
            config.write(
                f'[runtime]\ndrain = "{DRAIN}s"\n[[listener]]\nname = "a"\naddress = "127.0.0.1:0"\n'
                '[[route]]\npath = "/"\nrespond = { body = "Hello" }\n'
                '[[route]]\npath = "/files/*"\nfiles = { dir = "site" }\n'
            )
        for mode in ("thread-per-core", "work-stealing"):
            outcomes = [one(program, mode, directory, 0 if number % 10 else 10) for number in range(times)]
            good = sum(not problems for _, problems in outcomes)
            tooks = sorted(took for took, _ in outcomes)
            print(f"{'PASS' if good == times else 'FAIL'} {mode}: {good} of {times}, half of them within {tooks[len(tooks) // 2]:.2f} s, the longest {tooks[-1]:.2f} s", flush=True)
            for problem in sorted({problem for _, problems in outcomes for problem in problems})[:5]:
                print(f"    {problem}", flush=True)
            fine = fine and good == times
    sys.exit(0 if fine else 1)


main()
