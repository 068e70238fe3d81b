"""Reading WatchEvents streams as a careful client would: every claim of a message is checked."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import grpc

from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc
from tests.harness.agents import BEARER, CALL_SECONDS, Message

Reset = sprite_pb2.LogReset


class EventStream(Protocol):
    """An open call of WatchEvents."""

    def __iter__(self) -> Iterator[Message]: ...

    def __next__(self) -> Message: ...

    def cancel(self) -> bool: ...

    def is_active(self) -> bool: ...

    def code(self) -> grpc.StatusCode: ...


def kinds(messages: Iterable[Message]) -> list[str]:
    """The kinds of messages, in order."""
    return [message.WhichOneof("payload") or "" for message in messages]


def raw_events(messages: Iterable[Message]) -> list[tuple[int, str]]:
    """Number and text of every event."""
    return [(event.line, event.raw) for message in messages for event in message.batch.events]


def place(data: bytes, line: int | None = None) -> pb.LogPosition:
    """The position after `line` complete lines of a log with this content; all of them when None."""
    complete = [item for item in _split(data) if item.endswith(b"\n")][:line]
    return pb.LogPosition(
        line=len(complete),
        digest=hashlib.sha256(b"".join(complete)).digest(),
        first_line_digest=hashlib.sha256(complete[0]).digest() if complete else b"",
    )


def check_stream(messages: list[Message], data: bytes, start: int = 0) -> None:
    """Prove that batches cover the lines of `data` after `start` without gap, with true digests.

    The last batch may end before the log does. An invalid line precedes the batch that covers it.
    """
    complete = [line for line in _split(data) if line.endswith(b"\n")]
    covered, told = start, 0
    for message in messages:
        kind = message.WhichOneof("payload")
        if kind == "invalid_line":
            told = message.invalid_line.line
            line = complete[told - 1][:-1]
            assert told > covered
            assert message.invalid_line.size_bytes == len(line)
            assert message.invalid_line.sha256 == hashlib.sha256(line).digest()
            assert line.decode("utf-8", "replace").startswith(message.invalid_line.prefix.rstrip("\ufffd"))
        elif kind == "batch":
            batch = message.batch
            assert batch.first_line == covered + 1
            assert batch.last_line >= batch.first_line
            assert told <= batch.last_line
            digest = hashlib.sha256(b"".join(complete[: batch.last_line])).digest()
            assert batch.end_digest == digest
            numbers = [event.line for event in batch.events]
            assert numbers == sorted(set(numbers))
            assert all(batch.first_line <= number <= batch.last_line for number in numbers)
            covered = batch.last_line
        elif kind == "bookmark":
            assert message.bookmark.position == place(data, covered)


def watch(
    stub: sprite_pb2_grpc.SpriteServiceStub, loop_id: str, seconds: float = CALL_SECONDS, **members: Any
) -> EventStream:
    """Open a stream; the call ends with DEADLINE_EXCEEDED after `seconds`."""
    request = sprite_pb2.WatchEventsRequest(loop_id=loop_id, **members)
    return stub.WatchEvents(request, metadata=BEARER, timeout=seconds)


def raw_call(channel: grpc.Channel, method: str, *, stream: bool = False) -> Any:
    """A call of a method by its path, which sends and receives bytes as they are."""
    return channel.unary_stream(method) if stream else channel.unary_unary(method)


class StalledReader:
    """A stream of the loop alpha whose reader takes the first message, and then stands still.

    Like a manager it has a small window, so that the agent soon has to stand still, too.
    """

    def __init__(self, address: str, *, follow: bool = False) -> None:
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0))
        self.channel = grpc.insecure_channel(address, options=options)
        request = sprite_pb2.WatchEventsRequest(loop_id="alpha", follow=follow)
        method = raw_call(self.channel, "/superloop.ops.v1.SpriteService/WatchEvents", stream=True)
        self.call = method(request.SerializeToString(), metadata=BEARER)
        next(self.call)

    def close(self) -> None:
        self.call.cancel()
        self.channel.close()


def until(stream: Iterator[Message], *wanted: str) -> list[Message]:
    """Messages up to and including the first of a wanted kind."""
    found = []
    for message in stream:
        found.append(message)
        if message.WhichOneof("payload") in wanted:
            return found
    raise AssertionError(f"the stream ended without {' or '.join(wanted)}: {kinds(found)}")


def until_line(stream: Iterator[Message], line: int) -> list[Message]:
    """Messages up to the batch that covers `line`."""
    found = []
    for message in stream:
        found.append(message)
        if message.batch.last_line >= line:
            return found
    raise AssertionError(f"the stream ended before line {line}: {kinds(found)}")


def until_end_of(stream: Iterator[Message], data: bytes) -> list[Message]:
    """Messages up to the batch that ends where a log with this content does."""
    digest = place(data).digest
    found = []
    for message in stream:
        found.append(message)
        if message.batch.end_digest == digest:
            return found
    raise AssertionError(f"the stream ended before the log did: {kinds(found)}")


def _split(data: bytes) -> list[bytes]:
    """Lines with their newlines; only b"\\n" ends a line."""
    pieces = data.split(b"\n")
    return [piece + b"\n" for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])
