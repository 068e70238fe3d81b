"""One subscriber's way through one log: the messages of a WatchEvents stream, in order.

The file is the buffer. A feed holds a place and a running digest, and reads on from there when it is
asked to; nothing is queued for a slow reader. The gRPC service and the manager's local transport both
walk this feed, so what they say is the same by construction.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration

from sprite_agent.runtime.eventlog import Head, LogIndex, Place
from sprite_agent.runtime.events import MAX_LINE_BYTES, fill_events
from sprite_agent.runtime.identity import Identity
from sprite_agent.runtime.ownheartbeat import without_own
from spritemesh import __version__
from spritemesh.errors import OpsError
from spritemesh.times import format_utc
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2

# A batch holds this many events or bytes of lines, whichever comes first: smaller ones cost a tenth of
# the rate and more, larger ones gain little for the memory they hold. Over a slow way a subscriber may want
# smaller ones, to see that something comes.
BATCH_EVENTS = 256
BATCH_BYTES = 64 * 1024
MIN_BATCH_BYTES = 4 * 1024
_READ_BYTES = 256 * 1024
_PREFIX_BYTES = 256
# New lines bring a bookmark no more often than this.
_NEWS_SECONDS = 1.0
# Optional abilities of the agents that serve feeds, for clients that would do without them.
CAPABILITIES = ("control",)
# A log that is away for longer than a rotation takes ends a stream that follows it.
LOG_PATIENCE_SECONDS = 10.0
# Messages of one read, roughly: a log of nothing but short invalid lines would make a hundred thousand.
_READ_MESSAGES = 256

_Reason = sprite_pb2.LogReset.Reason


class FeedOptions(NamedTuple):
    """What a subscriber was granted. max_events 0: no limit. bookmark_seconds: between idle bookmarks.
    batch_bytes: of a batch's lines, unless a single one is longer."""

    follow: bool = False
    max_events: int = 0
    trace_id: str | None = None
    bookmark_seconds: float = 5.0
    batch_bytes: int = BATCH_BYTES


class EventFeed:
    """Reads one log from a place on.

    snapshot: makes the snapshot for a bookmark; it may raise OpsError. state: changes when a state file
    does, cheap to ask. identity: who answers. clock: seconds since 1970.
    """

    def __init__(
        self,
        log: LogIndex,
        source: pb.Source,
        options: FeedOptions,
        *,
        snapshot: Callable[[], pb.LoopRunSnapshot],
        state: Callable[[], object],
        identity: Identity,
        clock: Callable[[], float],
    ) -> None:
        self.options = options
        self._log = log
        self._source = source
        self._snapshot = snapshot
        self._state = state
        self._marked_state: object = None
        self._marked_at = 0.0
        self._unmarked = False  # whether anything was handed out since the last bookmark
        self._identity = identity
        self._clock = clock
        self._line = 0
        self._offset = 0
        self._hasher = hashlib.sha256()
        self._sent = 0
        self._told_line = 0  # the last invalid line that was told of
        self._sent_snapshot: bytes | None = None
        # Head and state files of the last snapshot that was made and held at the place of its bookmark.
        self._shown: tuple[Head, object] | None = None
        self._head = _NO_HEAD
        self._shown_head = (_NO_HEAD, log_head(_NO_HEAD))  # the head, and how it travels
        # Set when max_events have been sent: nothing more will come.
        self.finished = False
        self.is_stuck = False

    @property
    def position(self) -> pb.LogPosition:
        """The place up to which everything has been handed out."""
        return pb.LogPosition(
            line=self._line,
            digest=self._hasher.digest(),
            first_line_digest=self._head.first_line_digest if self._line else b"",
        )

    def open(self, after: pb.LogPosition | None) -> list[sprite_pb2.WatchEventsResponse]:
        """Opened, and a LogReset when `after` does not fit the log. Raises OpsError of LogIndex."""
        head = self._log.refresh()
        wanted = after if after is not None else pb.LogPosition()
        place, misfit = self._find(head, wanted)
        self._head = head
        resets = self._go_to(place, misfit, wanted)
        opened = self._message()
        opened.opened.CopyFrom(
            sprite_pb2.Opened(
                agent_version=__version__,
                boot_id=self._identity.boot_id,
                capabilities=CAPABILITIES,
                follow=self.options.follow,
                max_events=self.options.max_events,
                bookmark_interval=duration(self.options.bookmark_seconds),
                start=self.position,
                sprite_id=self._identity.sprite_id,
            )
        )
        return [opened, *resets]

    def read(self) -> list[sprite_pb2.WatchEventsResponse]:
        """The next few batches and invalid lines; none when everything has been handed out.

        A call reads about 256 KiB. Raises OpsError of LogIndex; the feed can be read on afterwards.
        """
        return list(islice(self.messages(), _READ_MESSAGES))

    def messages(self, *, patient: bool = True) -> Iterator[sprite_pb2.WatchEventsResponse]:
        """As read, but each message is made when it is asked for. It may be left half way.

        patient: False ends before a line that would take more than a few milliseconds; `is_stuck` then says
        that read() has to be called, in a thread.
        """
        self.is_stuck = False
        if self.finished:
            return
        behind = self._offset < self._head.offset
        # What another reader of this log has noticed counts too, so the head is taken over in any case.
        head = (self._log.refresh_if_idle() if behind else None) or self._log.refresh()
        if head.generation == self._head.generation:
            self._head = head
        else:
            reached = self.position
            place, misfit = self._find(head, reached)
            self._head = head
            yield from self._go_to(place, misfit, reached)
        if self._offset < self._head.offset:
            yield from self._read_block(patient)

    def take_in(self) -> None:
        """Index what was appended: is_quick then. Raises OpsError of LogIndex; may take a second a GiB."""
        self._log.refresh()

    def is_quick(self) -> bool:
        """Whether `messages(patient=False)` takes no more than a few milliseconds now."""
        return not self.is_stuck and self._log.refresh_if_quick() is not None

    def may_be_behind(self) -> bool:
        """Whether the log has changed since this feed looked; costs a stat."""
        return self._log.refresh_if_idle() != self._head

    def bookmark(self) -> sprite_pb2.WatchEventsResponse:
        """A Bookmark of the place; with the snapshot when it holds there and changed since the last one."""
        self._marked_at = time.monotonic()
        self._marked_state = self._state()
        self._unmarked = False
        shown, self._shown = self._shown, None
        message = self._message()
        message.bookmark.position.CopyFrom(self.position)
        if self._line != self._head.line:
            return message
        if shown == (self._head, self._marked_state):
            self._shown = shown
            return message
        try:
            snapshot = self._snapshot()
        except OpsError as error:
            message.bookmark.snapshot_problem = error.reason
            return message
        if snapshot.position == message.bookmark.position:
            self._shown = (self._head, self._marked_state)
            state = _state_bytes(snapshot)
            if state != self._sent_snapshot:
                self._sent_snapshot = state
                message.bookmark.snapshot.CopyFrom(snapshot)
        return message

    def is_bookmark_due(self) -> bool:
        """Whether due_bookmark may bring one; costs a few stat calls."""
        return self.seconds_to_bookmark() <= 0 or self._marked_state != self._state()

    def is_bookmark_bare(self) -> bool:
        """Whether bookmark() would bring no snapshot, and needs none to know it; costs a few stat calls."""
        return self._shown == (self._head, self._state())

    def due_bookmark(self) -> sprite_pb2.WatchEventsResponse | None:
        """The Bookmark that a follower who has everything should get now, if any.

        At the granted interval; when a state file changed; and after new lines, but then once a second at
        most: each brings a whole snapshot, since the log's digest is part of it.
        """
        if not self.is_bookmark_due():
            return None
        idle = time.monotonic() - self._marked_at >= self.options.bookmark_seconds
        message = self.bookmark()
        return message if idle or message.bookmark.HasField("snapshot") else None

    def seconds_to_bookmark(self) -> float:
        """How long until due_bookmark should be asked again, if nothing happens before."""
        pace = _NEWS_SECONDS if self._unmarked else self.options.bookmark_seconds
        return max(0.0, self._marked_at + pace - time.monotonic())

    def goodbye(self, reason: str, retry_after: float | None = None) -> sprite_pb2.WatchEventsResponse:
        """The last message of a planned end."""
        message = self._message()
        message.goodbye.reason = reason
        if retry_after is not None:
            message.goodbye.retry_after.CopyFrom(duration(retry_after))
        return message

    def end_reason(self) -> str:
        """Why a stream that does not follow ends once read() returned nothing."""
        return "max_events_reached" if self.finished else "drained_to_head"

    # --- places -------------------------------------------------------------------------------------

    def _find(self, head: Head, wanted: pb.LogPosition) -> "tuple[Place, _Reason.ValueType | None]":
        """The place to read from in the log of `head`, and why that is not `wanted` (architecture 6).

        Changes nothing, so that a log which changes meanwhile can be asked again.
        """
        start = Place(0, 0, hashlib.sha256())
        if wanted.line == 0:
            return start, None
        known_first = wanted.first_line_digest
        another = not head.line or (known_first and known_first != head.first_line_digest)
        if wanted.line > head.line:
            if not wanted.digest:
                return start, sprite_pb2.LogReset.REASON_AHEAD
            misfit = sprite_pb2.LogReset.REASON_TRUNCATED
        else:
            place = self._log.place(head, wanted.line)
            if wanted.digest in {b"", place.digest}:
                return place, None
            misfit = sprite_pb2.LogReset.REASON_REWRITTEN
        return start, sprite_pb2.LogReset.REASON_REPLACED if another else misfit

    def _go_to(
        self, place: Place, misfit: "_Reason.ValueType | None", wanted: pb.LogPosition
    ) -> list[sprite_pb2.WatchEventsResponse]:
        """Go on reading at `place`; the LogReset that tells of it when that is not where it was wanted."""
        self._line, self._offset, self._hasher = place.line, place.offset, place.hasher
        if misfit is None:
            return []
        self._told_line = 0
        message = self._message()
        message.log_reset.reason = misfit
        message.log_reset.requested.CopyFrom(wanted)
        message.log_reset.resume.CopyFrom(self.position)
        return [message]

    # --- lines --------------------------------------------------------------------------------------

    def _read_block(self, patient: bool) -> Iterator[sprite_pb2.WatchEventsResponse]:
        """Messages of the next 256 KiB or so; each is made when it is asked for."""
        available = self._head.offset - self._offset
        data = self._log.read(self._head, self._offset, min(available, _READ_BYTES))
        is_last = len(data) == available
        most_bytes = self.options.batch_bytes
        position = 0
        while position < len(data) and not self.finished:
            if position and not is_last and len(data) - position < most_bytes:
                return  # a batch cut short here would be small: the next block begins with it
            end = data.rfind(b"\n", position, position + most_bytes) + 1
            if not end:
                end = data.find(b"\n", position) + 1
            if not end:
                if position == 0:
                    self.is_stuck = not patient
                    if patient:
                        yield from self._read_long_line()
                return
            most = BATCH_EVENTS
            if self.options.max_events:
                most = min(most, self.options.max_events - self._sent)
            lines = data[position : end - 1].split(b"\n", most)
            if len(lines) > most:
                end -= len(lines.pop()) + 1
            yield from self._read_lines(lines, memoryview(data)[position:end], patient)
            if self.is_stuck:
                return
            position = end

    def _read_lines(
        self, lines: list[bytes], data: memoryview, patient: bool
    ) -> Iterator[sprite_pb2.WatchEventsResponse]:
        """A batch of `lines`, and one more from each line on that is no event. data: their bytes on disk."""
        told = 0  # 1: the batch begins with an invalid line that has been told of
        while lines:
            first = self._line + 1
            message, batch = self._new_batch(first)
            rest = lines[told:] if told else lines
            taken, reason = fill_events(batch.events, first + told, rest, patient=patient)
            taken += told
            if taken:
                size = len(data) if taken == len(lines) else sum(map(len, lines[:taken])) + taken
                self._sent += len(batch.events)
                self.finished = self._sent == self.options.max_events != 0
                yield self._close_batch(message, first + taken - 1, data[:size])
                lines, data = lines[taken:], data[size:]
            if reason is None:
                self.is_stuck = True
                return
            told = 1 if reason else 0
            if reason and self._line + 1 > self._told_line:
                self._told_line = self._line + 1
                yield self._invalid_line(self._told_line, lines[0], reason)

    def _new_batch(self, first_line: int) -> tuple[sprite_pb2.WatchEventsResponse, pb.EventBatch]:
        message = self._message()
        batch = message.batch
        batch.source.CopyFrom(self._source)
        if self.options.trace_id is not None:
            batch.trace_id = self.options.trace_id
        batch.emitted_at = format_utc(self._clock())
        batch.first_line = first_line
        batch.line_count = self._head.line
        return message, batch

    def _close_batch(
        self, message: sprite_pb2.WatchEventsResponse, last_line: int, lines: memoryview
    ) -> sprite_pb2.WatchEventsResponse:
        self._hasher.update(lines)
        self._offset += len(lines)
        self._line = last_line
        self._unmarked = True
        message.batch.last_line = last_line
        message.batch.end_digest = self._hasher.digest()
        return message

    def _invalid_line(self, number: int, line: bytes, reason: str) -> sprite_pb2.WatchEventsResponse:
        return self._invalid(number, len(line), hashlib.sha256(line).digest(), reason, line[:_PREFIX_BYTES])

    def _invalid(
        self, number: int, size: int, digest: bytes, reason: str, prefix: bytes
    ) -> sprite_pb2.WatchEventsResponse:
        message = self._message()
        message.invalid_line.CopyFrom(
            sprite_pb2.InvalidLine(
                line=number,
                size_bytes=size,
                sha256=digest,
                reason=reason,
                prefix=prefix.decode("utf-8", "replace"),
            )
        )
        return message

    def _read_long_line(self) -> Iterator[sprite_pb2.WatchEventsResponse]:
        """A line that is longer than a block; one over the limit is passed without ever holding it whole."""
        data = self._log.read(self._head, self._offset, MAX_LINE_BYTES + 1)
        end = data.find(b"\n") + 1
        if end:
            yield from self._read_lines([data[: end - 1]], memoryview(data)[:end], True)
            return
        number = self._line + 1
        offset = self._offset
        digest = hashlib.sha256()
        hasher = self._hasher.copy()  # the line may prove to be cut off half way
        prefix = b""
        while True:
            block = self._log.read(self._head, offset, _READ_BYTES)
            if not block:
                raise OpsError("log_unavailable", f"{self._log.path} shrank while it was read", retry_after=1)
            prefix = prefix or block[:_PREFIX_BYTES]
            end = block.find(b"\n") + 1
            taken = block[:end] if end else block
            digest.update(taken[:-1] if end else taken)
            hasher.update(taken)
            offset += len(taken)
            if end:
                break
        size = offset - self._offset - 1
        if number > self._told_line:
            self._told_line = number
            yield self._invalid(number, size, digest.digest(), "line_too_long", prefix)
        message, _ = self._new_batch(number)
        self._offset, self._hasher = offset, hasher
        yield self._close_batch(message, number, memoryview(b""))

    # --- messages -----------------------------------------------------------------------------------

    def _message(self) -> sprite_pb2.WatchEventsResponse:
        message = sprite_pb2.WatchEventsResponse()
        if self._head is not self._shown_head[0]:
            self._shown_head = (self._head, log_head(self._head))
        message.head.CopyFrom(self._shown_head[1])
        message.sent_at.FromNanoseconds(int(self._clock() * 1e9))
        return message


def log_head(head: Head) -> sprite_pb2.LogHead:
    """A Head as it travels."""
    return sprite_pb2.LogHead(
        position=pb.LogPosition(line=head.line, digest=head.digest, first_line_digest=head.first_line_digest),
        size_bytes=head.size,
        torn_tail_bytes=head.size - head.offset,
    )


def grant_batch_bytes(wanted: int) -> int:
    """The size of batches that is granted for a wanted one; 0: as large as they get."""
    return min(max(wanted, MIN_BATCH_BYTES), BATCH_BYTES) if wanted else BATCH_BYTES


def duration(seconds: float) -> Duration:
    """Seconds as a message."""
    return Duration(seconds=int(seconds), nanos=round(seconds % 1 * 1e9) % 1_000_000_000)


def _state_bytes(snapshot: pb.LoopRunSnapshot) -> bytes:
    """What must differ for a snapshot to be worth sending again."""
    compared = without_own(snapshot)
    compared.emitted_at = ""
    return compared.SerializeToString(deterministic=True)


_NO_HEAD = Head(0, 0, 0, 0, 0, hashlib.sha256().digest(), b"", hashlib.sha256().hexdigest())
