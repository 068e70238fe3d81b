"""Messages of WatchEvents streams as an agent would send them, and a transport that plays them."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from manager.transport import Controlled
from spritemesh import jsontext
from spritemesh.control import ControlRequest
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2, telemetry_pb2

Message = sprite_pb2.WatchEventsResponse
LOOP = "alpha"
REPO = "/repo"
TRACE = "trace-1"


class FakeLog:
    """A log of `count` event lines; `first` makes the first line, and so the lineage, its own."""

    def __init__(self, count: int, *, first: str = "loop_start", blank: Iterable[int] = ()) -> None:
        self.blank = frozenset(blank)
        self.lines = [self._line(number, first) for number in range(1, count + 1)]

    def _line(self, number: int, first: str) -> bytes:
        if number in self.blank:
            return b"\n"
        name = first if number == 1 else "role_end"
        return b'{"timestamp":"2024-03-11T09:00:00Z","event":"%s","n":%d}\n' % (name.encode(), number)

    def position(self, line: int | None = None) -> pb.LogPosition:
        line = len(self.lines) if line is None else line
        return pb.LogPosition(
            line=line,
            digest=hashlib.sha256(b"".join(self.lines[:line])).digest(),
            first_line_digest=hashlib.sha256(self.lines[0]).digest() if self.lines and line else b"",
        )

    def _message(self) -> Message:
        return Message(head=sprite_pb2.LogHead(position=self.position()))

    def opened(self, start: int = 0) -> Message:
        message = self._message()
        message.opened.start.CopyFrom(self.position(start))
        return message

    def batch(self, first: int, last: int, *, loop_id: str = LOOP) -> Message:
        message = self._message()
        message.batch.CopyFrom(
            pb.EventBatch(
                source=pb.Source(repo_path=REPO, loop_id=loop_id),
                trace_id=TRACE,
                emitted_at="2024-03-11T09:00:10Z",
                first_line=first,
                last_line=last,
                line_count=len(self.lines),
                end_digest=self.position(last).digest,
                events=[self.event(number) for number in range(first, last + 1) if number not in self.blank],
            )
        )
        return message

    def event(self, number: int) -> pb.LoopRunEvent:
        raw = self.lines[number - 1].decode().strip() or "{}"
        document = jsontext.parse(raw)
        return pb.LoopRunEvent(
            line=number,
            timestamp=document.get("timestamp", ""),
            name=document.get("event", ""),
            run_id="run-1",
            iteration=1,
            raw=raw,
        )

    def bookmark(self, line: int | None = None) -> Message:
        message = self._message()
        message.bookmark.position.CopyFrom(self.position(line))
        return message

    def invalid(self, line: int, reason: str = "invalid_json_line") -> Message:
        message = self._message()
        message.invalid_line.CopyFrom(
            sprite_pb2.InvalidLine(
                line=line, size_bytes=7, sha256=bytes([line]) * 32, reason=reason, prefix="{broken"
            )
        )
        return message

    def reset(self, reason: str, requested: int) -> Message:
        message = self._message()
        message.log_reset.reason = sprite_pb2.LogReset.Reason.Value(f"REASON_{reason.upper()}")
        message.log_reset.requested.line = requested
        return message

    def goodbye(self, reason: str = "drained_to_head") -> Message:
        message = self._message()
        message.goodbye.reason = reason
        return message

    def drained(self, start: int = 0, *, size: int = 256) -> list[Message]:
        """A whole stream from `start` to the head, in batches of `size` lines."""
        count = len(self.lines)
        batches = [self.batch(at + 1, min(at + size, count)) for at in range(start, count, size)]
        return [self.opened(start), *batches, self.bookmark(), self.goodbye()]

    def snapshot(self, *, status: str = "running", loop_id: str = LOOP) -> pb.LoopRunSnapshot:
        count = len(self.lines)
        return pb.LoopRunSnapshot(
            emitted_at="2024-03-11T09:00:10Z",
            trace_id=TRACE,
            source=pb.Source(repo_path=REPO, loop_id=loop_id),
            run=pb.Run(run_id="run-1", iteration=1, status=status),
            runtime=pb.Runtime(superloop_state=pb.JsonObject(json='{"active":true}')),
            sequence_value=count,
            cursor=pb.EnvelopeCursor(event_line_offset=count, event_line_count=count),
            health=pb.SnapshotHealth(
                event_count=count, last_event_at="2024-03-11T09:00:00Z", has_pending_approval=False
            ),
            position=self.position(),
        )


def heartbeat(
    at: float,
    *,
    boot_id: str = "boot-1",
    pid: int = 7,
    started_at: float = 1_000_000.0,
    interval: float = 5.0,
    alive: bool | None = True,
    loop: str = LOOP,
    draining: bool = False,
    resumed_at: float | None = None,
    suspended_seconds: float = 0.0,
) -> sprite_pb2.Heartbeat:
    """A heartbeat made at `at`, epoch seconds of the agent's clock. alive: of the runtime's process, which
    runs `loop`; None when there is none."""
    beat = sprite_pb2.Heartbeat(sequence=1, boot_id=boot_id, loop_id=LOOP)
    beat.sent_at.FromNanoseconds(round(at * 1e9))
    beat.granted_interval.FromMilliseconds(round(interval * 1000))
    beat.agent.pid, beat.agent.version, beat.agent.draining = pid, "1", draining
    beat.agent.started_at.FromNanoseconds(round(started_at * 1e9))
    if resumed_at is not None:
        beat.agent.resumed_at.FromNanoseconds(round(resumed_at * 1e9))
        beat.agent.suspended_for.FromMilliseconds(round(suspended_seconds * 1000))
    if alive is not None:
        beat.runtime.loop_id, beat.runtime.pid, beat.runtime.alive = loop, 99, alive
        beat.runtime.started_at.FromNanoseconds(round(started_at * 1e9))
    return beat


class ScriptedTransport:
    """Plays snapshots and streams in order; remembers where each stream was asked to start.

    An OpsError among them is raised in its place.
    """

    name = "local"

    def __init__(
        self,
        snapshots: Iterable[pb.LoopRunSnapshot | Exception],
        streams: Iterable[Iterable[Message | Exception]],
    ) -> None:
        self._snapshots = iter(snapshots)
        self._streams = iter(streams)
        self.asked: list[pb.LogPosition | None] = []
        self.closed = False

    def snapshot(
        self,
        loop_id: str,
        *,
        run_id: str = "",
        trace_id: str | None = None,
        pass_invalid_lines: bool = False,
    ) -> pb.LoopRunSnapshot:
        snapshot = next(self._snapshots)
        if isinstance(snapshot, Exception):
            raise snapshot
        return snapshot

    def events(
        self,
        loop_id: str,
        after: pb.LogPosition | None,
        *,
        follow: bool = False,
        max_events: int = 0,
        trace_id: str | None = None,
    ) -> Iterator[Message]:
        self.asked.append(after)
        for message in next(self._streams):
            if isinstance(message, Exception):
                raise message
            yield message

    def trace_mark(self, _loop_id: str) -> int | None:
        return 0

    def traces(
        self, _loop_id: str, _after: Sequence[telemetry_pb2.FilePlace], _seconds: float
    ) -> Iterator[telemetry_pb2.WatchTracesResponse]:
        raise AssertionError("there are none")

    def control(self, request: ControlRequest) -> Controlled:
        raise AssertionError("a pass only reads")

    def close(self) -> None:
        self.closed = True
