#!/usr/bin/env python3
"""Thousands of slow clients of each kind, and a good one beside them.

    cargo build --release --example attacked
    ulimit -n 20000; python3 tests/slow/slow.py target/release/examples/attacked [CLIENTS]

Of each kind so many connect at once (5,000 unless told otherwise), to a server of one shard with a limit of 3 s. They must be gone one
second after it, and have held at most 16 KiB each; a good client, which asks all the while, has no error and a p99 of at most
twice what it has alone, or 2 ms more. Prints PASS or FAIL for each with the figures; the status is 0 if all pass.
"""

import multiprocessing
import os
import resource
import selectors
import socket
import subprocess
import sys
import time

LIMIT = 3.0
# A look at connections is half a second late at the worst, and the kinds have a second.
GONE = LIMIT + 1.0
HEAD = b"GET / HTTP/1.1\r\nhost: a\r\n"
KIB = 1024


class Kind:
    def __init__(self, name, limit, first, drip=b"", receive=None):
        self.name, self.limit, self.first, self.drip, self.receive = name, limit, first, drip, receive


KINDS = [
    Kind("silent", "first_byte_timeout", b""),
    Kind("slow-head", "header_timeout", HEAD + b"x: ", b"x"),
    Kind("slow-body", "body_timeout", b"POST /read HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n", b"x"),
    Kind("slow-read", "write_timeout", b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n", receive=4096),
]


def rss(pid):
    with open(f"/proc/{pid}/status") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def ask(address, stop, told):
    """Asks a hundred times on each connection until it is told to stop, and tells the times and what went wrong."""
    times, errors = [], []
    while not stop.is_set():
        try:
            with socket.create_connection(address, timeout=10) as client:
                for _ in range(100):
                    if stop.is_set():
                        break
                    began = time.perf_counter()
                    client.sendall(HEAD + b"\r\n")
                    answer = b""
                    while not answer.endswith(b"Hello, World!"):
                        piece = client.recv(4096)
                        if not piece:
                            raise OSError("closed")
                        answer += piece
                    times.append(time.perf_counter() - began)
                    time.sleep(0.002)
        except OSError as error:
            errors.append(str(error))
    told.send((times, errors))


class Good:
    """The good client, in a process of its own: it must not wait for the slow ones' Python."""

    def __init__(self, address):
        self.stop = multiprocessing.Event()
        self.hear, told = multiprocessing.Pipe(duplex=False)
        self.process = multiprocessing.Process(target=ask, args=(address, self.stop, told), daemon=True)
        self.process.start()

    def end(self):
        """Its p99, and what went wrong."""
        self.stop.set()
        times, errors = self.hear.recv()
        self.process.join()
        times.sort()
        return (times[int(len(times) * 0.99)] if times else float("inf")), errors


def attack(program, mode, kind, count):
    limit = f"{kind.limit}={int(LIMIT * 1000)}"
    # So that it is not the system that holds what is not taken.
    settings = [limit, "send_buffer=16384"]
    server = subprocess.Popen([program, "127.0.0.1:0", mode, *settings], stdout=subprocess.PIPE, text=True)
    clients = {}
    try:
        line = server.stdout.readline()
        host, port = line.strip().rsplit("/", 1)[1].split(":")
        address = (host, int(port))
        good = Good(address)
        time.sleep(3)
        alone, _ = good.end()
        before = rss(server.pid)
        good = Good(address)
        chosen = selectors.DefaultSelector()
        for _ in range(count):
            client = socket.socket()
            if kind.receive:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, kind.receive)
            client.connect(address)
            client.setblocking(False)
            if kind.first:
                client.send(kind.first)
            clients[client] = time.perf_counter()
            if not kind.receive:
                chosen.register(client, selectors.EVENT_READ)
        held, longest, drips = 0, 0.0, time.perf_counter() + 1
        deadline = time.perf_counter() + 4 * LIMIT + 10
        while clients and time.perf_counter() < deadline:
            held = max(held, rss(server.pid) - before)
            now = time.perf_counter()
            if kind.receive:
                # Who reads nothing is told of a reset by a poll for errors.
                gone = [one for one in clients if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)]
                time.sleep(0.05)
            else:
                gone = []
                for key, _ in chosen.select(0.05):
                    try:
                        if not key.fileobj.recv(65536):
                            gone.append(key.fileobj)
                    except BlockingIOError:
                        pass
                    except OSError:
                        gone.append(key.fileobj)
            for one in gone:
                longest = max(longest, now - clients.pop(one))
                if not kind.receive:
                    chosen.unregister(one)
                one.close()
            if kind.drip and now > drips:
                drips = now + 1
                for one in clients:
                    try:
                        one.send(kind.drip)
                    except OSError:
                        pass
        each, (p99, errors) = held / count / KIB, good.end()
        fine = not clients and longest <= GONE and each <= 16 and not errors
        fine = fine and p99 <= max(2 * alone, alone + 0.002)
        print(
            f"{'PASS' if fine else 'FAIL'} {mode} {kind.name}: {count} clients, {len(clients)} left, the last gone after "
            f"{longest:.2f} s (limit {LIMIT:.0f} s), {each:.1f} KiB each, good client p99 {p99 * 1e3:.2f} ms "
            f"({alone * 1e3:.2f} alone), {len(errors)} errors {errors[:1]}",
            flush=True,
        )
        return fine
    finally:
        for client in clients:
            client.close()
        server.terminate()
        server.wait(10)


def main():
    program = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    outcomes = [
        attack(os.path.abspath(program), mode, kind, count)
        for mode in ("thread-per-core", "work-stealing")
        for kind in KINDS
    ]
    sys.exit(0 if all(outcomes) else 1)


main()
