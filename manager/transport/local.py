"""A sprite agent without the wire: the same reader, in this process."""

from collections.abc import Iterator, Sequence
from time import time
from typing import TYPE_CHECKING

from manager.transport.base import Controlled, Retry, Runtime
from sprite_agent.runtime.feed import LOG_PATIENCE_SECONDS, EventFeed, FeedOptions
from sprite_agent.runtime.loop import LoopReader
from sprite_agent.runtime.repository import Repository
from spritemesh.errors import OpsError
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2

if TYPE_CHECKING:
    from sprite_agent.control import ControlPlane
    from spritemesh.control import ControlRequest
    from superloop.ops.v1 import telemetry_pb2


class LocalTransport:
    """Reads the loops of a repository on this machine, and runs its runtime to step in.

    retry: what rows say of it; here nothing is tried again.
    """

    name = "local"

    def __init__(self, repo: str, runtime: Runtime | None = None, retry: Retry | None = None) -> None:
        self._repository = Repository(repo)
        self._retry = retry or Retry()
        self._runtime = runtime or Runtime()
        self._plane: ControlPlane | None = None
        self._timed = 0.0

    def snapshot(
        self,
        loop_id: str,
        *,
        run_id: str = "",
        trace_id: str | None = None,
        pass_invalid_lines: bool = False,
    ) -> pb.LoopRunSnapshot:
        reader = self._repository.loop(loop_id)
        return reader.snapshot(run_id=run_id, trace_id=trace_id, pass_invalid_lines=pass_invalid_lines)

    def events(
        self,
        loop_id: str,
        after: pb.LogPosition | None,
        *,
        follow: bool = False,
        max_events: int = 0,
        trace_id: str | None = None,
    ) -> Iterator[sprite_pb2.WatchEventsResponse]:
        reader = self._repository.loop(loop_id)
        reader.head()  # the better error when the whole loop is missing
        feed = reader.feed(FeedOptions(follow=follow, max_events=max_events, trace_id=trace_id))
        yield from feed.open(after)
        while messages := feed.read():
            yield from messages
        yield feed.bookmark()
        if follow and not feed.finished:
            yield from _follow(reader, feed)
            yield feed.bookmark()
        yield feed.goodbye(feed.end_reason())

    def trace_mark(self, loop_id: str) -> int | None:
        from sprite_agent.runtime.tracemark import trace_mark

        return trace_mark(self._repository.path, loop_id)

    def traces(
        self, loop_id: str, after: "Sequence[telemetry_pb2.FilePlace]", _seconds: float
    ) -> "Iterator[telemetry_pb2.WatchTracesResponse]":
        # Late: most repositories have no trace files.
        from sprite_agent.runtime.tracefeed import TraceFeed, TraceOptions
        from sprite_agent.runtime.tracelogs import TraceLogs

        places = {found.file: found.position for found in after}
        with TraceLogs(self._repository.path).opened(loop_id) as files:
            feed = TraceFeed(files, places, TraceOptions(), identity=self._repository.identity, clock=time)
            yield from feed.open()
            while messages := feed.read():
                yield from messages
            yield feed.bookmark()
            yield feed.goodbye(feed.end_reason())

    def control(self, request: "ControlRequest") -> Controlled:
        # Late: most commands only read.
        from sprite_agent.connected import local_user
        from sprite_agent.control import Caller, ControlPlane
        from spritemesh.bridge.told import told_by_outcome

        if self._plane is None:
            command, seconds = self._runtime
            self._plane = ControlPlane(
                self._repository, runtime=command, runtime_timeout=seconds, clock=self._clock
            )
        caller = Caller(
            transport=self.name,
            retry_attempts=self._retry.attempts,
            retry_backoff_seconds=int(self._retry.backoff_seconds),
            audit_replays=True,
            provenance=local_user(),
        )
        outcome = self._plane.execute(request, caller)
        # The last thing that is timed is when it was put on record.
        return Controlled(told_by_outcome(outcome), outcome, recorded_at=self._timed)

    def _clock(self) -> float:
        self._timed = time()
        return self._timed

    def close(self) -> None:
        if self._plane is not None:
            self._plane.close()
        self._repository.close()


def _follow(reader: LoopReader, feed: EventFeed) -> Iterator[sprite_pb2.WatchEventsResponse]:
    """What is appended from now on, until the event limit; bookmarks as from an agent."""
    from select import select
    from time import monotonic

    from sprite_agent.runtime.watch import SAFETY_POLL_SECONDS, DirectoryWatch, loop_directories

    watch = DirectoryWatch()
    directories = loop_directories(reader.repo, reader.paths.directory)
    away_since: float | None = None
    try:
        while not feed.finished:
            for directory in directories:
                if not watch.watches(directory):
                    watch.add(directory)
            messages = []
            try:
                messages = feed.read()
                away_since = None
            except OpsError:
                # It may be between two logs of a rotation.
                away_since = away_since or monotonic()
                if monotonic() - away_since > LOG_PATIENCE_SECONDS:
                    raise
            yield from messages
            if not messages:
                bookmark = feed.due_bookmark() if away_since is None else None
                if bookmark is not None:
                    yield bookmark
                readable = [watch.fileno()] if watch.fileno() >= 0 else []
                seconds = min(feed.seconds_to_bookmark() or SAFETY_POLL_SECONDS, SAFETY_POLL_SECONDS)
                select(readable, [], [], seconds)
                watch.changed()
    finally:
        watch.close()
