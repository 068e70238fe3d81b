"""Trace files as a tracer leaves them, and WatchTraces streams read as a careful client would."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from spritemesh import rotation
from spritemesh.jsontext import JSON
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import telemetry_pb2, telemetry_pb2_grpc
from tests.harness.agents import BEARER, CALL_SECONDS

TraceMessage = telemetry_pb2.WatchTracesResponse


def span(number: int, **members: JSON) -> bytes:
    """One line with its newline; `members` may replace or add to the usual ones."""
    line = {
        "trace_id": f"mem_1705180800_{number:012x}",
        "parent_id": None,
        "timestamp": "2026-11-21T19:37:32.123456Z",
        "hrm_layer": "memory",
        "operation": "read",
        "component": "store.py",
        "input_summary": "key",
        "output_summary": "value",
        "duration_ms": 0.125,
        "status": "success",
        "metadata": {"number": number},
    }
    return json.dumps(line | members, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def spans(first: int, last: int) -> bytes:
    """The lines of these numbers."""
    return b"".join(span(number) for number in range(first, last + 1))


class TraceFile:
    """A trace file that moves aside at `limit` bytes."""

    def __init__(self, path: Path, limit: int = 1 << 30) -> None:
        self.path = path
        self._limit = limit

    def append(self, data: bytes) -> None:
        rotation.append_lines(str(self.path), data, limit=self._limit)

    def move_aside(self, data: bytes) -> None:
        """Begin the next file with `data`, of which there is none before it is written."""
        rotation.append_lines(str(self.path), data, limit=1)

    def old(self, number: int) -> Path:
        """The path of an old file."""
        return self.path.with_name(f"{self.path.name}.{number}")


def kinds(messages: Iterable[TraceMessage]) -> list[str]:
    """The kinds of messages, in order."""
    return [message.WhichOneof("payload") or "" for message in messages]


def numbers(messages: Iterable[TraceMessage], file: str | None = None) -> list[int]:
    """The numbers of the lines, of one file or of all."""
    return [
        json.loads(line.record.json)["metadata"]["number"]
        for message in messages
        if file is None or message.file == file
        for line in message.batch.lines
    ]


def resets(messages: Iterable[TraceMessage]) -> list[int]:
    """Reasons of all LogResets."""
    return [message.log_reset.reason for message in messages if message.HasField("log_reset")]


def refused(messages: Iterable[TraceMessage]) -> list[tuple[int, str]]:
    """Number and reason of all invalid lines."""
    found = (message.invalid_line for message in messages if message.HasField("invalid_line"))
    return [(bad.line, bad.reason) for bad in found]


def check_batches(messages: Iterable[TraceMessage]) -> None:
    """Prove that the batches of each file follow each other, or begin the next one; and that whoever has only
    valid lines can compute their digests."""
    ends: dict[str, int] = {}
    digests: dict[str, Any] = {}
    for message in messages:
        if message.HasField("log_reset"):
            ends[message.file] = message.log_reset.resume.line
        if message.HasField("batch"):
            batch = message.batch
            last = ends.get(message.file)
            assert last is None or batch.first_line in {last + 1, 1}
            assert batch.last_line >= batch.first_line
            ends[message.file] = batch.last_line
            if batch.first_line == 1:
                digests[message.file] = hashlib.sha256()
            if message.file in digests and len(batch.lines) == batch.last_line - batch.first_line + 1:
                for line in batch.lines:
                    digests[message.file].update(line.record.json.encode() + b"\n")
                assert batch.end_digest == digests[message.file].digest()
            else:
                digests.pop(message.file, None)


def places(messages: Iterable[TraceMessage]) -> dict[str, pb.LogPosition]:
    """The places that a client would keep after these messages: those of the batches."""
    return {
        message.file: pb.LogPosition(
            line=message.batch.last_line,
            digest=message.batch.end_digest,
            first_line_digest=message.batch.first_line_digest,
        )
        for message in messages
        if message.HasField("batch")
    }


def watch_traces(
    stub: telemetry_pb2_grpc.TelemetryServiceStub,
    loop_id: str = "",
    after: dict[str, pb.LogPosition] | None = None,
    **members: Any,
) -> Any:
    """Open a stream."""
    request = telemetry_pb2.WatchTracesRequest(loop_id=loop_id, **members)
    for file, position in (after or {}).items():
        request.after.add(file=file, position=position)
    return stub.WatchTraces(request, metadata=BEARER, timeout=CALL_SECONDS)


def until_number(stream: Iterator[TraceMessage], number: int) -> list[TraceMessage]:
    """Messages up to the one that brings the line of that number."""
    found = []
    for message in stream:
        found.append(message)
        if number in numbers([message]):
            return found
    raise AssertionError(f"the stream ended before line {number}: {kinds(found)}")


def until_kind(stream: Iterator[TraceMessage], kind: str) -> list[TraceMessage]:
    """Messages up to the first of a kind."""
    found = []
    for message in stream:
        found.append(message)
        if message.WhichOneof("payload") == kind:
            return found
    raise AssertionError(f"the stream ended without {kind}: {kinds(found)}")
