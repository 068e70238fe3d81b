"""One connection to one agent, shared by the streams and calls of a session.

Measured through a proxy (grpcio 1.85.1), which the options below are from:

- A half-open connection is found after 16 to 17 s: a ping once nothing has come for 12 s, and 5 s for its
  answer. The agent takes no offence at pings that far apart. While anything comes gRPC does not ping, so that
  pings do not end a slow way.
- At 1 kB/s heartbeats queue behind events. With the usual window of 256 KiB a whole log lies before them: one
  came in 90 s, and the agent, whose pings wait as well, then ended the connection. With the window of a
  patient link, 1 KiB, and batches of PATIENT_BATCH_BYTES the connection held, and heartbeats were at most
  12 s late (window 4 KiB: 17 s, 8 KiB: 16 s or more). A single line of 70 or 150 kB came too, and then the
  connection broke.
- The price of patience is throughput where answers take long: 2.8 kB/s with 500 ms each way.
- A try to connect has 10 s: with 500 ms each way the agent's first frame takes more than one.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import cache
from typing import Any

from google.protobuf.message import Message

from manager.transport.base import Endpoint
from manager.transport.channel import UNARY_SECONDS, call_metadata, connect_aio, grpc, options
from manager.transport.signed import for_stubs
from sprite_agent.runtime.feed import duration
from spritemesh.errors import OpsError
from spritemesh.grpcstatus import error_from_status
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc, telemetry_pb2, telemetry_pb2_grpc

# What to ask for as max_batch_bytes over a patient link.
PATIENT_BATCH_BYTES = 4096

_PING = {"ping_ms": 12_000, "ping_timeout_ms": 5_000, "connect_ms": 10_000}
_OPTIONS = options(**_PING, window_bytes=262_144)
_PATIENT_OPTIONS = options(**_PING, window_bytes=1024)
# Seconds of what protobuf calls a time and a span: anything else can neither be reckoned with nor shown.
_EARLIEST, _LATEST, _LONGEST = -62_135_596_800, 253_402_300_799, 315_576_000_000
_NANOS = 1_000_000_000


class Link:
    """One connection to one agent, shared by the sessions of its loops; connects at the first call.

    patient: for a slow way, on which the usual options broke the connection before anything came.
    All failures are OpsError; a cancelled task gets its CancelledError. One event loop uses a link.
    """

    def __init__(self, endpoint: Endpoint, *, patient: bool = False) -> None:
        self._endpoint = endpoint
        self._options = _PATIENT_OPTIONS if patient else _OPTIONS
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None
        self._closed = False

    def events(
        self,
        loop_id: str,
        after: pb.LogPosition | None,
        *,
        trace_id: str | None,
        bookmark_seconds: float,
        max_batch_bytes: int = 0,
    ) -> AsyncGenerator[sprite_pb2.WatchEventsResponse, None]:
        """The messages of a following WatchEvents stream after a place (None: the beginning).

        Ends after a goodbye only; an end without one is OpsError `stream_broken`. Leaving early cancels the
        call: close the generator between two messages, or the link under its reader. To cancel the task that
        reads works as well, but of a read that is cancelled itself gRPC keeps 0.9 kB for ever.
        """
        request = sprite_pb2.WatchEventsRequest(
            loop_id=loop_id,
            after=after,
            follow=True,
            bookmark_interval=duration(bookmark_seconds),
            trace_id=trace_id or "",
            max_batch_bytes=max_batch_bytes,
        )
        stub = self._connected()
        return self._messages(stub.WatchEvents, request, trace_id, _is_goodbye)

    def traces(
        self,
        loop_id: str,
        after: Sequence[telemetry_pb2.FilePlace],
        *,
        bookmark_seconds: float,
        max_batch_bytes: int = 0,
    ) -> AsyncGenerator[telemetry_pb2.WatchTracesResponse, None]:
        """The messages of a following WatchTraces stream after places; its end is as in `events`.

        An agent that is older is OpsError `unsupported_method`.
        """
        request = telemetry_pb2.WatchTracesRequest(
            loop_id=loop_id,
            after=after,
            follow=True,
            bookmark_interval=duration(bookmark_seconds),
            max_batch_bytes=max_batch_bytes,
        )
        self._connected()
        channel: Any = for_stubs(self._channel, self._endpoint.signer)
        # Made for each stream: most links never have one.
        stub: Any = telemetry_pb2_grpc.TelemetryServiceStub(channel)
        return self._messages(stub.WatchTraces, request, None, _is_goodbye)

    async def heartbeats(
        self, loop_id: str, *, interval: float
    ) -> AsyncGenerator[sprite_pb2.Heartbeat, None]:
        """The heartbeats of the agent, with the head of the loop's log; interval: wanted seconds between two.

        Ends after one that says that the agent drains; leaving early is as in `events`. One with a time that
        cannot be is OpsError `service_response_invalid`.
        """
        request = sprite_pb2.WatchHeartbeatsRequest(loop_id=loop_id, interval=duration(interval))
        stub = self._connected()
        messages = self._messages(
            stub.WatchHeartbeats, request, None, lambda message: message.heartbeat.agent.draining
        )
        async with aclosing(messages):
            async for message in messages:
                if not _is_possible(message.heartbeat):
                    raise self._invalid("sent a heartbeat with a time that cannot be")
                yield message.heartbeat

    async def snapshot(self, loop_id: str, *, trace_id: str | None) -> pb.LoopRunSnapshot:
        """What is true of the loop now; a last line that is no event is passed over."""
        request = sprite_pb2.GetSnapshotRequest(
            loop_id=loop_id, trace_id=trace_id or "", pass_invalid_lines=True
        )
        metadata = call_metadata(self._endpoint, trace_id)
        stub = self._connected()
        async with self._told():
            response = await stub.GetSnapshot(request, timeout=UNARY_SECONDS, metadata=metadata)
        if response is None or not response.HasField("snapshot"):
            raise self._invalid("answered without a snapshot")
        snapshot: pb.LoopRunSnapshot = response.snapshot
        return snapshot

    async def clock(self, loop_id: str) -> tuple[float, float, float]:
        """When the agent was asked, what its clock said, and when that arrived: epoch seconds.

        Of the two outer ones this machine's clock; the agent read its own in between.
        """
        sent = time.time()
        async with aclosing(self.heartbeats(loop_id, interval=60.0)) as heartbeats:
            try:
                async with asyncio.timeout(UNARY_SECONDS):
                    heartbeat = await anext(heartbeats)
            except TimeoutError as error:
                raise OpsError(
                    "deadline_exceeded", f"{self._endpoint.target} sent no heartbeat in {UNARY_SECONDS:g} s"
                ) from error
            received = time.time()
        return sent, heartbeat.sent_at.ToNanoseconds() / 1e9, received

    async def close(self) -> None:
        """End what is open; who still reads gets `stream_broken`. A closed link connects no more."""
        self._closed = True
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close()

    async def _messages(
        self,
        open_call: Callable[..., Any],
        request: Message,
        trace_id: str | None,
        is_last: Callable[[Any], bool],
    ) -> AsyncGenerator[Any, None]:
        call = open_call(request, metadata=call_metadata(self._endpoint, trace_id))
        try:
            async with self._told():
                while (message := await call.read()) is not grpc.aio.EOF:
                    if message is None:
                        # gRPC hands this out for bytes that are no message of the method.
                        raise self._invalid("sent what is no message of this stream")
                    yield message
                    if is_last(message):
                        return
                raise self._broken("ended the stream without a goodbye")
        finally:
            # A call that is merely dropped goes on at the server.
            call.cancel()

    @asynccontextmanager
    async def _told(self) -> AsyncGenerator[None, None]:
        """What gRPC raises within the block is told as an OpsError; a cancelled task keeps its
        CancelledError."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            # Not by a name of this frame, which the error's traceback knows: that circle would keep the
            # connection until the collector comes.
            raise await self._why(error) from error
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            raise self._broken("was left: the link is closed") from error

    async def _why(self, error: grpc.aio.AioRpcError) -> OpsError:
        """What a failed call says, or, where nobody answered, what a handshake says."""
        found = self._error(error)
        if found.reason == "agent_unreachable":
            running = asyncio.get_running_loop()
            found = await running.run_in_executor(_explainers(), _explained, found, self._endpoint)
        return found

    def _connected(self) -> Any:
        """The stub on the channel, which gRPC connects when it is first needed."""
        if self._closed:
            raise self._broken("is not asked: the link is closed")
        if self._channel is None:
            self._channel = connect_aio(self._endpoint, self._options)
            self._stub = sprite_pb2_grpc.SpriteServiceStub(for_stubs(self._channel, self._endpoint.signer))
        return self._stub

    def _invalid(self, how: str) -> OpsError:
        return OpsError("service_response_invalid", f"{self._endpoint.target} {how}")

    def _broken(self, how: str) -> OpsError:
        return OpsError("stream_broken", f"{self._endpoint.target} {how}")

    def _error(self, error: grpc.aio.AioRpcError) -> OpsError:
        return error_from_status(
            error.code(), error.details() or "", error.trailing_metadata(), peer=self._endpoint.target
        )


@cache
def _explainers() -> ThreadPoolExecutor:
    """Threads of their own: a peer that hangs takes seconds to explain, and others want to read files
    meanwhile."""
    return ThreadPoolExecutor(2, "explain")


def _explained(error: OpsError, endpoint: Endpoint) -> OpsError:
    # Late: who connects needs none of it.
    from manager.transport.trust import explained

    return explained(error, endpoint)


def _is_goodbye(message: Any) -> bool:
    return bool(message.HasField("goodbye"))


def _is_cancelled() -> bool:
    """Whether this task was cancelled; otherwise it is the call that was, by closing its channel."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _is_possible(heartbeat: sprite_pb2.Heartbeat) -> bool:
    """Whether all its times are times. Nothing behind this looks at that again."""
    agent, runtime = heartbeat.agent, heartbeat.runtime
    times = (heartbeat.sent_at, agent.started_at, agent.resumed_at, runtime.started_at)
    spans = (
        heartbeat.granted_interval,
        agent.cpu_time,
        agent.event_loop_lag,
        agent.suspended_for,
        runtime.cpu_time,
    )
    return all(_EARLIEST <= at.seconds <= _LATEST and 0 <= at.nanos < _NANOS for at in times) and all(
        0 <= span.seconds <= _LONGEST and 0 <= span.nanos < _NANOS for span in spans
    )
