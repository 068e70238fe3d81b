"""New inputs out of known ones: bytes turned, moved and repeated, JSON values put in each other's place."""

import random
import re
from collections.abc import Callable, Sequence

# Larger ones find the same more slowly; limits beyond have tests of their own.
MAX_BYTES = 64 * 1024
_MAX_STEPS = 5

# What stands where a value may: after a colon, a comma or a bracket.
_VALUE = re.compile(
    rb'(?<=[\[:,{])[ \t]*("(?:[^"\\\n]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|\{[^{}\n]*\}|\[[^\[\]\n]*\])'
)
_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?")

# Values at the edges of what decoders, paths, clocks and 64 bits take.
VALUES: tuple[bytes, ...] = (
    b"null", b"true", b"false", b'""', b"[]", b"{}", b"0", b"-0", b"-0.0", b"1.0", b"-1", b"0.5",
    b"1e400", b"-1e400", b"5e-324", b"9007199254740993", b"9223372036854775807", b"9223372036854775808",
    b"18446744073709551616", b"-9223372036854775809", b"2147483648", b"4294967296", b"1" + b"0" * 5000,
    b"NaN", b"Infinity", b"1_000", b"01", b"+1", b".5", b"1.", b"0x10", b"'a'", b'"\\u0000"', b'"\\ud800"',
    b'"\\udc00\\ud800"', b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"a\\nb"', b'"\\u001b[2J"',
    b'"\x7f"', b'"../.."', b'"/"', b'"1970-01-01T00:00:00Z"', b'"9999-12-31T23:59:60Z"', b'"0000-00-00"',
    b'"2024-02-30T25:61:61Z"', b'"2024-03-11T09:00:00.999999999999+99:99"', b'"unknown"', b'"pending"',
    b'"' + b"a" * 300 + b'"', b'"\xf0\x9f\x98\x80"', b"[" * 300, b"[" * 300 + b"]" * 300,
    b'{"a":' * 260 + b"1" + b"}" * 260, b'[[],{},null,[{"a":[]}]]', b'{"a":1,"a":2}', b'{"":null}',
    b'" "', b'"0"', b'"-1"', b'"1e3"', b'"true"', b'"null"', b'"v2"',
)  # fmt: skip
_TEXTS = (b"\n", b"\r\n", b"\r", b"\0", b" ", b"\t", b"\x0b", b"\x1c", b"\xc2\x85", b"\xe2\x80\xa8",
          b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"\xff", b"\x80")  # fmt: skip

Way = Callable[[bytes, random.Random], bytes]


class Mutator:
    """Makes inputs. words: of the target, tried in any place."""

    def __init__(self, words: Sequence[bytes] = ()) -> None:
        self._words = (*_TEXTS, *words)
        # Those that keep the form of a document stand more than once: most of the others fail at its door.
        self._ways: tuple[Way, ...] = (
            *(_other_value,) * 5,
            *(_swapped_values,) * 2,
            _other_number,
            _other_number,
            _without_a_value,
            self._word_in,
            self._word_in,
            self._word_over,
            _bit,
            _byte,
            _cut,
            _cut,
            _doubled,
            _moved,
            _truncated,
            _lines,
            _lines,
        )

    def mutated(self, data: bytes, other: bytes, rng: random.Random) -> bytes:
        """An input like `data`, perhaps with a part of `other`."""
        if rng.random() < 0.1:
            data = _spliced(data, other, rng)
        for _ in range(rng.randint(1, _MAX_STEPS)):
            data = rng.choice(self._ways)(data, rng)
        return data[:MAX_BYTES]

    def _word_in(self, data: bytes, rng: random.Random) -> bytes:
        at = rng.randint(0, len(data))
        return data[:at] + rng.choice(self._words) + data[at:]

    def _word_over(self, data: bytes, rng: random.Random) -> bytes:
        at = rng.randint(0, len(data))
        word = rng.choice(self._words)
        return data[:at] + word + data[at + len(word) :]


def _other_value(data: bytes, rng: random.Random) -> bytes:
    found = _a_match(_VALUE, data, rng)
    if found is None:
        return rng.choice(VALUES)
    return data[: found.start(1)] + rng.choice(VALUES) + data[found.end(1) :]


def _swapped_values(data: bytes, rng: random.Random) -> bytes:
    """One value in the place of another one."""
    to, source = _a_match(_VALUE, data, rng), _a_match(_VALUE, data, rng)
    if to is None or source is None:
        return data
    return data[: to.start(1)] + source[1] + data[to.end(1) :]


def _without_a_value(data: bytes, rng: random.Random) -> bytes:
    found = _a_match(_VALUE, data, rng)
    return data if found is None else data[: found.start(1)] + data[found.end(1) :]


def _other_number(data: bytes, rng: random.Random) -> bytes:
    found = _a_match(_NUMBER, data, rng)
    if found is None:
        return data
    near = (
        str(int(float(found[0])) + rng.choice((-1, 1, 2, 255, -256))).encode() if len(found[0]) < 17 else b"0"
    )
    power = str(rng.choice((1, -1)) * (1 << rng.randint(0, 66))).encode()
    return data[: found.start()] + rng.choice((near, power)) + data[found.end() :]


def _a_match(pattern: re.Pattern[bytes], data: bytes, rng: random.Random) -> re.Match[bytes] | None:
    """One that is found after a place taken by chance, else the first one."""
    return pattern.search(data, rng.randint(0, len(data))) or pattern.search(data)


def _bit(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _byte(data: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.randbytes(1) + data[at + rng.randint(0, 1) :]


def _piece(data: bytes, rng: random.Random) -> tuple[int, int]:
    """A part of the input, mostly a short one."""
    start = rng.randint(0, len(data))
    most = len(data) - start
    return start, start + rng.randint(0, most if rng.random() < 0.2 else min(most, 32))


def _cut(data: bytes, rng: random.Random) -> bytes:
    start, end = _piece(data, rng)
    return data[:start] + data[end:]


def _doubled(data: bytes, rng: random.Random) -> bytes:
    start, end = _piece(data, rng)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 50)) + data[end:]


def _moved(data: bytes, rng: random.Random) -> bytes:
    start, end = _piece(data, rng)
    at = rng.randint(0, len(data))
    return data[:at] + data[start:end] + data[at:]


def _truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randint(0, len(data))]


def _lines(data: bytes, rng: random.Random) -> bytes:
    """Lines dropped, repeated or in another order."""
    lines = data.split(b"\n")
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    way = rng.randrange(3)
    if way == 0:
        del lines[at]
    elif way == 1:
        lines.insert(to, lines[at])
    else:
        lines[at], lines[to] = lines[to], lines[at]
    return b"\n".join(lines)


def _spliced(data: bytes, other: bytes, rng: random.Random) -> bytes:
    return data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]
