"""A hostile client's tools: a server to attack, raw frames, and a good client beside it."""

import multiprocessing
import select
import signal
import socket
import struct
import subprocess
import time

import h2.config
import h2.connection
import h2.events
import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, ACK = 1, 4, 8, 1


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(**values):
    names = {"table": 1, "push": 2, "streams": 3, "window": 4, "frame": 5, "list": 6}
    return frame(SETTINGS, payload=b"".join(struct.pack(">HI", names[name], value) for name, value in values.items()))


def block(path="/", method="GET", extra=(), authority="test"):
    fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", authority)]
    return hpack.Encoder().encode(fields + list(extra))


def ask(stream, path="/", **more):
    """A whole request without a body."""
    return frame(HEADERS, END_STREAM | END_HEADERS, stream, block(path, **more))


class Server:
    """The program, as a process of its own, in one mode."""

    def __init__(self, program, mode, *limits):
        command = [program, "127.0.0.1:0", mode, *limits]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])
        # What it needs for any connection is there before memory is looked at.
        for _ in range(3):
            self.counts()

    def connect(self):
        stream = socket.create_connection(("127.0.0.1", self.port))
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.settimeout(10)
        return stream

    def status(self, name):
        """KiB."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(name))

    def forget_peak(self):
        with open(f"/proc/{self.process.pid}/clear_refs", "w") as file:
            file.write("5")

    def counts(self):
        """Calls of slow services that have begun, and whose futures are still there."""
        with self.connect() as stream:
            stream.sendall(b"GET /counts HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
            text = b""
            while piece := stream.recv(4096):
                text += piece
        begun, live = text.rsplit(b"\r\n", 1)[1].split()
        return int(begun), int(live)

    def stop(self):
        """Asks it to end. Returns how long that took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=30)
        return time.monotonic() - began

    def kill(self):
        self.process.kill()
        self.process.wait()


class Peer:
    """One connection, frame by frame."""

    def __init__(self, server, first=settings()):
        self.stream = server.connect()
        self.received = b""
        self.stream.sendall(PREFACE + first)

    def send(self, data):
        """False: the connection is no more."""
        try:
            self.stream.sendall(data)
            return True
        except OSError:
            return False

    def parse(self):
        if len(self.received) < 9:
            return None
        length = int.from_bytes(self.received[:3], "big")
        if len(self.received) < 9 + length:
            return None
        head, payload = self.received[:9], self.received[9:9 + length]
        self.received = self.received[9 + length:]
        return head[3], head[4], int.from_bytes(head[5:9], "big"), payload

    def next(self, timeout=5.0):
        """The next frame; None at the end, or when it takes too long."""
        until = time.monotonic() + timeout
        while True:
            if parsed := self.parse():
                return parsed
            left = max(until - time.monotonic(), 0)
            if not select.select([self.stream], [], [], left)[0]:
                return None
            try:
                piece = self.stream.recv(1 << 16)
            except OSError:
                return None
            if not piece:
                return None
            self.received += piece

    def flood(self, make, seconds=5.0, reads=True):
        """Sends what `make` gives, over and over, until the server says goodbye or ends it. Returns a Flood."""
        flood, began = Flood(), time.monotonic()
        self.stream.setblocking(False)
        pending = b""
        while time.monotonic() - began < seconds:
            if not pending:
                pending = make()
            readable, writable, _ = select.select([self.stream] if reads else [], [self.stream], [], 0.05)
            try:
                if readable:
                    piece = self.stream.recv(1 << 16)
                    if not piece:
                        break
                    self.received += piece
                    while parsed := self.parse():
                        flood.saw(parsed)
                    if flood.goodbye is not None:
                        break
                if writable:
                    sent = self.stream.send(pending)
                    flood.sent += sent
                    pending = pending[sent:]
            except BlockingIOError:
                continue
            except OSError:
                break
        else:
            flood.endured = True
        flood.took = time.monotonic() - began
        return flood


class Flood:
    """What came of one."""

    def __init__(self):
        self.sent = 0
        self.goodbye = None
        self.why = ""
        self.resets = 0
        self.took = 0.0
        self.endured = False

    def saw(self, parsed):
        kind, _, _, payload = parsed
        if kind == GOAWAY and int.from_bytes(payload[4:8], "big"):
            self.goodbye = int.from_bytes(payload[4:8], "big")
            self.why = payload[8:].decode(errors="replace")
        elif kind == RST_STREAM:
            self.resets += 1


#: Answers that a percentile is taken of, at least.
ANSWERS = 200


def percentile(times):
    """Of a hundred answers all but one took at most so many milliseconds."""
    return 1000 * sorted(times)[len(times) * 99 // 100]


def good_client(port, seconds, pipe):
    """Asks for / over HTTP/2 all the time: first alone, then until it is told that the attack is over, and asks on for a while.
    Tells its errors, its answers beside the attack, and one in a hundred of its times before and then, in milliseconds."""
    alone, times, errors, until, told = [], [], 0, time.monotonic() + seconds, False
    try:
        stream = socket.create_connection(("127.0.0.1", port))
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.settimeout(10)
        http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        http.initiate_connection()
        stream.sendall(http.data_to_send())
        while time.monotonic() < until and not (told and len(times) >= ANSWERS):
            began, number, ended = time.monotonic(), http.get_next_available_stream_id(), False
            http.send_headers(number, [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "test")], True)
            stream.sendall(http.data_to_send())
            while not ended:
                piece = stream.recv(1 << 16)
                if not piece:
                    raise OSError("closed")
                for event in http.receive_data(piece):
                    if isinstance(event, h2.events.DataReceived):
                        http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    ended |= isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset))
                    errors += isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated))
                if data := http.data_to_send():
                    stream.sendall(data)
            took = time.monotonic() - began
            if len(alone) < ANSWERS:
                alone.append(took)
                if len(alone) == ANSWERS:
                    pipe.send("alone")
            else:
                times.append(took)
            told = told or pipe.poll()
            time.sleep(0.002)
    except OSError:
        errors += 1
    if len(alone) < ANSWERS:
        pipe.send("failed")
        return
    pipe.send((errors, len(times), percentile(alone), percentile(times or alone)))


class Good:
    """The good client, beside an attack."""

    def __init__(self, server):
        self.pipe, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=good_client, args=(server.port, 120, theirs))
        self.process.start()
        assert self.pipe.recv() == "alone", "the good client does not even come through alone"

    def end(self):
        self.pipe.send("enough")
        result = self.pipe.recv()
        self.process.join()
        return result
