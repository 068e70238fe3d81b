"""Asks an agent over gRPC: health, credentials, clock, version, loops, a snapshot, a stream."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

# Before the first import of grpc: its fork handlers kill children now and then.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sprite_agent.probe.judge import (
    SAMPLE_EVENTS,
    judge_clock,
    judge_health,
    judge_heartbeat_time,
    judge_loops,
    judge_refusal,
    judge_signature,
    judge_stream,
    told_version,
)
from sprite_agent.probe.network import Route, refuse_plaintext
from sprite_agent.probe.steps import Found, Steps, milliseconds, skip, well
from sprite_agent.probe.target import Target
from spritemesh.errors import OpsError
from spritemesh.grpcstatus import error_from_status
from superloop.ops.v1 import envelope_pb2, sprite_pb2, sprite_pb2_grpc

if TYPE_CHECKING:
    from sprite_agent.probe.tls import TlsClient

_MOST_MESSAGES = 100
_PAGE_LOOPS = 1000
_SERVICE = sprite_pb2.DESCRIPTOR.services_by_name["SpriteService"].full_name


class _Listed(NamedTuple):
    """What asking for loops brought."""

    loops: sprite_pb2.ListLoopsResponse
    error: OpsError | None = None


class GrpcProbe:
    """The steps behind the connection, for one agent."""

    def __init__(self, target: Target, steps: Steps, route: Route, tls: "TlsClient | None") -> None:
        self._target = target
        self._route = route
        self._steps = steps
        self._tls = tls
        self._channel: Any = None
        self._listed = _Listed(sprite_pb2.ListLoopsResponse())
        self._loop: sprite_pb2.LoopSummary | None = None
        self._beat: sprite_pb2.Heartbeat | None = None
        self._messages: list[sprite_pb2.WatchEventsResponse] = []
        self._stream_error: OpsError | None = None

    def run(self) -> None:
        """Take them all. Nothing is left open."""
        take = self._steps.take
        try:
            take("health", self._health, needs=("connect", "tls"))
            take("token", self._token, needs=("health",))
            take("signature", lambda: judge_signature(self._target, self._listed.error), needs=("token",))
            take("clock", self._clock, needs=("token",))
            take("version", self._version, needs=("signature", "clock"))
            take("loops", self._loops, needs=("signature",))
            take("snapshot", self._snapshot, needs=("loops",))
            take("stream", self._stream, needs=("loops",))
        finally:
            if self._channel is not None:
                self._channel.close()

    # --- steps ----------------------------------------------------------------------------------------

    def _health(self) -> Found:
        begun = time.monotonic()
        self._channel = _open_channel(self._target, self._tls)
        stub: Any = health_pb2_grpc.HealthStub(self._channel)  # the stubs do not know its methods
        request = health_pb2.HealthCheckRequest(service=_SERVICE)
        try:
            answer = self._call(stub.Check, "/grpc.health.v1.Health/Check", request)
        except OpsError as error:
            if error.reason in {"agent_unreachable", "deadline_exceeded"}:
                refuse_plaintext(self._target, self._route, self._steps.left_of(begun))
            return judge_health(error, is_encrypted=self._tls is not None)
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return well(f"{_SERVICE} is SERVING, in {milliseconds(begun)}")
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise OpsError("agent_draining", f"{_SERVICE} is {name}")

    def _token(self) -> Found:
        stub = sprite_pb2_grpc.SpriteServiceStub(self._channel)
        request = sprite_pb2.ListLoopsRequest(page_size=_PAGE_LOOPS)
        try:
            answer = self._call(stub.ListLoops, f"/{_SERVICE}/ListLoops", request)
        except OpsError as error:
            self._listed = self._listed._replace(error=error)
            return judge_refusal(self._target, error)
        self._listed = _Listed(answer)
        return well("it was taken" if self._target.token else "none was given, and none is asked for")

    def _clock(self) -> Found:
        if (error := self._listed.error) is not None:
            # With a time to come back after, it is an agent that has just started, or forgot the time.
            if error.reason == "signature_expired" and error.retry_after is None:
                raise OpsError("clock_skew", error.message)
            return skip("the agent does not answer this caller")
        stub = sprite_pb2_grpc.SpriteServiceStub(self._channel)
        sent = time.time()
        messages = self._collect(
            stub.WatchHeartbeats,
            f"/{_SERVICE}/WatchHeartbeats",
            sprite_pb2.WatchHeartbeatsRequest(),
            lambda _message: True,
        )
        received = time.time()
        if not messages:
            raise OpsError("stream_broken", "the agent ended a stream of heartbeats without any")
        self._beat = messages[0].heartbeat
        return judge_clock(judge_heartbeat_time(self._beat), sent, received)

    def _version(self) -> Found:
        beat = self._beat
        if beat is None:
            return skip("the agent does not answer this caller")
        found = self._chosen()
        if found is not None:
            self._watch(found)
        opened = next((message.opened for message in self._messages if message.HasField("opened")), None)
        return told_version(beat, opened, package=sprite_pb2.DESCRIPTOR.package)

    def _loops(self) -> Found:
        if self._listed.error is not None:
            raise self._listed.error
        return judge_loops(self._listed.loops, self._target.loop_id)

    def _snapshot(self) -> Found:
        loop = self._chosen()
        if loop is None:
            return skip("the agent has no loop that can be read")
        begun = time.monotonic()
        stub = sprite_pb2_grpc.SpriteServiceStub(self._channel)
        request = sprite_pb2.GetSnapshotRequest(loop_id=loop.loop_id, pass_invalid_lines=True)
        snapshot = self._call(stub.GetSnapshot, f"/{_SERVICE}/GetSnapshot", request).snapshot
        if snapshot.source.loop_id != loop.loop_id:
            raise OpsError("service_response_invalid", "the answer holds no snapshot of the loop")
        return well(f"loop {loop.loop_id}: {snapshot.run.status}, in {milliseconds(begun)}")

    def _stream(self) -> Found:
        loop = self._chosen()
        if loop is None:
            return skip("the agent has no loop that can be read")
        if not self._messages and self._stream_error is None:
            self._watch(loop)
        if self._stream_error is not None:
            raise self._stream_error
        return judge_stream(loop.loop_id, self._messages)

    # --- asking ---------------------------------------------------------------------------------------

    def _chosen(self) -> sprite_pb2.LoopSummary | None:
        """The loop to look at: the one wanted, else the first that can be read."""
        wanted = self._target.loop_id
        loops = self._listed.loops.loops
        if wanted:
            known = (loop for loop in loops if loop.loop_id == wanted)
            return next(known, sprite_pb2.LoopSummary(loop_id=wanted))
        return next((loop for loop in loops if not loop.unavailable_reason), None)

    def _watch(self, loop: sprite_pb2.LoopSummary) -> None:
        """Keep the messages of a stream over the loop's last events, or why there are none."""
        stub = sprite_pb2_grpc.SpriteServiceStub(self._channel)
        line = max(0, loop.head.position.line - SAMPLE_EVENTS)
        request = sprite_pb2.WatchEventsRequest(
            loop_id=loop.loop_id, after=envelope_pb2.LogPosition(line=line), max_events=SAMPLE_EVENTS
        )
        try:
            self._messages = self._collect(
                stub.WatchEvents,
                f"/{_SERVICE}/WatchEvents",
                request,
                lambda message: message.HasField("goodbye"),
            )
        except OpsError as error:
            self._stream_error = error

    def _call(self, method: Any, name: str, request: Message) -> Any:
        """The answer of a unary call. Raises OpsError."""
        metadata = self._metadata(name, request)
        try:
            answer = method(request, timeout=self._steps.patience, metadata=metadata)
        except grpc.RpcError as error:
            raise self._error(error) from error
        if answer is None:
            # gRPC hands this out for bytes that are no message of the method.
            raise OpsError("service_response_invalid", f"{name} was answered with what is no message of it")
        return answer

    def _collect(self, method: Any, name: str, request: Message, is_last: Callable[[Any], bool]) -> list[Any]:
        """The messages of a stream up to the last one that is wanted. Raises OpsError."""
        call = method(request, timeout=self._steps.patience, metadata=self._metadata(name, request))
        messages: list[Any] = []
        try:
            for message in call:
                if message is None:
                    raise OpsError("service_response_invalid", f"{name} brought what is no message of it")
                messages.append(message)
                if is_last(message) or len(messages) >= _MOST_MESSAGES:
                    break
        except grpc.RpcError as error:
            raise self._error(error) from error
        finally:
            # A call that is merely dropped goes on at the server.
            with suppress(Exception):
                call.cancel()
        return messages

    def _metadata(self, name: str, request: Message) -> tuple[tuple[str, str], ...]:
        loop_id = str(getattr(request, "loop_id", ""))
        return self._target.credentials(name, loop_id, request.SerializeToString())

    def _error(self, error: grpc.RpcError) -> OpsError:
        # What a stub raises is also the call; the type of the exception does not say so.
        call: Any = error
        return error_from_status(
            call.code(), call.details() or "", call.trailing_metadata() or (), peer=self._target.address
        )


def _open_channel(target: Target, tls: "TlsClient | None") -> grpc.Channel:
    """Raises OpsError `tls_files_invalid`."""
    options: list[tuple[str, Any]] = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),  # as of all our connections: a token is for one address only
    ]
    if tls is None:
        return grpc.insecure_channel(target.address, options=options)
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return grpc.secure_channel(target.address, grpc.ssl_channel_credentials(*tls.files()), options=options)
