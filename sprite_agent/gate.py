"""What every call over gRPC passes: limits, admission, drain, and a count of how it ended.

Wrapped handlers (sprite_agent.handlers) are made once a method, each with a door of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from sprite_agent.admission import Admission, Arrival, Right
from sprite_agent.counts import UNKNOWN, Counts
from sprite_agent.deadlines import COMMAND_SECONDS, Deadlines, late
from sprite_agent.drain import Room
from sprite_agent.handlers import undecodable, wrap
from sprite_agent.peers import address_of, identities_of
from sprite_agent.provenance import CURRENT, Provenance
from sprite_agent.rooms import Rooms, Waits
from spritemesh import traced
from spritemesh.control import from_message
from spritemesh.errors import OpsError
from superloop.ops.v1 import control_pb2

_HEALTH = "/grpc.health.v1.Health/"
_CONTROLS = frozenset(
    f"/{control_pb2.DESCRIPTOR.services_by_name['ControlService'].full_name}/{name}"
    for name in ("CancelLoop", "ApprovePending", "RejectPending")
)
_EDGE = "grpc"  # in counts
# How long a refused caller should wait for the next agent.
DRAIN_RETRY_SECONDS = 2.0
# Of those who ask what the server serves; each costs as much as a stream.
_MAX_TALKS = 64
# Requests of calls without credentials that are waited for. Of each gRPC may hold a whole message meanwhile.
_MAX_STRANGERS = 64

if TYPE_CHECKING:
    _Handler = grpc.RpcMethodHandler[Any, Any]


class Speaker(NamedTuple):
    """Whose server it is. draining, fault: reason codes of its end, and of a defect of its own."""

    name: str
    draining: str
    fault: str


_AGENT = Speaker("agent", "agent_draining", "agent_fault")


class Gate(grpc.aio.ServerInterceptor):
    """Interceptor of a server. Health checks need no credentials: probes have none."""

    def __init__(
        self,
        admission: Admission,
        is_draining: Callable[[], bool],
        counts: Counts | None = None,
        speaker: Speaker = _AGENT,
        *,
        command_seconds: float = COMMAND_SECONDS,
    ) -> None:
        """counts: where ends of calls are counted. command_seconds: what a runtime command may take."""
        limits = admission.limits
        self.speaker = speaker
        self.admission = admission
        self.counts = counts or Counts()
        self.is_draining = is_draining
        self.deadlines = Deadlines(limits.request_seconds, limits.unary_seconds, command_seconds)
        # Calls of each connection.
        self.connections = Rooms(
            limits.streams_per_connection, "too_many_streams", "calls are open on the connection:"
        )
        self.talks = Room(_MAX_TALKS, "descriptions of the server")
        self.strangers = Waits(_MAX_STRANGERS)
        self._wrapped: dict[str, _Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """The handler of a method behind the gate; of one that is none, a refusal behind the gate."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        if handler is None:
            unknown = _unknown(method)
            return wrap(unknown, Door(self, method, unknown, UNKNOWN))  # not kept: strangers name any
        wrapped = self._wrapped[method] = wrap(handler, Door(self, method, handler, method[1:]))
        return wrapped


class Door:
    """Of one method: decides on its calls. label: of the method in counts."""

    def __init__(self, gate: Gate, method: str, handler: _Handler, label: str) -> None:
        self._gate = gate
        self._method = method
        self._decode = handler.request_deserializer
        self._right = _right(method)
        self._label = label
        self._most = gate.admission.limits.request_bytes
        self.speaker = gate.speaker
        self.talks = gate.talks
        # For a request to arrive.
        self.patience = gate.deadlines.request

    def knock(self, context: Any) -> Arrival:
        """The call as it arrived."""
        return Arrival(
            _EDGE,
            self._method,
            self._right,
            context.invocation_metadata() or (),
            address_of(context),
            identities_of(context),
        )

    def step(self, arrival: Arrival) -> traced.Step:
        """A call that was let in, in traces: strangers write none of them, and probes, which come every few
        seconds, are none."""
        if self._right is Right.PUBLIC:
            return traced.OFF
        return traced.request("rpc", "gate.py", self._label, arrival.headers, edge=_EDGE)

    def take_place(self, arrival: Arrival) -> bool:
        """Take a place on the connection; whether one was taken, which `ended` gives back. All who come
        through a Unix socket have one address: gRPC's own bound is the one of each connection there.

        Raises OpsError `too_many_streams`.
        """
        if arrival.address == "unix":
            return False
        self._gate.connections.take(arrival.address)
        return True

    def enter(self, arrival: Arrival) -> Provenance:
        """Who connected. Raises OpsError for who may not come in; nothing of the request is needed."""
        provenance = self._gate.admission.enter(arrival)
        if self._right is not Right.PUBLIC:
            self._gate.admission.expect_body(arrival)
        return provenance

    def waits(self, patience: asyncio.Timeout) -> AbstractContextManager[None]:
        """For the time in which a request is waited for. patience: bounds it."""
        return self._gate.strangers.entered(patience) if self._right is Right.PUBLIC else nullcontext()

    def message(self, arrival: Arrival, provenance: Provenance, data: bytes | None) -> Any:
        """The message of a request's bytes; None: there are none. Raises OpsError for what is not taken."""
        if data is not None and len(data) > self._most:
            raise OpsError("message_too_large", f"the request is larger than {self._most} bytes")
        message = None if data is None else self.decode(data)
        self.check(arrival, provenance, data or b"", getattr(message, "loop_id", ""))
        if message is None:
            raise undecodable()
        return message

    def check(self, arrival: Arrival, provenance: Provenance, data: bytes, loop_id: str = "") -> None:
        """Signature, rate and drain. Raises OpsError; from then on `CURRENT` tells who called."""
        CURRENT.set(self._gate.admission.verify(arrival, provenance, loop_id=loop_id, body=data))
        if self._gate.is_draining() and self._right is not Right.PUBLIC:
            raise draining(self.speaker)

    def decode(self, data: bytes) -> Any:
        """The message of a request's bytes; None when they are none of the method."""
        try:
            return self._decode(data) if self._decode is not None else data
        except DecodeError:
            return None

    def seconds(self, message: Any) -> float:
        """What a call gets that set no deadline itself."""
        deadlines = self._gate.deadlines
        if self._right is Right.CONTROL:
            return deadlines.control(from_message(message).confirmation)
        return deadlines.unary

    def late(self, seconds: float) -> OpsError:
        """What a caller is told whose call took too long."""
        return late(seconds, control=self._right is Right.CONTROL)

    def ended(self, arrival: Arrival, reason: str, *, is_placed: bool) -> None:
        """Count a call, and give its place back. reason: a word of sprite_agent.counts."""
        if is_placed:
            self._gate.connections.give(arrival.address)
        self._gate.counts.call_ended(_EDGE, self._label, reason)


def draining(speaker: Speaker) -> OpsError:
    """What callers are told of a server that is ending."""
    return OpsError(speaker.draining, f"the {speaker.name} is shutting down", retry_after=DRAIN_RETRY_SECONDS)


def _right(method: str) -> Right:
    if method.startswith(_HEALTH):
        return Right.PUBLIC
    return Right.CONTROL if method in _CONTROLS else Right.READ


def _unknown(method: str) -> _Handler:
    """Stands for a method that is not served."""

    async def refuse(_request: Any, _context: Any) -> Any:
        raise OpsError("unsupported_method", f"unknown method {method[:200]}")

    return grpc.unary_unary_rpc_method_handler(refuse)
