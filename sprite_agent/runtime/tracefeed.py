"""One subscriber's way through the trace files of a sprite: the messages of a WatchTraces stream, in order.

Each file has a place of its own, and is asked for a block in turn, so that a file that is written without a
pause keeps none of the others waiting. What befalls one file (it is missing, cannot be read, became another)
is no matter of the others.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from sprite_agent.runtime.feed import READ_MESSAGES, duration
from sprite_agent.runtime.generations import RotatedLog
from sprite_agent.runtime.identity import Identity
from sprite_agent.runtime.lines import BATCH_BYTES, Allowance
from sprite_agent.runtime.pace import Pace
from sprite_agent.runtime.tracewalk import TraceWalk
from spritemesh import __version__
from spritemesh.errors import OpsError
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import telemetry_pb2

_Message = telemetry_pb2.WatchTracesResponse


class TraceOptions(NamedTuple):
    """What a subscriber was granted. max_lines 0: no limit. bookmark_seconds: between idle bookmarks.
    batch_bytes: of a batch's lines, unless a single one is longer."""

    follow: bool = False
    max_lines: int = 0
    bookmark_seconds: float = 5.0
    batch_bytes: int = BATCH_BYTES


class TraceFeed:
    """Reads files from places on. files: by the names that subscribers know. after: places by these names;
    those of other names are passed over. identity: who answers. clock: seconds since 1970."""

    def __init__(
        self,
        files: Mapping[str, RotatedLog],
        after: Mapping[str, pb.LogPosition],
        options: TraceOptions,
        *,
        identity: Identity,
        clock: Callable[[], float],
    ) -> None:
        self.options = options
        self._identity = identity
        self._clock = clock
        self._allowance = Allowance(options.max_lines)
        self._walks: list[TraceWalk] = []
        # First the names under which the subscriber has read: of two names of one file, the first counts.
        for name in sorted(files, key=lambda name: name not in after):
            self._walks.append(
                TraceWalk(
                    name,
                    files[name],
                    after.get(name, pb.LogPosition()),
                    self._allowance,
                    self._walks,
                    batch_bytes=options.batch_bytes,
                    clock=clock,
                )
            )
        self._turn = 0
        self._pace = Pace(options.bookmark_seconds)
        self.is_stuck = False

    @property
    def finished(self) -> bool:
        """Whether max_lines have been sent: nothing more will come."""
        return self._allowance.is_spent

    def open(self) -> list[_Message]:
        """TraceOpened. What does not fit is told by what is read afterwards."""
        self.take_in()
        opened = telemetry_pb2.TraceOpened(
            agent_version=__version__,
            boot_id=self._identity.boot_id,
            follow=self.options.follow,
            max_lines=self.options.max_lines,
            bookmark_interval=duration(self.options.bookmark_seconds),
            start=[
                telemetry_pb2.FilePlace(file=walk.name, position=walk.position)
                for walk in self._walks
                if walk.is_found
            ],
        )
        return [self._message(opened=opened)]

    def read(self) -> list[_Message]:
        """The next few batches and invalid lines; none when everything has been handed out.

        A call reads about 256 KiB of each file, and raises nothing.
        """
        return list(islice(self.messages(), READ_MESSAGES))

    def messages(self, *, patient: bool = True) -> Iterator[_Message]:
        """As read, but each message is made when it is asked for. It may be left half way. patient,
        `is_stuck`: as for EventFeed."""
        self.is_stuck = False
        first = self._turn
        self._turn = (first + 1) % len(self._walks)  # whoever comes first comes last the next time
        for walk in (*self._walks[first:], *self._walks[:first]):
            if self.finished:
                return
            try:
                for message in walk.messages(patient=patient):
                    self._pace.has_news = True
                    yield message
            except OpsError as error:
                walk.failed(error)
            self.is_stuck = self.is_stuck or walk.is_stuck

    def take_in(self) -> None:
        """Index what was appended: is_quick then. May take a second a GiB."""
        for walk in self._walks:
            try:
                walk.take_in()
            except OpsError as error:
                walk.failed(error)

    def is_quick(self) -> bool:
        """Whether `messages(patient=False)` takes no more than a few milliseconds now."""
        return not self.is_stuck and all(walk.is_quick() for walk in self._walks)

    def may_be_behind(self) -> bool:
        """Whether a file has changed since this feed looked; costs two stat calls for each."""
        return any(walk.may_be_behind() for walk in self._walks)

    def bookmark(self) -> _Message:
        """A TraceBookmark: the places reached. A file of which nothing was read has none."""
        self._pace.mark()
        found = ((walk.name, walk.place) for walk in self._walks)
        places = [telemetry_pb2.FilePlace(file=name, position=place) for name, place in found if place]
        return self._message(bookmark=telemetry_pb2.TraceBookmark(places=places))

    def is_bookmark_due(self) -> bool:
        """Whether due_bookmark brings one."""
        return self.seconds_to_bookmark() <= 0

    def is_bookmark_bare(self) -> bool:
        """Whether bookmark() reads no file: it never does."""
        return True

    def due_bookmark(self) -> _Message | None:
        """The bookmark that a follower who has everything should get now, if any: at the granted interval,
        and a second after lines."""
        return self.bookmark() if self.is_bookmark_due() else None

    def seconds_to_bookmark(self) -> float:
        """How long until due_bookmark should be asked again, if nothing happens before."""
        return self._pace.seconds_left()

    def goodbye(self, reason: str, retry_after: float | None = None) -> _Message:
        """The last message of a planned end."""
        message = self._message()
        message.goodbye.reason = reason
        if retry_after is not None:
            message.goodbye.retry_after.CopyFrom(duration(retry_after))
        return message

    def end_reason(self) -> str:
        """Why a stream that does not follow ends once read() returned nothing."""
        return "max_lines_reached" if self.finished else "drained_to_head"

    def _message(
        self,
        *,
        opened: telemetry_pb2.TraceOpened | None = None,
        bookmark: telemetry_pb2.TraceBookmark | None = None,
    ) -> _Message:
        message = _Message(opened=opened, bookmark=bookmark)
        message.sent_at.FromNanoseconds(int(self._clock() * 1e9))
        return message
