"""ControlService: an adapter between the wire and the control desk."""

from typing import Any

from sprite_agent.control import Caller
from sprite_agent.desk import ControlDesk
from sprite_agent.provenance import CURRENT
from sprite_agent.services.metadata import trace_id_of_call
from spritemesh.control import RequestMessage, from_message
from spritemesh.errors import OpsError
from spritemesh.ids import new_trace_id
from superloop.ops.v1 import control_pb2 as pb
from superloop.ops.v1 import control_pb2_grpc


class ControlService(control_pb2_grpc.ControlServiceServicer):
    """Three operations, each executed at most once, and what became of them (docs/wire.md)."""

    def __init__(self, desk: ControlDesk) -> None:
        self._desk = desk

    async def CancelLoop(self, request: pb.CancelLoopRequest, context: Any) -> pb.CancelLoopResponse:
        """End the run of a loop."""
        return pb.CancelLoopResponse(outcome=await self._execute(request, context))

    async def ApprovePending(
        self, request: pb.ApprovePendingRequest, context: Any
    ) -> pb.ApprovePendingResponse:
        """Approve what a loop waits for."""
        return pb.ApprovePendingResponse(outcome=await self._execute(request, context))

    async def RejectPending(self, request: pb.RejectPendingRequest, context: Any) -> pb.RejectPendingResponse:
        """Reject what a loop waits for."""
        return pb.RejectPendingResponse(outcome=await self._execute(request, context))

    async def GetInvocation(self, request: pb.GetInvocationRequest, context: Any) -> pb.GetInvocationResponse:
        """What became of an idempotency key."""
        return await self._desk.invocation(request.idempotency_key)

    async def _execute(self, message: RequestMessage, context: Any) -> pb.ControlOutcome:
        request = from_message(message)
        caller = Caller(provenance=CURRENT.get())
        try:
            trace_id = trace_id_of_call(message.trace_id, context) or new_trace_id()
        except OpsError as error:
            await self._desk.note_refusal(request, caller, error)
            raise
        return await self._desk.execute(request._replace(trace_id=trace_id), caller)
