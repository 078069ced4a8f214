"""Asks two other parsers, h11 and llhttp, where the requests end that the server accepts, and says where they differ.

    python3 -m venv target/agree && target/agree/bin/pip install h11 httptools
    target/agree/bin/python tests/http1/agree.py

Every request of a case that has its end marked is fed to each parser byte by byte. It must be complete with the byte at its
mark, and not before. Where a parser is known to see it otherwise the case says so and why (`differs PARSER why`), and this
program checks that it still does. The README beside it says how a case is written.
"""

import pathlib
import sys

import h11
import httptools

ESCAPES = {"r": 13, "n": 10, "t": 9, "0": 0, "\\": 92}


def unescape(text):
    """The bytes that a text with backslashes stands for."""
    out = bytearray()
    raw = text.encode()
    at = 0
    while at < len(raw):
        if raw[at] != 92:
            out.append(raw[at])
            at += 1
        elif raw[at + 1 : at + 2] == b"x":
            out.append(int(raw[at + 2 : at + 4], 16))
            at += 4
        else:
            out.append(ESCAPES[chr(raw[at + 1])])
            at += 2
    return bytes(out)


class Case:
    """What is sent, where its requests end, and who sees that otherwise."""

    def __init__(self, name):
        self.name = name
        self.raw = bytearray()
        self.ends = []
        self.differs = {}

    def take(self, line):
        """Takes one line of the table; what is for the server's test alone is left out."""
        word, _, rest = line.partition(" ")
        if word == ">":
            self.raw += unescape(rest) + b"\r\n"
        elif word == "+":
            self.raw += unescape(rest)
        elif word == "*":
            times, _, text = rest.partition(" ")
            self.raw += unescape(text) * int(times)
        elif word == "*.":
            times, _, text = rest.partition(" ")
            for _ in range(int(times)):
                self.raw += unescape(text)
                self.ends.append(len(self.raw))
        elif word == ".":
            self.ends.append(len(self.raw))
        elif word == "differs":
            parser, _, reason = rest.partition(" ")
            self.differs[parser] = reason


def read(path):
    """The cases of one file."""
    cases = []
    # Not by splitlines(): it takes other characters for line ends too.
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.startswith("[") and line.endswith("]"):
            cases.append(Case(f"{path.stem}/{line[1:-1]}"))
        elif line and not line.startswith("#"):
            cases[-1].take(line)
    return cases


def steps(case):
    """Pieces that come to every byte before and at a mark; long stretches between are fed at once."""
    raw, at = bytes(case.raw[: case.ends[-1]]), 0
    stops = sorted({stop for end in case.ends for stop in range(max(0, end - 200), end + 1)})
    for stop in stops if len(raw) > 5000 else range(1, len(raw) + 1):
        if stop > at:
            yield raw[at:stop]
            at = stop


def ends_of_h11(case):
    """Where h11 sees requests end; what it says if it refuses."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 22)
    ends, fed = [], 0
    for piece in steps(case):
        fed += len(piece)
        try:
            server.receive_data(piece)
            event = server.next_event()
            while event not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.EndOfMessage):
                    # At its mark this is nothing.
                    ends.append(fed - len(server.trailing_data[0]))
                    # A status that grants no tunnel.
                    server.send(h11.Response(status_code=405, headers=[("Content-Length", "0")]))
                    server.send(h11.EndOfMessage())
                    if len(ends) < len(case.ends):
                        server.start_next_cycle()
                event = server.next_event() if server.their_state is not h11.DONE else h11.PAUSED
        except (h11.RemoteProtocolError, h11.LocalProtocolError) as error:
            return ends, f"{type(error).__name__}: {error}"
        if len(ends) == len(case.ends):
            break
    return ends, None


class Completed:
    """Told by llhttp when a request is complete."""

    def __init__(self):
        self.count = 0

    def on_message_complete(self):
        """One more."""
        self.count += 1


def ends_of_llhttp(case):
    """Where llhttp sees requests end; what it says if it refuses."""
    told, ends, fed = Completed(), [], 0
    parser = httptools.HttpRequestParser(told)
    for piece in steps(case):
        fed += len(piece)
        try:
            parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            ends += [fed] * (told.count - len(ends))
            return ends, None if len(ends) == len(case.ends) else f"upgrade at {upgrade}"
        except httptools.HttpParserError as error:
            return ends, f"{type(error).__name__}: {error}"
        ends += [fed] * (told.count - len(ends))
    return ends, None


PARSERS = {"h11": ends_of_h11, "llhttp": ends_of_llhttp}


def main():
    """Compares all cases and says what is not as the table has it."""
    wrong, compared, explained = [], 0, []
    for path in sorted(pathlib.Path(__file__).parent.glob("*.cases")):
        for case in read(path):
            wrong += [f"{case.name}: there is no parser {name}" for name in case.differs if name not in PARSERS]
            if not case.ends:
                continue
            for name, ends_of in PARSERS.items():
                compared += 1
                ends, refused = ends_of(case)
                agrees = ends == case.ends and refused is None
                reason = case.differs.get(name)
                if agrees and reason:
                    wrong.append(f"{case.name}: {name} does not differ any more: {reason}")
                elif not agrees and reason:
                    explained.append(f"{case.name}: {name}: {reason}")
                elif not agrees:
                    seen, marks = ends[:4], case.ends[:4]
                    wrong.append(f"{case.name}: {name} sees {len(ends)} ends {seen}, not {marks}; {refused}")
    print("\n".join(explained))
    print(f"{compared} comparisons, {len(explained)} differences that the table explains, {len(wrong)} that it does not")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
