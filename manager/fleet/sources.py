"""Where a session's messages come from: an agent, the files of this machine, or a v1 service.

All give the same messages, so that a session does not know which of them it reads.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from manager.transport.base import Endpoint, Retry, is_http_url
from manager.transport.http import HttpTransport
from manager.transport.http_client import Timeouts
from manager.transport.link import Link
from sprite_agent.changes import ChangeHub
from sprite_agent.drain import Drain
from sprite_agent.heartbeat import HeartbeatSource
from sprite_agent.lag import LagProbe
from sprite_agent.runtime.repository import Repository
from sprite_agent.services.sprite import SpriteService
from sprite_agent.services.telemetry import TelemetryService
from spritemesh.errors import OpsError
from spritemesh.ids import new_boot_id
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2, telemetry_pb2

_T = TypeVar("_T")
Message = sprite_pb2.WatchEventsResponse
# Bookmarks while nothing happens prove little beside heartbeats.
BOOKMARK_SECONDS = 30.0
HEARTBEAT_SECONDS = 5.0
# The longest that is granted: heartbeats tell when there is more.
TRACE_BOOKMARK_SECONDS = 60.0
# On a way that broke before a whole batch had come.
PATIENT_BATCH_BYTES = 4096
# How often a v1 service is asked, which cannot tell by itself.
_POLL_SECONDS = 2.0
_POLL_THREADS = 16
_POLL_EVENTS = 5000  # at a time
# A request under way holds up the end of the process.
_TIMEOUTS = Timeouts(silence=10.0, whole=20.0)


class Source(Protocol):
    """One loop's streams. All failures are OpsError. has_heartbeats: whether anybody tells of liveness."""

    has_heartbeats: bool

    def events(
        self, after: pb.LogPosition | None, trace_id: str
    ) -> AsyncGenerator[sprite_pb2.WatchEventsResponse, None]:
        """The messages of a stream that follows, from a place on (None: the beginning)."""
        ...

    def heartbeats(self) -> AsyncGenerator[sprite_pb2.Heartbeat, None]:
        """The agent's heartbeats."""
        ...

    def traces(
        self, after: Sequence[telemetry_pb2.FilePlace], /
    ) -> AsyncGenerator[telemetry_pb2.WatchTracesResponse, None]:
        """The messages of a stream of trace lines that follows, after places in the sprite's files."""
        ...

    async def snapshot(self, trace_id: str) -> pb.LoopRunSnapshot:
        """What is true of the loop now."""
        ...

    async def clock(self) -> tuple[float, float, float]:
        """Our time before, the agent's time, our time after: epoch seconds."""
        ...

    async def close(self) -> None:
        """End what is open."""
        ...


class AgentSource:
    """An agent over gRPC, on a connection of its own. patient: for a slow way."""

    has_heartbeats = True

    def __init__(self, endpoint: Endpoint, loop_id: str, *, patient: bool) -> None:
        self._link = Link(endpoint, patient=patient)
        self._loop_id = loop_id
        self._batch_bytes = PATIENT_BATCH_BYTES if patient else 0

    def events(
        self, after: pb.LogPosition | None, trace_id: str
    ) -> AsyncGenerator[sprite_pb2.WatchEventsResponse, None]:
        return self._link.events(
            self._loop_id,
            after,
            trace_id=trace_id,
            bookmark_seconds=BOOKMARK_SECONDS,
            max_batch_bytes=self._batch_bytes,
        )

    def heartbeats(self) -> AsyncGenerator[sprite_pb2.Heartbeat, None]:
        return self._link.heartbeats(self._loop_id, interval=HEARTBEAT_SECONDS)

    def traces(
        self, after: Sequence[telemetry_pb2.FilePlace]
    ) -> AsyncGenerator[telemetry_pb2.WatchTracesResponse, None]:
        return self._link.traces(
            self._loop_id,
            after,
            bookmark_seconds=TRACE_BOOKMARK_SECONDS,
            max_batch_bytes=self._batch_bytes,
        )

    async def snapshot(self, trace_id: str) -> pb.LoopRunSnapshot:
        return await self._link.snapshot(self._loop_id, trace_id=trace_id)

    async def clock(self) -> tuple[float, float, float]:
        return await self._link.clock(self._loop_id)

    async def close(self) -> None:
        await self._link.close()


class _NoMetadata:
    """Stands for the context of a call: there is no wire."""

    @staticmethod
    def invocation_metadata() -> tuple[()]:
        return ()


class LocalSprite:
    """This machine's repository, served as an agent serves it, without the wire. One for all its loops."""

    def __init__(self, repo: str) -> None:
        repository = Repository(repo, boot_id=new_boot_id())
        self._hub = ChangeHub()
        self._drain = Drain(self._hub.wake_all, max_streams=2**31)
        self._lag = LagProbe()
        self._pool = ThreadPoolExecutor(4, "local read")
        self._repository = repository
        heartbeats = HeartbeatSource(repository, self._lag)
        self.service = SpriteService(repository, self._hub, heartbeats, self._drain, self._pool)
        self.telemetry = TelemetryService(repository, self._hub, self._drain, self._pool)

    def close(self) -> None:
        """Release files and threads; nobody may read any more."""
        self._hub.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._repository.close()


class LocalSource:
    """A loop of this machine."""

    has_heartbeats = True

    def __init__(self, sprite: LocalSprite, loop_id: str) -> None:
        self._service = sprite.service
        self._telemetry = sprite.telemetry
        self._loop_id = loop_id

    async def events(
        self, after: pb.LogPosition | None, trace_id: str
    ) -> AsyncGenerator[sprite_pb2.WatchEventsResponse, None]:
        request = sprite_pb2.WatchEventsRequest(
            loop_id=self._loop_id, after=after, follow=True, trace_id=trace_id
        )
        request.bookmark_interval.FromSeconds(int(BOOKMARK_SECONDS))
        async with aclosing(_generator(self._service.WatchEvents(request, _NoMetadata()))) as messages:
            async for message in messages:
                yield message
                await asyncio.sleep(0)  # nothing else lets others run while a log is read

    async def heartbeats(self) -> AsyncGenerator[sprite_pb2.Heartbeat, None]:
        request = sprite_pb2.WatchHeartbeatsRequest(loop_id=self._loop_id)
        request.interval.FromSeconds(int(HEARTBEAT_SECONDS))
        async with aclosing(_generator(self._service.WatchHeartbeats(request, _NoMetadata()))) as messages:
            async for message in messages:
                yield message.heartbeat

    async def traces(
        self, after: Sequence[telemetry_pb2.FilePlace]
    ) -> AsyncGenerator[telemetry_pb2.WatchTracesResponse, None]:
        request = telemetry_pb2.WatchTracesRequest(loop_id=self._loop_id, after=after, follow=True)
        request.bookmark_interval.FromSeconds(int(TRACE_BOOKMARK_SECONDS))
        async with aclosing(_generator(self._telemetry.WatchTraces(request, _NoMetadata()))) as messages:
            async for message in messages:
                yield message
                await asyncio.sleep(0)

    async def snapshot(self, trace_id: str) -> pb.LoopRunSnapshot:
        request = sprite_pb2.GetSnapshotRequest(
            loop_id=self._loop_id, trace_id=trace_id, pass_invalid_lines=True
        )
        return (await self._service.GetSnapshot(request, _NoMetadata())).snapshot

    async def clock(self) -> tuple[float, float, float]:
        raise OpsError("unsupported_method", "this machine has one clock")

    async def close(self) -> None:
        return


class HttpSource:
    """A v1 service, which is asked again and again, in a thread: it tells nothing by itself."""

    has_heartbeats = False

    def __init__(self, endpoint: Endpoint, loop_id: str, pool: ThreadPoolExecutor) -> None:
        self._transport = HttpTransport(endpoint, Retry(attempts=1), _TIMEOUTS)
        self._loop_id = loop_id
        self._pool = pool

    async def events(
        self, after: pb.LogPosition | None, trace_id: str
    ) -> AsyncGenerator[sprite_pb2.WatchEventsResponse, None]:
        place, told, opened = pb.LogPosition(), b"", False
        if after is not None:
            place.line = after.line
        while True:
            more = False
            for message in await self._run(lambda: self._read(place, trace_id)):
                kind = message.WhichOneof("payload")
                if kind == "goodbye":
                    more = message.goodbye.reason == "max_events_reached"
                if kind == "goodbye" or (kind == "opened" and opened):
                    continue
                opened = True
                if kind == "bookmark":
                    place.line = message.bookmark.position.line
                yield message
            if more:
                continue
            snapshot = await self.snapshot(trace_id)
            found = _unstamped(snapshot)
            if found != told:
                told = found
                message = Message()
                message.bookmark.position.line = place.line
                message.bookmark.snapshot.CopyFrom(snapshot)
                message.head.position.line = max(place.line, snapshot.sequence_value)
                yield message
            await asyncio.sleep(_POLL_SECONDS)

    async def heartbeats(self) -> AsyncGenerator[sprite_pb2.Heartbeat, None]:
        await asyncio.Event().wait()
        yield sprite_pb2.Heartbeat()

    def traces(
        self, _after: Sequence[telemetry_pb2.FilePlace]
    ) -> AsyncGenerator[telemetry_pb2.WatchTracesResponse, None]:
        raise OpsError("unsupported_method", "a v1 service has no traces")

    async def snapshot(self, trace_id: str) -> pb.LoopRunSnapshot:
        return await self._run(lambda: self._transport.snapshot(self._loop_id, trace_id=trace_id))

    async def clock(self) -> tuple[float, float, float]:
        raise OpsError("unsupported_method", "a v1 service tells no time")

    async def close(self) -> None:
        await self._run(self._transport.close)

    def _read(self, after: pb.LogPosition, trace_id: str) -> list[sprite_pb2.WatchEventsResponse]:
        return list(self._transport.events(self._loop_id, after, max_events=_POLL_EVENTS, trace_id=trace_id))

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


class Sources:
    """Makes sources, and holds what they share. repo: of the local loops."""

    def __init__(self, repo: str) -> None:
        self._repo = repo
        self._local: LocalSprite | None = None
        self._pool: ThreadPoolExecutor | None = None

    def open(self, endpoint: Endpoint | None, loop_id: str, *, patient: bool) -> Source:
        """endpoint None: a loop of this machine. Raises OpsError `repo_not_found`."""
        if endpoint is None:
            if self._local is None:
                self._local = LocalSprite(self._repo)
            return LocalSource(self._local, loop_id)
        if is_http_url(endpoint.target):
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_POLL_THREADS, "http read")
            return HttpSource(endpoint, loop_id, self._pool)
        return AgentSource(endpoint, loop_id, patient=patient)

    def close(self) -> None:
        """Nobody may read any more."""
        if self._local is not None:
            self._local.close()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _generator(messages: AsyncIterator[_T]) -> Any:
    """The service's methods are generators, whatever gRPC's types say."""
    return messages


def _unstamped(snapshot: pb.LoopRunSnapshot) -> bytes:
    shown = pb.LoopRunSnapshot()
    shown.CopyFrom(snapshot)
    shown.emitted_at = ""
    shown.ClearField("trace_id")
    return shown.SerializeToString(deterministic=True)
