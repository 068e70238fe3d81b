"""HTTP/2 by hand, frame by frame: for peers that do what no library would."""

import re
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from tests.harness.agents import CALL_SECONDS

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
ENHANCE_YOUR_CALM = 11
_HEAD = struct.Struct(">BHBBI")
# As gRPC writes it: a literal, its value of one or two digits.
_STATUS = re.compile(rb"grpc-status[\x01\x02]([0-9]{1,2})")
Fields = Sequence[tuple[str, str]]


class Frame(NamedTuple):
    """kind: of those above. flags, stream: as on the wire."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """A frame as bytes."""
    size = len(payload)
    return _HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def block(fields: Fields) -> bytes:
    """A header block: literals that nobody indexes, without Huffman's code (RFC 7541, 6.2.2)."""
    found = bytearray()
    for name, value in fields:
        found.append(0)
        for word in (name.encode(), value.encode()):
            found += _length(len(word)) + word
    return bytes(found)


def call_fields(method: str, *more: tuple[str, str]) -> Fields:
    """The headers of a gRPC call."""
    return (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *more,
    )


def call_headers(stream: int, method: str, *more: tuple[str, str]) -> bytes:
    """HEADERS that begin a gRPC call."""
    return frame(HEADERS, block(call_fields(method, *more)), flags=END_HEADERS, stream=stream)


def message(stream: int, data: bytes = b"") -> bytes:
    """DATA that holds one message, and ends what the client says."""
    return frame(DATA, struct.pack(">BI", 0, len(data)) + data, flags=END_STREAM, stream=stream)


class Peer:
    """A connection that sends whatever it is told."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._left = b""

    def send(self, data: bytes) -> bool:
        """Send; whether the other side still takes it."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def greet(self) -> None:
        """The client's preface and SETTINGS, by which headers come as they are, not as places in a table."""
        self.send(PREFACE + frame(SETTINGS, bytes((0, 1, 0, 0, 0, 0))))

    def drop_what_came(self) -> None:
        """Read what is there, and forget it."""
        self.socket.setblocking(False)
        with suppress(OSError):
            while self.socket.recv(65536):
                pass
        self.socket.settimeout(CALL_SECONDS)

    def frames(self, seconds: float = CALL_SECONDS) -> Iterator[Frame]:
        """What comes until the other side closes; AssertionError when it does not in time."""
        due = time.monotonic() + seconds
        while True:
            while len(self._left) >= 9:
                high, low, kind, flags, stream = _HEAD.unpack_from(self._left)
                end = 9 + (high << 16) + low
                if len(self._left) < end:
                    break
                payload, self._left = self._left[9:end], self._left[end:]
                yield Frame(kind, flags, stream, payload)
            self.socket.settimeout(max(0.001, due - time.monotonic()))
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                raise AssertionError(f"the connection is open after {seconds:g} s") from None
            except OSError:
                return
            if not data:
                return
            self._left += data

    def status(self, stream: int) -> int:
        """The gRPC status that ends a call; AssertionError when the connection ends before it."""
        for got in self.frames():
            if got.kind == HEADERS and got.stream == stream and got.flags & END_STREAM:
                found = _STATUS.search(got.payload)
                assert found is not None, got.payload
                return int(found[1])
        raise AssertionError("the connection was closed")

    def farewell(self, seconds: float = CALL_SECONDS) -> tuple[int, str]:
        """Code and text of GOAWAY once the connection is closed; (-1, "") without one."""
        found = (-1, "")
        for got in self.frames(seconds):
            if got.kind == GOAWAY:
                found = (int.from_bytes(got.payload[4:8], "big"), got.payload[8:].decode())
        return found


@contextmanager
def peer_of(address: str, source: str = "127.0.0.1") -> Iterator[Peer]:
    """A connection to host:port, as yet silent. source: the host that it comes from."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), CALL_SECONDS, (source, 0)) as connection:
        yield Peer(connection)


def _length(number: int) -> bytes:
    """An integer with a prefix of seven bits (RFC 7541, 5.1)."""
    if number < 127:
        return bytes([number])
    number -= 127
    found = bytearray([127])
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)
