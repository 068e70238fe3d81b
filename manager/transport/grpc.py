"""An agent over gRPC."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from manager.transport.backoff import wait_for_return
from manager.transport.base import Controlled, Endpoint, Retry
from manager.transport.channel import UNARY_SECONDS, call_metadata, connect, goodbye_error, grpc, options
from manager.transport.signed import for_stubs, is_early
from manager.transport.silence import SilenceWatch
from spritemesh.errors import OpsError
from spritemesh.grpcstatus import error_from_status
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc

if TYPE_CHECKING:
    from spritemesh.control import ControlRequest
    from superloop.ops.v1 import telemetry_pb2

# What a further try, unchanged, may mend.
_RETRYABLE = frozenset(
    {
        "agent_unreachable",
        "agent_draining",
        "deadline_exceeded",
        "log_unavailable",
        "stream_broken",
        "too_many_streams",
        "too_many_subscribers",
    }
)

# Measured: a dead peer is noticed within 30 s, and one stalled reader lets the agent run 0.35 MB ahead
# instead of 5.
_OPTIONS = options(ping_ms=20_000, ping_timeout_ms=10_000, window_bytes=262_144, connect_ms=1000)


class Patience(NamedTuple):
    """How long a stream may be silent, seconds. first: a large log may have to be indexed. following: a full
    batch over a link of 1 kB/s takes 64."""

    first: float = 60.0
    following: float = 90.0


class GrpcTransport:
    """Reads loops, and steps in, through an agent; connects at the first request."""

    name = "sprite_service"

    def __init__(self, endpoint: Endpoint, retry: Retry, patience: Patience | None = None) -> None:
        self._endpoint = endpoint
        self._retry = retry
        self._patience = patience or Patience()
        self._was_answered = False
        self._connect()

    def snapshot(
        self,
        loop_id: str,
        *,
        run_id: str = "",
        trace_id: str | None = None,
        pass_invalid_lines: bool = False,
    ) -> pb.LoopRunSnapshot:
        request = sprite_pb2.GetSnapshotRequest(
            loop_id=loop_id,
            run_id=run_id,
            trace_id=trace_id or "",
            pass_invalid_lines=pass_invalid_lines,
        )
        attempt = 1
        while True:
            try:
                response = self._stub.GetSnapshot(
                    request, timeout=UNARY_SECONDS, metadata=self._metadata(trace_id)
                )
            except grpc.RpcError as error:
                self._wait_or_raise(self._error(error), attempt)
                attempt += 1
                continue
            if not response.HasField("snapshot"):
                raise OpsError(
                    "service_response_invalid", f"{self._endpoint.target} answered without a snapshot"
                )
            return response.snapshot

    def events(
        self,
        loop_id: str,
        after: pb.LogPosition | None,
        *,
        follow: bool = False,
        max_events: int = 0,
        trace_id: str | None = None,
    ) -> Iterator[sprite_pb2.WatchEventsResponse]:
        place = pb.LogPosition()
        if after is not None:
            place.CopyFrom(after)
        attempt, sent, told_line = 1, 0, 0
        while True:
            request = sprite_pb2.WatchEventsRequest(
                loop_id=loop_id,
                after=place,
                follow=follow,
                max_events=max(0, max_events - sent),
                trace_id=trace_id or "",
            )
            try:
                for message in self._stream(request, trace_id):
                    kind = message.WhichOneof("payload")
                    if kind == "batch":
                        attempt = 1
                        sent += len(message.batch.events)
                        _move(place, message)
                    elif kind == "bookmark" and follow:
                        attempt = 1  # an idle log is no failing one
                    elif kind == "log_reset":
                        place.CopyFrom(message.log_reset.resume)
                        told_line = 0
                    elif kind == "invalid_line":
                        if message.invalid_line.line <= told_line:
                            continue  # told before the connection broke
                        told_line = message.invalid_line.line
                    elif kind == "goodbye" and message.goodbye.reason in _RETRYABLE:
                        raise goodbye_error(message.goodbye)
                    yield message
                    if kind == "goodbye":
                        return
                raise OpsError("stream_broken", f"{self._endpoint.target} ended the stream without a goodbye")
            except OpsError as error:
                if max_events and sent >= max_events:
                    return  # nothing is missing but the goodbye
                if follow:
                    self._wait_for_return(error, attempt)
                else:
                    self._wait_or_raise(error, attempt)
                attempt += 1

    def trace_mark(self, _loop_id: str) -> int | None:
        return None

    def traces(
        self, loop_id: str, after: "Sequence[telemetry_pb2.FilePlace]", seconds: float
    ) -> "Iterator[telemetry_pb2.WatchTracesResponse]":
        # Late: most commands read no traces.
        from superloop.ops.v1 import telemetry_pb2, telemetry_pb2_grpc

        stub = telemetry_pb2_grpc.TelemetryServiceStub(for_stubs(self._channel, self._endpoint.signer))
        request = telemetry_pb2.WatchTracesRequest(loop_id=loop_id, after=after)
        call = stub.WatchTraces(request, timeout=seconds, metadata=self._metadata(None))
        try:
            for message in call:
                yield message
                if message.HasField("goodbye"):
                    return
            raise OpsError("stream_broken", f"{self._endpoint.target} ended the stream without a goodbye")
        except grpc.RpcError as error:
            raise self._error(error) from error
        finally:
            # A call that is merely dropped goes on at the server.
            call.cancel()

    def control(self, request: "ControlRequest") -> Controlled:
        # Late: most commands only read.
        from manager.transport.delivery import deliver
        from manager.transport.grpc_control import ControlCall, command_of

        endpoint = self._endpoint
        channel = for_stubs(self._channel, self._endpoint.signer)
        call = ControlCall(channel, endpoint, lambda: self._metadata(request.trace_id), self._error)
        return deliver(lambda: call.send(request), self._retry, request=request, command=command_of(endpoint))

    def close(self) -> None:
        self._channel.close()

    def _stream(
        self, request: sprite_pb2.WatchEventsRequest, trace_id: str | None
    ) -> Iterator[sprite_pb2.WatchEventsResponse]:
        call = self._stub.WatchEvents(request, metadata=self._metadata(trace_id))
        with SilenceWatch(call, *self._patience) as watch:
            try:
                for message in call:
                    self._was_answered = True
                    # A stream that is to end must come nearer to it, not only say that it lives.
                    watch.heard(counts=request.follow or not message.HasField("bookmark"))
                    yield message
                    watch.listen()
            except grpc.RpcError as error:
                if watch.expired:
                    raise OpsError(
                        "deadline_exceeded", f"{self._endpoint.target} has gone silent in mid-stream"
                    ) from error
                raise self._error(error) from error
            finally:
                # A call that is merely dropped goes on at the server.
                call.cancel()

    def _connect(self) -> None:
        self._channel = connect(self._endpoint, _OPTIONS)
        self._stub = sprite_pb2_grpc.SpriteServiceStub(for_stubs(self._channel, self._endpoint.signer))

    def _metadata(self, trace_id: str | None) -> tuple[tuple[str, str], ...]:
        return call_metadata(self._endpoint, trace_id)

    def _error(self, error: grpc.RpcError) -> OpsError:
        # What a stub raises is also the call; the type of the exception does not say so.
        call: Any = error
        found = error_from_status(
            call.code(), call.details() or "", call.trailing_metadata() or (), peer=self._endpoint.target
        )
        if found.reason != "agent_unreachable":
            return found
        # Late: who connects needs none of it.
        from manager.transport.trust import explained

        return explained(found, self._endpoint)

    def _wait_or_raise(self, error: OpsError, attempt: int) -> None:
        """Wait before the next try, as v1 does (contract D.5); raise when there is none."""
        if not _is_passing(error) or attempt >= self._retry.attempts:
            _raise(error)
        time.sleep(max(self._retry.backoff_seconds * attempt, error.retry_after or 0))

    def _wait_for_return(self, error: OpsError, attempt: int) -> None:
        """Wait for an agent to come back; raise when waiting does not help."""
        # Certificates that were believed before are being exchanged.
        is_exchanging = error.reason == "tls_failed" and self._was_answered
        if not (_is_passing(error) or is_exchanging):
            _raise(error)
        wait_for_return(self._retry, error, attempt)
        if self._endpoint.trust is not None:
            before = self._channel
            # With the certificates that are there by now, unless they are just being written.
            with suppress(OpsError):
                self._connect()
                before.close()


def _move(place: pb.LogPosition, message: sprite_pb2.WatchEventsResponse) -> None:
    """Advance a place to the end of a batch."""
    place.line = message.batch.last_line
    place.digest = message.batch.end_digest
    place.first_line_digest = message.head.position.first_line_digest


def _is_passing(error: OpsError) -> bool:
    """Whether a further try may be answered otherwise."""
    return error.reason in _RETRYABLE or is_early(error)


def _raise(error: OpsError) -> NoReturn:
    raise error
