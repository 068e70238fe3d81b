"""SpriteService: adapters between the wire and `sprite_agent.runtime`."""

import asyncio
import base64
import binascii
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration

from sprite_agent.changes import ChangeHub, Subscription
from sprite_agent.drain import Drain
from sprite_agent.gate import DRAIN_RETRY_SECONDS
from sprite_agent.heartbeat import HeartbeatSource, grant_interval
from sprite_agent.runtime.feed import LOG_PATIENCE_SECONDS, EventFeed, FeedOptions, log_head
from sprite_agent.runtime.loop import LoopReader
from sprite_agent.runtime.repository import Repository
from sprite_agent.runtime.watch import SAFETY_POLL_SECONDS, loop_directories
from sprite_agent.services.metadata import trace_id_of_call
from spritemesh.errors import OpsError
from spritemesh.ids import validate_loop_id
from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc

_T = TypeVar("_T")
_DEFAULT_PAGE = 100
_MAX_PAGE = 1000
_BOOKMARK_SECONDS = (1.0, 5.0, 60.0)  # least, default, most
# After a read that brought something, the next one waits this long since it began: a line after a pause
# goes at once, and a busy log is sent in batches.
_LEADING_EDGE_SECONDS = 0.005
_LIVENESS_POLL_SECONDS = 0.25


class SpriteService(sprite_pb2_grpc.SpriteServiceServicer):
    """Reads of one repository."""

    def __init__(
        self,
        repository: Repository,
        hub: ChangeHub,
        heartbeats: HeartbeatSource,
        drain: Drain,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._repository = repository
        self._hub = hub
        self._heartbeats = heartbeats
        self._drain = drain
        self._pool = pool

    async def ListLoops(
        self, request: sprite_pb2.ListLoopsRequest, context: Any
    ) -> sprite_pb2.ListLoopsResponse:
        """A page of loops; a loop that cannot be read is listed with the reason."""
        if request.page_size < 0:
            raise OpsError("invalid_request", "page_size must not be negative", field="page_size")
        size = min(request.page_size or _DEFAULT_PAGE, _MAX_PAGE)
        after = _decode_page_token(request.page_token)
        return await self._run(lambda: self._list(after, size))

    async def GetSnapshot(
        self, request: sprite_pb2.GetSnapshotRequest, context: Any
    ) -> sprite_pb2.GetSnapshotResponse:
        """The snapshot; without leaving the event loop while nothing changed."""
        reader = self._reader(request.loop_id)
        trace_id = trace_id_of_call(request.trace_id, context)
        snapshot = reader.snapshot_if_unchanged(run_id=request.run_id, trace_id=trace_id)
        if snapshot is None:
            snapshot = await self._run(
                lambda: reader.snapshot(
                    run_id=request.run_id,
                    trace_id=trace_id,
                    pass_invalid_lines=request.pass_invalid_lines,
                )
            )
        return sprite_pb2.GetSnapshotResponse(snapshot=snapshot)

    async def WatchEvents(
        self, request: sprite_pb2.WatchEventsRequest, context: Any
    ) -> AsyncIterator[sprite_pb2.WatchEventsResponse]:
        """Events after a place, as docs/wire.md tells."""
        reader = self._reader(request.loop_id)
        least, default, most = _BOOKMARK_SECONDS
        wanted = _seconds(request, "bookmark_interval")
        options = FeedOptions(
            follow=request.follow,
            max_events=request.max_events,
            trace_id=trace_id_of_call(request.trace_id, context),
            bookmark_seconds=default if wanted is None else min(max(wanted, least), most),
        )
        after = request.after if request.HasField("after") else None
        await self._run(reader.head)  # a missing loop is a status, not a stream
        feed = reader.feed(options)
        with self._drain.stream(), self._hub.subscribe(_directories(reader)) as changes:
            for message in await self._run(lambda: feed.open(after)):
                yield message
            async for message in self._catch_up(feed):
                yield message
            if options.follow and not feed.finished:
                async for message in self._follow(reader, feed, changes):
                    yield message
                return
            yield await self._run(feed.bookmark)
            if self._drain.started:
                yield feed.goodbye("agent_draining", DRAIN_RETRY_SECONDS)
            else:
                yield feed.goodbye(feed.end_reason())

    async def WatchHeartbeats(
        self, request: sprite_pb2.WatchHeartbeatsRequest, context: Any
    ) -> AsyncIterator[sprite_pb2.WatchHeartbeatsResponse]:
        """Heartbeats at the granted interval, and at once when the runtime starts or dies."""
        loop_id = validate_loop_id(request.loop_id, field="loop_id") if request.loop_id else ""
        interval = grant_interval(_seconds(request, "interval"))
        sequence = 0
        with self._drain.stream():
            while True:
                sequence += 1
                draining = self._drain.started
                heartbeat = await self._run(
                    lambda: self._heartbeats.beat(sequence, loop_id, interval, draining=draining)  # noqa: B023 - awaited before it changes
                )
                yield sprite_pb2.WatchHeartbeatsResponse(heartbeat=heartbeat)
                if draining:
                    return
                await self._until_due(interval, _liveness(heartbeat))

    # --- following ----------------------------------------------------------------------------------

    async def _catch_up(self, feed: EventFeed) -> AsyncIterator[sprite_pb2.WatchEventsResponse]:
        """What the log holds by now, until the agent drains.

        A batch takes half a millisecond to make, less than a thread costs under Python's lock; what may take
        longer, a log that must be indexed first or a large line of odd values, is left to a thread.
        """
        count = -1
        while (count or feed.is_stuck) and not self._drain.started:
            count = 0
            if feed.is_stuck or feed.may_be_behind():
                for message in await self._run(feed.read):
                    count += 1
                    yield message
            else:
                for message in feed.messages(patient=False):
                    count += 1
                    yield message

    async def _follow(
        self, reader: LoopReader, feed: EventFeed, changes: Subscription
    ) -> AsyncIterator[sprite_pb2.WatchEventsResponse]:
        """What comes after the first catching up, until the agent drains or the log stays away."""
        directories = _directories(reader)
        away_since: float | None = None
        yield await self._run(feed.bookmark)
        while not self._drain.started:
            started = time.monotonic()
            messages: list[sprite_pb2.WatchEventsResponse] = []
            try:
                # A thread takes longer than a line: it is asked only when there is much to do.
                if feed.is_quick():
                    messages = list(feed.messages(patient=False))
                if feed.is_stuck or (not messages and feed.may_be_behind()):
                    messages += await self._run(feed.read)
                away_since = None
            except OpsError:
                away_since = away_since or started
                if started - away_since > LOG_PATIENCE_SECONDS:
                    yield feed.goodbye("log_unavailable", DRAIN_RETRY_SECONDS)
                    return
            for message in messages:
                yield message
            if feed.finished:
                yield await self._run(feed.bookmark)
                yield feed.goodbye(feed.end_reason())
                return
            if messages:
                await asyncio.sleep(max(0.0, started + _LEADING_EDGE_SECONDS - time.monotonic()))
                continue
            if away_since is None and feed.is_bookmark_due():
                bookmark = await self._run(feed.due_bookmark)
                if bookmark is not None:
                    yield bookmark
            await self._quiet(feed, directories, changes)
        yield await self._run(feed.bookmark)
        yield feed.goodbye("agent_draining", DRAIN_RETRY_SECONDS)

    async def _quiet(self, feed: EventFeed, directories: tuple[str, str], changes: Subscription) -> None:
        """Return when something may have changed, a bookmark is due, or the agent drains."""
        while not self._drain.started:
            # A log that is away has no bookmarks: it is looked for at the slow poll.
            seconds = min(feed.seconds_to_bookmark() or SAFETY_POLL_SECONDS, SAFETY_POLL_SECONDS)
            if await changes.wait(seconds) or not feed.seconds_to_bookmark() or feed.may_be_behind():
                return
            self._hub.ensure(directories)

    async def _until_due(self, interval: float, liveness: tuple[int, bool]) -> None:
        """Wait for the next heartbeat: the interval, or less when the runtime's liveness changes."""
        due = time.monotonic() + interval
        while not self._drain.started:
            left = due - time.monotonic()
            if left <= 0:
                return
            await self._drain.wait(min(left, _LIVENESS_POLL_SECONDS))
            if left > _LIVENESS_POLL_SECONDS:
                run = await self._run(self._heartbeats.active_run)
                if liveness != ((0, False) if run is None else (run.pid, run.process is not None)):
                    return

    # --- helpers ------------------------------------------------------------------------------------

    def _reader(self, loop_id: str) -> LoopReader:
        return self._repository.loop(validate_loop_id(loop_id, field="loop_id"))

    async def _run(self, work: Callable[[], _T]) -> _T:
        """Do blocking work in a thread of the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _list(self, after: str, size: int) -> sprite_pb2.ListLoopsResponse:
        ids = [loop_id for loop_id in self._repository.loop_ids() if loop_id > after]
        response = sprite_pb2.ListLoopsResponse(loops=[self._summary(loop_id) for loop_id in ids[:size]])
        if len(ids) > size:
            response.next_page_token = _encode_page_token(ids[size - 1])
        return response

    def _summary(self, loop_id: str) -> sprite_pb2.LoopSummary:
        summary = sprite_pb2.LoopSummary(loop_id=loop_id)
        try:
            reader = self._repository.loop(loop_id)
            summary.head.CopyFrom(log_head(reader.head()))
            summary.status = reader.snapshot().run.status
        except OpsError as error:
            summary.unavailable_reason = error.reason
        return summary


def _directories(reader: LoopReader) -> tuple[str, str]:
    return loop_directories(reader.repo, reader.paths.directory)


def _liveness(heartbeat: sprite_pb2.Heartbeat) -> tuple[int, bool]:
    return heartbeat.runtime.pid, heartbeat.runtime.alive


def _seconds(request: Any, field: str) -> float | None:
    """A wanted Duration in seconds; None when absent. Refuses a negative one."""
    if not request.HasField(field):
        return None
    value: Duration = getattr(request, field)
    seconds = value.seconds + value.nanos / 1e9
    if seconds < 0:
        raise OpsError("invalid_request", f"{field} must not be negative", field=field)
    return seconds


def _encode_page_token(last_id: str) -> str:
    return base64.urlsafe_b64encode(last_id.encode()).decode()


def _decode_page_token(token: str) -> str:
    try:
        return base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as error:
        raise OpsError(
            "invalid_page_token", "page_token was not made by this service", field="page_token"
        ) from error
