"""Reading WatchEvents streams as a careful client would: every claim of a message is checked."""

import hashlib
from collections.abc import Iterable, Iterator

import grpc

from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc
from tests.harness.agents import BEARER, CALL_SECONDS, Message

Reset = sprite_pb2.LogReset


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
    stub: sprite_pb2_grpc.SpriteServiceStub, loop_id: str, seconds: float = CALL_SECONDS, **members: object
) -> "grpc.CallIterator[Message]":
    """Open a stream; the call ends with DEADLINE_EXCEEDED after `seconds`."""
    request = sprite_pb2.WatchEventsRequest(loop_id=loop_id, **members)  # type: ignore[arg-type]
    return stub.WatchEvents(request, metadata=BEARER, timeout=seconds)


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


def _split(data: bytes) -> list[bytes]:
    """Lines with their newlines; only b"\\n" ends a line."""
    pieces = data.split(b"\n")
    return [piece + b"\n" for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])
