"""Bytes on the socket of the HTTP bridge: whole requests, broken ones, several at once.

Whatever comes, each answer is HTTP with a status that the description has, JSON with its length, and the
header by which an agent is known; a connection that is not answered is closed. The agent lives on.
"""

import json
import re
import socket
import zlib
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h11

from sprite_agent.http.description import description
from spritemesh.names import AGENT_HEADER
from tests.fuzz.checks import check_reason
from tests.fuzz.driver import Run, Target
from tests.fuzz.fixtures import fuzzed_agent

_WORDS = (
    b"GET ", b"POST ", b"HEAD ", b"PUT ", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/2.0\r\n", b"\r\n\r\n",
    b"/healthz", b"/ops/snapshot?loopId=alpha", b"/ops/events?loopId=", b"/ops/control", b"/openapi.json",
    b"http://s/", b"//", b"/..", b"%00", b"%2e%2e%2f", b"%zz", b"%ff", b"?", b"&", b"#", b"*",
    b"loopId=alpha", b"cursor=", b"maxEvents=", b"Host: s\r\n", b"Content-Length: 2\r\n",
    b"Content-Length: +2\r\n",
    b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"Connection: keep-alive\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"Expect: 100-continue\r\n",
    b"X-Ops-Token: token-of-the-tests\r\n", b"X-Trace-Id: ", b"traceparent: ", b"X-Idempotency-Key: k\r\n",
    b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01",
    b"X: " + b"a" * 40000 + b"\r\n", b"\r\n folded\r\n", b"bad name: x\r\n", b": x\r\n",
)  # fmt: skip
# An agent answers in milliseconds; a body that does not come has 2 s, and nothing is longer unanswered.
_SECONDS = 8.0
_MAX_ANSWERS = 100
_LENGTH = re.compile(rb"(?i)(\r\nContent-Length: )[0-9]+")
_FINER = re.compile(r" \[([a-z0-9_]+)\]$")


def statuses() -> frozenset[int]:
    """All that the description has."""
    return frozenset(
        int(status)
        for path in description()["paths"].values()
        for operation in path.values()
        for status in operation["responses"]
    )


class _Wire:
    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._place = (host, int(port))
        self._statuses = statuses()

    def run(self, data: bytes) -> Iterator[Hashable]:
        if zlib.crc32(data) % 2:
            data = _with_length(data)
        received = b""
        with socket.create_connection(self._place, _SECONDS) as wire, suppress(ConnectionError):
            wire.sendall(data)
            if not _is_whole(data):
                wire.shutdown(socket.SHUT_WR)  # nothing more will come
            while piece := wire.recv(65536):
                received += piece
                if _answers_whole(received):
                    with suppress(OSError):
                        wire.shutdown(socket.SHUT_WR)
        yield from self._checked(received)

    def _checked(self, received: bytes) -> Iterator[Hashable]:
        for _ in range(_MAX_ANSWERS):
            if not received:
                return
            head, end, rest = received.partition(b"\r\n\r\n")
            if not end:
                return  # the connection was reset in the middle
            first, *lines = head.decode("ascii").split("\r\n")
            version, status = first.split(" ")[:2]
            assert version == "HTTP/1.1", first
            if status == "100":
                received = rest
                continue
            assert int(status) in self._statuses, f"{status} is not described"
            headers = dict(line.lower().split(": ", 1) for line in lines)
            assert AGENT_HEADER.lower() in headers, "not known as an agent's"
            assert headers["content-type"] == "application/json"
            size = int(headers["content-length"])
            # An answer to HEAD has no body, and what follows is another answer or nothing.
            body = b"" if not rest or rest.startswith(b"HTTP/1.1 ") else rest[:size]
            received = rest[len(body) :]
            yield int(status), *(_told(body) if len(body) == size else ())


def _told(body: bytes) -> tuple[str, ...]:
    """Code and finer reason of an answer that is an error; the latter is of the table."""
    assert body.isascii()
    error = json.loads(body).get("error")
    if error is None:
        return ()
    code, finer = error["code"], _FINER.search(error["message"])
    assert code not in {"agent_fault", "internal_error"}, error
    if finer is None:
        return (code,)
    check_reason(finer[1])
    return code, finer[1]


def _with_length(data: bytes) -> bytes:
    """The input with its first Content-Length put right: else few bodies would be read at all."""
    head, end, body = data.partition(b"\r\n\r\n")
    return _LENGTH.sub(rb"\g<1>%d" % len(body), head, count=1) + end + body


def _is_whole(data: bytes) -> bool:
    """Whether the first request is complete, so that an answer can be waited for."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                return False
            if event is h11.PAUSED or isinstance(event, h11.EndOfMessage):
                return True
    except h11.RemoteProtocolError:
        return True


def _answers_whole(received: bytes) -> bool:
    """Whether no answer is in the middle of its head or body."""
    head, end, rest = received.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 100"):
        head, end, rest = rest.partition(b"\r\n\r\n")
    if not end:
        return False
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return not rest or len(rest) >= int(value)
    return True


@contextmanager
def _opened(directory: Path) -> Iterator[Run]:
    with fuzzed_agent(directory) as fuzzed:
        wire = _Wire(str(fuzzed.agent.ready["http"]))

        def run(data: bytes) -> Iterator[Hashable]:
            yield from wire.run(data)
            fuzzed.check()

        yield run


TARGET = Target("bridge", _opened, _WORDS, in_process=False)
