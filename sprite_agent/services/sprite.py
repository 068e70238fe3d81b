"""SpriteService: adapters between the wire and `sprite_agent.runtime`."""

import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sprite_agent.changes import ChangeHub, Subscription
from sprite_agent.drain import Drain
from sprite_agent.heartbeat import HeartbeatSource, grant_interval
from sprite_agent.liveness import RuntimeWatch, liveness
from sprite_agent.rooms import Rooms
from sprite_agent.runtime.feed import FeedOptions
from sprite_agent.runtime.layout import RUNTIME_ROOT
from sprite_agent.runtime.lines import grant_batch_bytes, log_head
from sprite_agent.runtime.loop import LoopReader
from sprite_agent.runtime.repository import Repository
from sprite_agent.runtime.watch import loop_directories
from sprite_agent.services.following import Streams, grant_bookmark_seconds
from sprite_agent.services.metadata import trace_id_of_call
from sprite_agent.services.requests import Page, asked_page, page_of, wanted_seconds
from spritemesh.errors import OpsError
from spritemesh.ids import validate_loop_id
from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc


class SpriteService(sprite_pb2_grpc.SpriteServiceServicer):
    """Reads of one repository."""

    def __init__(
        self,
        repository: Repository,
        hub: ChangeHub,
        heartbeats: HeartbeatSource,
        drain: Drain,
        pool: ThreadPoolExecutor,
        subscribers: Rooms | None = None,
    ) -> None:
        """subscribers: event streams of each loop; None: without a bound."""
        self._subscribers = subscribers
        self._repository = repository
        self._hub = hub
        self._heartbeats = heartbeats
        self._drain = drain
        self._streams = Streams(drain, pool)
        directory = os.path.join(repository.path, RUNTIME_ROOT)
        self._runtime = RuntimeWatch(lambda: self._streams.run(heartbeats.look_for_run), hub, directory)

    async def ListLoops(
        self, request: sprite_pb2.ListLoopsRequest, context: Any
    ) -> sprite_pb2.ListLoopsResponse:
        """A page of loops; a loop that cannot be read is listed with the reason."""
        page = asked_page(request)
        return await self._streams.run(lambda: self._list(page))

    async def GetSnapshot(
        self, request: sprite_pb2.GetSnapshotRequest, context: Any
    ) -> sprite_pb2.GetSnapshotResponse:
        """The snapshot; without leaving the event loop while nothing changed."""
        reader = self._reader(request.loop_id)
        trace_id = trace_id_of_call(request.trace_id, context)
        snapshot = reader.snapshot_if_unchanged(run_id=request.run_id, trace_id=trace_id)
        if snapshot is None:
            snapshot = await self._streams.run(
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
        options = FeedOptions(
            follow=request.follow,
            max_events=request.max_events,
            trace_id=trace_id_of_call(request.trace_id, context),
            bookmark_seconds=grant_bookmark_seconds(wanted_seconds(request, "bookmark_interval")),
            batch_bytes=grant_batch_bytes(request.max_batch_bytes),
        )
        after = request.after if request.HasField("after") else None
        await self._streams.run(reader.head)  # a missing loop is a status, not a stream
        feed = reader.feed(options)
        with self._drain.stream(), self._place(request.loop_id), self._subscribe(reader) as changes:
            for message in await self._streams.run(lambda: feed.open(after)):
                yield message
            async for message in self._streams.send(feed, changes, follow=options.follow):
                yield message

    async def WatchHeartbeats(
        self, request: sprite_pb2.WatchHeartbeatsRequest, context: Any
    ) -> AsyncIterator[sprite_pb2.WatchHeartbeatsResponse]:
        """Heartbeats at the granted interval, and at once when the runtime starts or dies, or the agent
        finds that it had been suspended."""
        loop_id = validate_loop_id(request.loop_id, field="loop_id") if request.loop_id else ""
        interval = grant_interval(wanted_seconds(request, "interval"))
        sequence = 0

        def beat() -> sprite_pb2.Heartbeat:
            return self._heartbeats.beat(sequence, loop_id, interval, draining=draining)

        with self._drain.stream(), self._runtime.subscribe() as changes:
            while True:
                sequence += 1
                draining = self._drain.started
                # A thread costs as much as the heartbeat of an idle agent.
                heartbeat = beat() if self._heartbeats.is_quick(loop_id) else await self._streams.run(beat)
                yield sprite_pb2.WatchHeartbeatsResponse(heartbeat=heartbeat)
                if draining:
                    return
                await self._until_due(interval, heartbeat, changes)

    # --- helpers ------------------------------------------------------------------------------------

    async def _until_due(self, interval: float, told: sprite_pb2.Heartbeat, changes: Subscription) -> None:
        """Wait for the next heartbeat: the interval, or less when what `told` said is no longer true."""
        due = time.monotonic() + interval
        known = (told.boot_id, (told.runtime.pid, told.runtime.alive))
        while not self._drain.started:
            if known != (self._repository.boot_id, liveness(self._heartbeats.latest_run)):
                return
            left = due - time.monotonic()
            if left <= 0:
                return
            await changes.wait(left)

    def _place(self, loop_id: str) -> AbstractContextManager[None]:
        """For an event stream of a loop. Raises OpsError `too_many_subscribers`."""
        return nullcontext() if self._subscribers is None else self._subscribers.entered(loop_id)

    def _subscribe(self, reader: LoopReader) -> AbstractContextManager[Subscription]:
        directories = loop_directories(reader.repo, reader.paths.directory)
        return self._hub.subscribe(directories, os.path.join(reader.repo, reader.paths.events))

    def _reader(self, loop_id: str) -> LoopReader:
        return self._repository.loop(validate_loop_id(loop_id, field="loop_id"))

    def _list(self, page: Page) -> sprite_pb2.ListLoopsResponse:
        ids, token = page_of(self._repository.loop_ids(), page)
        loops = [self._summary(loop_id) for loop_id in ids]
        return sprite_pb2.ListLoopsResponse(loops=loops, next_page_token=token)

    def _summary(self, loop_id: str) -> sprite_pb2.LoopSummary:
        summary = sprite_pb2.LoopSummary(loop_id=loop_id)
        try:
            reader = self._repository.loop(loop_id)
            summary.head.CopyFrom(log_head(reader.head()))
            summary.status = reader.snapshot().run.status
        except OpsError as error:
            summary.unavailable_reason = error.reason
        return summary
