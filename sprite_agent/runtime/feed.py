"""One subscriber's way through one log: the messages of a WatchEvents stream, in order.

The gRPC service and the manager's local transport both
walk this feed, so what they say is the same by construction.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration

from sprite_agent.runtime.eventlog import Head, LogIndex
from sprite_agent.runtime.events import MAX_LINE_BYTES, fill_events
from sprite_agent.runtime.identity import Identity
from sprite_agent.runtime.lines import BATCH_BYTES, Allowance, Bad, LineWalk, Misfit, find_place
from sprite_agent.runtime.ownheartbeat import without_own
from sprite_agent.runtime.pace import Pace
from spritemesh import __version__
from spritemesh.errors import OpsError
from spritemesh.times import format_utc
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2

# Optional abilities of the agents that serve feeds, for clients that would do without them.
CAPABILITIES = ("control",)
# A log that is away for longer than a rotation takes ends a stream that follows it.
LOG_PATIENCE_SECONDS = 10.0
# Messages of one read, roughly: a log of nothing but short invalid lines would make a hundred thousand.
READ_MESSAGES = 256


class FeedOptions(NamedTuple):
    """What a subscriber was granted. max_events 0: no limit. bookmark_seconds: between idle bookmarks.
    batch_bytes: of a batch's lines, unless a single one is longer."""

    follow: bool = False
    max_events: int = 0
    trace_id: str | None = None
    bookmark_seconds: float = 5.0
    batch_bytes: int = BATCH_BYTES


class EventFeed(LineWalk[sprite_pb2.WatchEventsResponse]):
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
        allowance = Allowance(options.max_events)
        super().__init__(allowance, batch_bytes=options.batch_bytes, longest=MAX_LINE_BYTES)
        self._log = log
        self.options = options
        self._source = source
        self._snapshot = snapshot
        self._state = state
        self._marked_state: object = None
        self._pace = Pace(options.bookmark_seconds)
        self._identity = identity
        self._clock = clock
        self._sent_snapshot: bytes | None = None
        # Head and state files of the last snapshot that was made and held at the place of its bookmark.
        self._shown: tuple[Head, object] | None = None

    @property
    def finished(self) -> bool:
        """Whether max_events have been sent: nothing more will come."""
        return self._allowance.is_spent

    def open(self, after: pb.LogPosition | None) -> list[sprite_pb2.WatchEventsResponse]:
        """Opened, and a LogReset when `after` does not fit the log. Raises OpsError of LogIndex."""
        head = self._log.refresh()
        wanted = after if after is not None else pb.LogPosition()
        place, misfit = find_place(self._log, head, wanted)
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
        return list(islice(self.messages(), READ_MESSAGES))

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
            place, misfit = find_place(self._log, head, reached)
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
        self._pace.mark()
        self._marked_state = self._state()
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
        idle = self._pace.is_idle()
        message = self.bookmark()
        return message if idle or message.bookmark.HasField("snapshot") else None

    def seconds_to_bookmark(self) -> float:
        """How long until due_bookmark should be asked again, if nothing happens before."""
        return self._pace.seconds_left()

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

    # --- messages -----------------------------------------------------------------------------------

    def _new_batch(self, first_line: int) -> sprite_pb2.WatchEventsResponse:
        message = self._message()
        batch = message.batch
        batch.source.CopyFrom(self._source)
        if self.options.trace_id is not None:
            batch.trace_id = self.options.trace_id
        batch.emitted_at = format_utc(self._clock())
        batch.first_line = first_line
        batch.line_count = self._head.line
        return message

    def _fill(
        self,
        message: sprite_pb2.WatchEventsResponse,
        first_number: int,
        lines: Sequence[bytes],
        *,
        patient: bool,
    ) -> tuple[int, str | None]:
        return fill_events(message.batch.events, first_number, lines, patient=patient)

    def _close_batch(self, message: sprite_pb2.WatchEventsResponse) -> int:
        self._pace.has_news = True
        batch = message.batch
        batch.last_line = self._line
        batch.end_digest = self._hasher.digest()
        return len(batch.events)

    def _invalid(self, bad: Bad) -> sprite_pb2.WatchEventsResponse:
        message = self._message()
        message.invalid_line.CopyFrom(bad.message())
        return message

    def _reset(self, misfit: "Misfit.ValueType", wanted: pb.LogPosition) -> sprite_pb2.WatchEventsResponse:
        message = self._message()
        message.log_reset.reason = misfit
        message.log_reset.requested.CopyFrom(wanted)
        message.log_reset.resume.CopyFrom(self.position)
        return message

    def _message(self) -> sprite_pb2.WatchEventsResponse:
        message = sprite_pb2.WatchEventsResponse()
        message.head.CopyFrom(self._wire_head())
        message.sent_at.FromNanoseconds(int(self._clock() * 1e9))
        return message


def duration(seconds: float) -> Duration:
    """Seconds as a message."""
    return Duration(seconds=int(seconds), nanos=round(seconds % 1 * 1e9) % 1_000_000_000)


def _state_bytes(snapshot: pb.LoopRunSnapshot) -> bytes:
    """What must differ for a snapshot to be worth sending again."""
    compared = without_own(snapshot)
    compared.emitted_at = ""
    return compared.SerializeToString(deterministic=True)
