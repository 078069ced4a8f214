"""The attacks, one function each, in both modes: see run.sh. Numbers in brackets are those of public CVEs or of RFC 9113."""

import struct
import sys
import time

from peer import *

#: A flood ends within a second, and costs at most so many KiB.
SECONDS = 1.0
MEMORY = 32 << 10
#: The good client beside it: no error, and all but one answer in a hundred within this, or four times what they take without an
#: attack if that is more: the CPUs are shared by all.
LATE_MS = 100.0

ATTACKS = []


def attack(*limits):
    def add(function):
        ATTACKS.append((function, limits))
        return function
    return add


class Failed(Exception):
    pass


def must(holds, what):
    if not holds:
        raise Failed(what)


def flooded(server, make, first=b"", code=None, hello=settings(), handlers=False):
    """A flood that must end with a goodbye in time."""
    peer = Peer(server, hello)
    peer.send(first)
    flood = peer.flood(make)
    text = f"GOAWAY {flood.goodbye} {flood.why!r} after {flood.took:.2f} s and {flood.sent / 1e3:.0f} kB"
    must(not flood.endured and flood.goodbye is not None, f"no goodbye: {text}")
    must(flood.took <= SECONDS, f"late: {text}")
    must(code is None or flood.goodbye == code, f"another code than {code}: {text}")
    return text + (cancelled(server) if handlers else "")


def cancelled(server):
    """The futures of all services must be gone."""
    began = time.monotonic()
    while time.monotonic() - began < 2:
        begun, live = server.counts()
        if live == 0:
            return f", {begun} services begun, 0 left after {time.monotonic() - began:.2f} s"
    raise Failed(f"{live} of {begun} services run on")


CALM = 11


def repeat(data, times=1000):
    return lambda: data * times


@attack()
def ping_flood(server):
    return flooded(server, repeat(frame(PING, payload=b"12345678")), ask(1, "/slow?60000"), CALM, handlers=True)


@attack()
def settings_flood(server):
    return flooded(server, repeat(settings()), ask(1, "/slow?60000"), CALM, handlers=True)


@attack()
def settings_flood_of_windows(server):
    """Every one changes the window of 200 streams."""
    streams = b"".join(ask(1 + 2 * number, "/endless") for number in range(200))
    flip = settings(window=0) + settings(window=1)
    return flooded(server, repeat(flip), streams, CALM, settings(window=0))


@attack()
def priority_flood(server):
    many = b"".join(frame(PRIORITY, 0, 2 * number + 1, b"\0\0\0\0\1") for number in range(1000))
    return flooded(server, lambda: many, b"", CALM)


@attack()
def window_update_flood_of_a_stream(server):
    return flooded(server, repeat(frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1")), ask(1, "/slow?60000"), CALM, handlers=True)


@attack()
def window_update_flood_of_the_connection(server):
    return flooded(server, repeat(frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1")), b"", CALM)


@attack()
def unknown_frames_flood(server):
    return flooded(server, repeat(frame(77, payload=b"x" * 100)), b"", CALM)


@attack("write_timeout=1000")
def ping_flood_unread(server):
    """Who reads nothing cannot be told why, but its frames are counted."""
    flood = Peer(server).flood(repeat(frame(PING, payload=b"12345678")), 8, reads=False)
    must(not flood.endured, "it goes on")
    return f"ended after {flood.took:.2f} s and {flood.sent / 1e3:.0f} kB"


def rapid(path, count=50):
    """[CVE-2023-44487]"""
    head, at = block(path), [1]

    def make():
        first, at[0] = at[0], at[0] + 2 * count
        numbers = range(first, first + 2 * count, 2)
        return b"".join(frame(HEADERS, 5, one, head) + frame(RST_STREAM, 0, one, b"\0\0\0\x08") for one in numbers)
    return make


@attack()
def rapid_reset(server):
    return flooded(server, rapid("/slow?60000"), code=CALM, handlers=True)


@attack()
def rapid_reset_of_large_answers(server):
    return flooded(server, rapid("/large?1000000"), code=CALM)


@attack()
def rapid_reset_of_accepted_requests(server):
    """Each request has reached its service before it is reset."""
    peer, head, began, first = Peer(server), block("/slow?60000"), time.monotonic(), 1
    before, seen = b"", Flood()
    while time.monotonic() - began < 10 and seen.goodbye is None:
        numbers = range(first, first + 100, 2)
        if not peer.send(before + b"".join(frame(HEADERS, 5, one, head) for one in numbers)):
            break
        before = b"".join(frame(RST_STREAM, 0, one, b"\0\0\0\x08") for one in numbers)
        first += 100
        time.sleep(0.002)
        while parsed := peer.next(0):
            seen.saw(parsed)
    took, asked = time.monotonic() - began, first // 2
    must(seen.goodbye == CALM, f"GOAWAY {seen.goodbye} after {asked} requests in {took:.2f} s")
    must(took <= SECONDS and asked < 10_000, f"GOAWAY after {asked} requests in {took:.2f} s")
    return f"GOAWAY {seen.goodbye} {seen.why!r} after {asked} requests in {took:.2f} s" + cancelled(server)


def made(bad, path="/slow?60000", flags=END_HEADERS):
    """[CVE-2025-8671] A frame on each stream that makes the server reset it."""
    head, at = block(path, "POST"), [1]

    def make():
        first, at[0] = at[0], at[0] + 100
        return b"".join(frame(HEADERS, flags, one, head) + bad(one) for one in range(first, first + 100, 2))
    return make


@attack()
def made_you_reset_by_a_window_of_0(server):
    return flooded(server, made(lambda one: frame(WINDOW_UPDATE, 0, one, b"\0\0\0\0")), handlers=True)


@attack()
def made_you_reset_by_a_window_too_large(server):
    most = struct.pack(">I", 2**31 - 1)
    return flooded(server, made(lambda one: frame(WINDOW_UPDATE, 0, one, most)), code=CALM, handlers=True)


@attack()
def made_you_reset_by_a_short_priority(server):
    return flooded(server, made(lambda one: frame(PRIORITY, 0, one, b"\0\0\0\0")), handlers=True)


@attack()
def made_you_reset_by_a_priority_of_itself(server):
    return flooded(server, made(lambda one: frame(PRIORITY, 0, one, struct.pack(">I", one) + b"\1")), code=CALM, handlers=True)


@attack()
def made_you_reset_by_headers_after_the_end(server):
    bad = made(lambda one: frame(HEADERS, 5, one, block("/", "POST")), flags=END_HEADERS | END_STREAM)
    return flooded(server, bad, handlers=True)


@attack()
def made_you_reset_by_data_after_the_end(server):
    return flooded(server, made(lambda one: frame(DATA, 0, one, b"x"), flags=END_HEADERS | END_STREAM), handlers=True)


@attack()
def streams_that_are_refused(server):
    head, at = block("/slow?60000"), [1]

    def make():
        first, at[0] = at[0], at[0] + 200
        return b"".join(frame(HEADERS, 5, one, head) for one in range(first, first + 200, 2))
    return flooded(server, make, code=CALM, handlers=True)


@attack()
def continuation_flood(server):
    begin = frame(HEADERS, END_STREAM, 1, block())
    return flooded(server, repeat(frame(CONTINUATION, 0, 1, b"\x40\1a\1b" * 100)), begin, CALM)


@attack()
def empty_continuation_flood(server):
    return flooded(server, repeat(frame(CONTINUATION, 0, 1)), frame(HEADERS, END_STREAM, 1, block()), CALM)


def post(path):
    return frame(HEADERS, END_HEADERS, 1, block(path, "POST"))


@attack()
def empty_data_flood(server):
    return flooded(server, repeat(frame(DATA, 0, 1)), post("/hold?60000"), CALM, handlers=True)


@attack()
def data_flood_of_one_byte(server):
    return flooded(server, repeat(frame(DATA, 0, 1, b"x")), post("/hold?60000"), handlers=True)


@attack()
def padded_data_flood(server):
    return flooded(server, repeat(frame(DATA, PADDED, 1, b"\xff" + bytes(255)), 100), post("/hold?60000"), handlers=True)


@attack()
def hpack_bomb(server):
    """One field of 4,000 bytes, and the index of it 16,000 times."""
    bomb = block() + b"\x40\1a" + b"\x7f" + hpack_length(4000 - 127) + b"x" * 4000 + b"\xbe" * 12_000
    peer = Peer(server)
    peer.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, bomb[:16_384]))
    refused = None
    while refused is None:
        came = peer.next()
        must(came, "neither answered nor ended")
        if came[0] in (RST_STREAM, GOAWAY):
            refused = "RST_STREAM" if came[0] == RST_STREAM else "GOAWAY"
        elif came[0] == HEADERS:
            status = dict(hpack.Decoder().decode(came[3]))[":status"]
            must(status == "431", f"status {status}")
            refused = status
    return refused


def hpack_length(rest):
    out = b""
    while rest >= 128:
        out, rest = out + bytes([rest % 128 + 128]), rest // 128
    return out + bytes([rest])


@attack()
def table_sizes_that_flap(server):
    """Requests that each empty the table, and fill it again."""
    peer, began = Peer(server, settings(window=2**31 - 1)), time.monotonic()
    peer.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**30)))
    for number in range(5000):
        flap = b"\x20" + b"\x3f\xe1\x1f" + block("/", extra=[("a", "x" * 1000)])
        must(peer.send(frame(HEADERS, 5, 2 * number + 1, flap)), "ended")
        if number % 100 == 99:
            answered = 0
            while answered < 100:
                came = peer.next()
                must(came and came[0] != GOAWAY, f"ended: {came}")
                answered += came[0] == HEADERS
    return f"5000 answered in {time.monotonic() - began:.2f} s"


@attack("write_timeout=1000")
def a_window_of_0_for_ever(server):
    """200 answers that never end."""
    peer = Peer(server, settings(window=0))
    peer.send(b"".join(ask(1 + 2 * number, "/endless") for number in range(200)))
    began, resets = time.monotonic(), 0
    while resets < 200:
        came = peer.next()
        must(came, f"{resets} reset, then nothing")
        must(came[0] != GOAWAY, "the connection is ended too")
        resets += came[0] == RST_STREAM
    took = time.monotonic() - began
    must(took < 4, f"after {took:.1f} s")
    return f"200 streams reset after {took:.1f} s (limit 1 s)"


@attack("write_timeout=1000")
def a_window_of_1_that_is_never_more(server):
    peer = Peer(server, settings(window=1))
    peer.send(b"".join(ask(1 + 2 * number, "/large?100000") for number in range(200)))
    began, resets = time.monotonic(), 0
    while resets < 200:
        came = peer.next()
        must(came, f"{resets} reset, then nothing")
        resets += came[0] == RST_STREAM
    took = time.monotonic() - began
    must(took < 4, f"after {took:.1f} s")
    return f"200 streams reset after {took:.1f} s (limit 1 s)"


@attack()
def windows_of_1_that_are_asked_for_one_by_one(server):
    """A byte for each frame."""
    first = ask(1, "/endless")
    return flooded(server, repeat(frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1")), first, CALM, settings(window=0))


@attack("write_timeout=1000")
def one_stream_that_pauses(server):
    """Its neighbours go on."""
    peer = Peer(server, settings(window=100_000))
    peer.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**30)) + ask(1, "/endless"))
    began, number, answered = time.monotonic(), 3, 0
    while time.monotonic() - began < 8:
        peer.send(ask(number))
        while True:
            came = peer.next()
            must(came and came[0] != GOAWAY, f"the connection ends: {came}")
            if came[0] == RST_STREAM:
                must(came[2] == 1, "another is reset")
                took = time.monotonic() - began
                peer.send(ask(number + 2))
                while (came := peer.next()) and came[2] != number + 2:
                    pass
                must(came and came[0] == HEADERS, "no answer after it")
                return f"reset after {took:.1f} s (limit 1 s), {answered} answers on others meanwhile"
            if came[2] == number and came[1] & END_STREAM:
                break
        number, answered = number + 2, answered + 1
    raise Failed("it is never reset")


@attack("header_timeout=1000")
def half_a_head_beside_an_open_stream(server):
    peer, began = Peer(server), time.monotonic()
    peer.send(ask(1, "/slow?60000") + frame(HEADERS, END_STREAM, 3, block()))
    while peer.next(6):
        pass
    took = time.monotonic() - began
    must(took < 3, f"after {took:.1f} s")
    return f"closed after {took:.1f} s (limit 1 s)" + cancelled(server)


@attack()
def streams_above_200(server):
    peer = Peer(server)
    peer.send(b"".join(ask(1 + 2 * number, "/slow?60000") for number in range(250)))
    refused = 0
    while refused < 50:
        came = peer.next()
        must(came, f"{refused} refused, then nothing")
        refused += came[0] == RST_STREAM and came[3] == b"\0\0\0\7"
    begun, live = server.counts()
    must((begun, live) == (200, 200), f"{begun} begun")
    peer.stream.close()
    return "50 of 250 refused" + cancelled(server)


@attack()
def numbers_of_streams_that_are_wrong(server):
    """Used before, even, and the last there is followed by a lower one."""
    cases = {
        "again": ask(1) + ask(1),
        "even": ask(2),
        "lower": ask(2**31 - 1) + ask(5),
        "none": frame(HEADERS, 5, 0, block()),
    }
    codes = []
    for name, data in cases.items():
        peer = Peer(server)
        peer.send(data)
        code = None
        while came := peer.next():
            if came[0] == GOAWAY and (code := int.from_bytes(came[3][4:8], "big")):
                break
            if came[0] == RST_STREAM:
                code = int.from_bytes(came[3], "big")
                break
        must(code in (1, 5), f"{name}: code {code}")
        codes.append(f"{name} {code}")
    return ", ".join(codes)


@attack("idle_timeout=1000", "header_timeout=1000")
def hellos_that_are_wrong(server):
    """A bad preface, half of one, no settings, no acknowledgement."""
    cases = {
        "bad": b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "half": PREFACE[:12],
        "silent": PREFACE,
        "not settings": PREFACE + frame(PING, payload=b"12345678"),
        "no acknowledgement": PREFACE + settings() + ask(1),
    }
    times = []
    for name, data in cases.items():
        stream, began = server.connect(), time.monotonic()
        stream.sendall(data)
        try:
            while stream.recv(1 << 16):
                pass
        except ConnectionError:
            pass
        except OSError as error:
            raise Failed(f"{name}: {error}") from error
        times.append(f"{name} {time.monotonic() - began:.1f} s")
    return ", ".join(times)


@attack()
def goodbyes_and_ends_amid_a_stream(server):
    peer = Peer(server)
    peer.send(ask(1, "/slow?300") + frame(GOAWAY, payload=bytes(8)))
    answered = False
    while came := peer.next():
        answered |= came[0] == HEADERS
    must(answered, "GOAWAY: the stream is not answered")
    peer = Peer(server)
    peer.send(ask(1, "/slow?60000"))
    time.sleep(0.1)
    peer.stream.shutdown(1)
    began = time.monotonic()
    while peer.next():
        pass
    took = time.monotonic() - began
    must(took < 2, f"an end: {took:.1f} s")
    return "GOAWAY: answered" + cancelled(server)


@attack()
def fields_that_are_none_of_http2(server):
    """No service sees such a request."""
    bad = {
        "connection": [("connection", "close")],
        "transfer-encoding": [("transfer-encoding", "chunked")],
        "te": [("te", "gzip")],
        "line end": [("a", "b\r\nc: d")],
        "upper case": [("Abc", "d")],
        "host against authority": [("host", "other")],
        "two lengths": [("content-length", "1"), ("content-length", "2")],
    }
    requests = {name: block("/slow?0", extra=extra) for name, extra in bad.items()}
    requests["space in path"] = block("/slow?0 HTTP/1.1")
    requests["no path"] = hpack.Encoder().encode([(":method", "GET"), (":scheme", "http"), (":authority", "test")])
    encode = hpack.Encoder().encode
    requests["late pseudo"] = encode([("a", "b"), (":method", "GET"), (":scheme", "http"), (":path", "/slow?0")])
    how = []
    for name, head in requests.items():
        peer = Peer(server)
        peer.send(frame(HEADERS, 5, 1, head))
        got = None
        while got is None:
            came = peer.next()
            must(came, f"{name}: nothing")
            if came[0] == HEADERS:
                got = dict(hpack.Decoder().decode(came[3]))[":status"]
                must(got == "400", f"{name}: {got}")
            elif came[0] in (RST_STREAM, GOAWAY):
                got = "reset" if came[0] == RST_STREAM else "goodbye"
        how.append(f"{name}: {got}")
    begun, _ = server.counts()
    must(begun == 0, f"{begun} reached the service: {how}")
    return ", ".join(how)


@attack()
def silent_connections_and_half_a_preface_at_the_end(server):
    silent = [server.connect() for _ in range(20)]
    half = [server.connect() for _ in range(20)]
    for stream in half:
        stream.sendall(PREFACE[:10])
    time.sleep(0.1)
    took = server.stop()
    must(took < 2, f"{took:.2f} s")
    del silent
    return f"ended in {took:.2f} s (deadline 1 s)"


@attack()
def peers_that_never_answer_a_goodbye(server):
    peers = [Peer(server) for _ in range(20)]
    for number, peer in enumerate(peers):
        peer.send(ask(1, "/slow?60000" if number % 2 else "/"))
    time.sleep(0.2)
    took = server.stop()
    must(took < 2, f"{took:.2f} s")
    told = 0
    for peer in peers:
        while came := peer.next(0.2):
            told += came[0] == GOAWAY
    must(told >= 20, f"{told} goodbyes")
    return f"ended in {took:.2f} s (deadline 1 s), all were told"


#: The server ends in these, or their memory is what their services give.
ALONE = {silent_connections_and_half_a_preface_at_the_end, peers_that_never_answer_a_goodbye}


def run(program, mode, function, limits):
    server = Server(program, mode, *limits)
    try:
        server.forget_peak()
        before, good = server.status("VmRSS"), None if function in ALONE else Good(server)
        try:
            text = function(server)
        finally:
            result = good.end() if good else None
        if result:
            grown = server.status("VmHWM") - before
            errors, asked, alone, late = result
            text += f"; grown by {grown} KiB; good client: {errors} errors of {asked}, p99 {late:.1f} ms (alone {alone:.1f})"
            must(grown <= MEMORY, f"memory: {text}")
            must(errors == 0 and late <= max(LATE_MS, 4 * alone), f"the good client: {text}")
        return True, text
    except Failed as failed:
        return False, str(failed)
    finally:
        server.kill()


def main():
    program, names = sys.argv[1], sys.argv[2:]
    failed = passed = 0
    for function, limits in ATTACKS:
        if names and not any(name in function.__name__ for name in names):
            continue
        for mode in ("thread-per-core", "work-stealing"):
            passes, text = run(program, mode, function, limits)
            passed, failed = passed + passes, failed + (not passes)
            print(f"{'PASS' if passes else 'FAIL'} {mode:15} {function.__name__}: {text}", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0 or passed == 0)


if __name__ == "__main__":
    main()
