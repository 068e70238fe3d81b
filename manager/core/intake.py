"""One reader's way through a stream of events: what is new, what is a replay, what does not fit.

Continuity is proved by the ranges of batches and the digests at their ends, never by gaps between event
numbers (architecture 6). Nothing is judged after it was overwritten: a message is accepted whole or
raises, and then the last accepted place still stands.
"""

from itertools import pairwise
from typing import NamedTuple

from manager.core.cursor import Place
from manager.core.sequence import LogChange, Numbers
from spritemesh.bridge.events import event_to_json
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.reasons import REASONS
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2

_Reason = sprite_pb2.LogReset
_VERDICTS = {
    _Reason.REASON_REPLACED: "log_replaced",
    _Reason.REASON_REWRITTEN: "log_rewritten",
    _Reason.REASON_TRUNCATED: "log_truncated",
}
_PLANNED_ENDS = frozenset({"drained_to_head", "max_events_reached"})


class BadLine(NamedTuple):
    """A complete line that is no event, as the agent told of it."""

    line: int
    size_bytes: int
    sha256: str
    reason: str
    prefix: str


class Taken(NamedTuple):
    """What an intake gathered since it was last asked. last_event: v1 envelope of the last new event, None
    when there is none. snapshot: one that holds exactly at the place reached, when the stream brought one.
    problem: reason code of why the last event cannot be told, "" when it can."""

    numbers: Numbers = Numbers()
    last_event: JSON = None
    snapshot: pb.LoopRunSnapshot | None = None
    replayed: int = 0
    bad_lines: tuple[BadLine, ...] = ()
    change: LogChange | None = None
    problem: str = ""


class Intake:
    """Takes the messages of WatchEvents streams one by one; `resume` tells where a further stream starts.

    after: place after which events are wanted. start_line: v1 offset of that place, which trailing blank
    lines keep below it. quarantine: pass lines that are no events; otherwise they raise. start_over: read a
    truncated log from its beginning, as a rewritten one; otherwise it raises.
    """

    def __init__(
        self, after: Place, *, start_line: int, quarantine: bool = False, start_over: bool = False
    ) -> None:
        self.place = after
        self.offset = start_line
        self.quarantine = quarantine
        self.start_over = start_over
        # Complete lines of the log at the last message.
        self.line_count = 0
        # Sequence values of the new events.
        self.numbers = Numbers()
        self.replayed = 0
        self.bad_lines: list[BadLine] = []
        self.change: LogChange | None = None
        # A snapshot that holds exactly at `place`, when the stream brought one.
        self.snapshot: pb.LoopRunSnapshot | None = None
        self.ended = ""
        self._opened = False
        self._pending: list[BadLine] = []
        self._last: tuple[pb.EventBatch, pb.LoopRunEvent] | None = None

    @property
    def last_event(self) -> JSON:
        """The v1 envelope of the last new event; None when there is none."""
        return None if self._last is None else event_to_json(*self._last)

    def resume(self) -> pb.LogPosition | None:
        """Where a stream has to start to go on from here; None: at the beginning."""
        place = self.place
        if not place.line:
            return None
        return pb.LogPosition(line=place.line, digest=place.digest, first_line_digest=place.first_line_digest)

    def take(self) -> Taken:
        """What was gathered, which is forgotten here."""
        last_event, problem = None, ""
        try:
            last_event = self.last_event
        except OpsError as error:
            problem = error.reason  # a peer sent as its line what is no JSON
        taken = Taken(
            self.numbers,
            last_event,
            self.snapshot,
            self.replayed,
            tuple(self.bad_lines),
            self.change,
            problem,
        )
        self.numbers, self.snapshot, self.replayed, self.change = Numbers(), None, 0, None
        self.bad_lines.clear()
        self._last = None
        return taken

    def reopen(self) -> None:
        """Expect a new stream, opened at `resume()`."""
        self._opened = False
        self.ended = ""
        self._pending.clear()

    def accept(self, message: sprite_pb2.WatchEventsResponse) -> None:
        """Take one message.

        Raises OpsError: `event_sequence_gap` (open again at `resume()`), `log_truncated`, `cursor_ahead`,
        the reason of an invalid line, the reason of an unplanned goodbye, `service_response_invalid`.
        """
        kind = message.WhichOneof("payload")
        if message.HasField("head"):
            self.line_count = message.head.position.line
        if kind == "opened":
            self._opened = True
        elif kind is None:
            raise OpsError("service_response_invalid", "the stream holds a message of unknown kind")
        elif not self._opened:
            raise OpsError("service_response_invalid", f"the stream began with {kind} instead of opened")
        elif kind == "batch":
            self._take_batch(message.batch)
        elif kind == "bookmark":
            self._take_bookmark(message.bookmark)
        elif kind == "invalid_line":
            self._hold_bad_line(message.invalid_line)
        elif kind == "log_reset":
            self._start_over(message.log_reset)
        else:
            self._end(message.goodbye.reason)
        if self.place.line and not self.place.first_line_digest:
            self._learn_first_line(message.head.position)

    def finish(self) -> None:
        """The stream ended. Raises OpsError `stream_broken` when it did so without a goodbye."""
        if not self.ended:
            raise OpsError("stream_broken", "the stream of events ended without a goodbye")

    # --- batches ------------------------------------------------------------------------------------

    def _take_batch(self, batch: pb.EventBatch) -> None:
        if not batch.end_digest:
            self._take_unproved(batch)
            return
        reached = self.place.line
        if batch.first_line > reached + 1:
            raise OpsError(
                "event_sequence_gap",
                f"expected line {reached + 1} next, but the batch covers lines {batch.first_line}"
                f" to {batch.last_line}",
            )
        if batch.last_line < batch.first_line:
            raise OpsError("service_response_invalid", "a batch ends before it begins")
        if batch.last_line <= reached:
            if batch.last_line == reached and self.place.digest not in {b"", batch.end_digest}:
                raise OpsError("service_response_invalid", f"line {reached} has two digests")
            self.replayed += len(batch.events)
            return
        self._settle_bad_lines(batch)
        events = batch.events
        lines = [event.line for event in events]
        if batch.first_line <= reached:
            lines = [line for line in lines if line > reached]
            self.replayed += len(events) - len(lines)
        if lines:
            if lines[0] < batch.first_line or lines[-1] > batch.last_line or not _count_up(lines):
                raise OpsError("service_response_invalid", "the events of a batch do not follow its range")
            self.numbers = self.numbers.then(Numbers(len(lines), 0, lines[0], lines[-1]))
            self._last = (batch, events[-1])
            self.offset = events[-1].line
        self._pass_bad_lines(batch.last_line)
        self.snapshot = None
        self.place = Place(batch.last_line, batch.end_digest, self.place.first_line_digest)

    def _take_unproved(self, batch: pb.EventBatch) -> None:
        """Events of a v1 service: nothing to prove continuity by, so every event counts (contract G.5)."""
        if batch.events:
            self.numbers = self.numbers.then(Numbers.of([event.line or None for event in batch.events]))
            self._last = (batch, batch.events[-1])
        self.snapshot = None
        if batch.last_line > self.place.line:
            self.place = Place(batch.last_line)
            self.offset = batch.last_line
        self.line_count = max(self.line_count, batch.line_count)

    def _take_bookmark(self, bookmark: sprite_pb2.Bookmark) -> None:
        position = bookmark.position
        if not position.digest:
            # A v1 service tells its offset in so many words, and that is the one to store.
            self.place = Place(position.line)
            self.offset = position.line
        elif position.line > self.place.line:
            raise OpsError(
                "event_sequence_gap",
                f"the stream is at line {position.line}, but sent no more than {self.place.line}",
            )
        elif position.line == self.place.line:
            if self.place.line and self.place.digest not in {b"", position.digest}:
                raise OpsError("service_response_invalid", f"line {position.line} has two digests")
            self.place = Place(position.line, position.digest, position.first_line_digest)
        if bookmark.HasField("snapshot") and position.line == self.place.line:
            self.snapshot = bookmark.snapshot

    def _learn_first_line(self, head: pb.LogPosition) -> None:
        if head.first_line_digest:
            self.place = self.place._replace(first_line_digest=head.first_line_digest)

    # --- lines that are no events -------------------------------------------------------------------

    def _hold_bad_line(self, found: sprite_pb2.InvalidLine) -> None:
        """Keep it until the batch that covers it: with an event limit, that batch may never come."""
        told = self._pending[-1].line if self._pending else self.place.line
        if found.line > told:
            reason = found.reason if found.reason in REASONS else "invalid_json_line"
            self._pending.append(
                BadLine(found.line, found.size_bytes, found.sha256.hex(), reason, found.prefix)
            )

    def _settle_bad_lines(self, batch: pb.EventBatch) -> None:
        """Raise for the first bad line of `batch`, unless they are passed; what precedes it counts."""
        bad = next((bad for bad in self._pending if bad.line <= batch.last_line), None)
        if bad is None or self.quarantine:
            return
        before = [event.line for event in batch.events if self.place.line < event.line < bad.line]
        self.numbers = self.numbers.then(Numbers.of(before))
        raise bad_line_error(bad)

    def _pass_bad_lines(self, last_line: int) -> None:
        while self._pending and self._pending[0].line <= last_line:
            bad = self._pending.pop(0)
            self.bad_lines.append(bad)
            self.offset = max(self.offset, bad.line)

    # --- resets and ends ----------------------------------------------------------------------------

    def _start_over(self, reset: sprite_pb2.LogReset) -> None:
        wanted = reset.requested.line
        if reset.reason == _Reason.REASON_AHEAD:
            raise OpsError(
                "cursor_ahead", f"the cursor is at line {wanted}, but the log holds {self.line_count} lines"
            )
        verdict = _VERDICTS.get(reset.reason)
        if verdict is None:
            raise OpsError("service_response_invalid", f"a log reset without a known reason: {reset.reason}")
        self.change = LogChange(verdict, wanted, self.line_count).after(self.change)
        if verdict == "log_truncated" and not self.start_over:
            raise OpsError(
                "log_truncated",
                f"the log holds {self.line_count} lines of the {wanted} that had been read",
            )
        if reset.resume.line:
            raise OpsError("service_response_invalid", "a log reset resumes elsewhere than at the beginning")
        self.place = Place()
        self.offset = 0
        self.snapshot = None
        self.numbers = Numbers()
        self._pending.clear()  # those that were passed stay: they go on record
        self._last = None

    def _end(self, reason: str) -> None:
        self.ended = reason
        if reason not in _PLANNED_ENDS:
            known = reason if reason in REASONS else "stream_broken"
            raise OpsError(known, f"the agent ended the stream: {reason or 'no reason given'}")


def _count_up(lines: list[int]) -> bool:
    """Whether each number is greater than the one before it; nearly always they are consecutive."""
    return lines == list(range(lines[0], lines[0] + len(lines))) or all(
        before < after for before, after in pairwise(lines)
    )


def bad_line_error(bad: BadLine) -> OpsError:
    """The error of a pass that may not go past `bad` (contract C.2)."""
    return OpsError(bad.reason, f"line {bad.line} of the event log is no event ({bad.size_bytes} bytes)")
