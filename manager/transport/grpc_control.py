"""Control through an agent over gRPC: one try of one request, told as a v1 service would have answered.

Before each try the agent is asked for the key. Whether a request that was not answered may have arrived is
known by that: where nobody answered the question, the request was never sent. When no outcome comes in time,
the agent is asked again; as long as it works on the request, the next try joins it.
"""

from collections.abc import Callable
from typing import Any

import grpc

from manager.transport import delivery
from manager.transport.base import Controlled, Endpoint, control_command
from manager.transport.delivery import MAYBE_AFTER, Unanswered
from spritemesh import jsontext
from spritemesh.bridge.control import answer_of_outcome
from spritemesh.bridge.told import told_by_answer
from spritemesh.control import ControlRequest, intent_word, to_message
from spritemesh.errors import OpsError
from spritemesh.grpcstatus import DETAILS_KEY
from spritemesh.reasons import Fault
from superloop.ops.v1 import control_pb2 as pb
from superloop.ops.v1 import control_pb2_grpc

_QUESTION_SECONDS = 10.0
# Errors of the question that mean: nobody answers.
_NOBODY = frozenset({"agent_unreachable", "deadline_exceeded"})

Metadata = tuple[tuple[str, str], ...]


def command_of(endpoint: Endpoint) -> str:
    """A request as rows show it."""
    return control_command(endpoint.url)


class ControlCall:
    """Calls of ControlService on a channel. metadata: of a call that is made now. error_of: the error that a
    failed call stands for."""

    def __init__(
        self,
        channel: grpc.Channel,
        endpoint: Endpoint,
        metadata: Callable[[], Metadata],
        error_of: Callable[[grpc.RpcError], OpsError],
    ) -> None:
        self._stub = control_pb2_grpc.ControlServiceStub(channel)
        self._endpoint = endpoint
        self._metadata = metadata
        self._error_of = error_of

    def send(self, request: ControlRequest) -> Controlled:
        """One try. Raises Unanswered when it may have arrived; OpsError when it was refused or never sent."""
        try:
            self._recorded(request)
        except OpsError as unknown:
            if unknown.reason in _NOBODY:
                raise
        try:
            outcome = self._call(request)
        except grpc.RpcError as failure:
            error = self._error_of(failure)
            if error.reason in MAYBE_AFTER:
                return self._told(request, self._settled(request, error), error)
            if error.reason == "deadline_exceeded":
                return self._told(request, self._late(request, error))
            if not _is_refusal(failure, error):
                raise Unanswered(error) from failure
            raise error from failure
        return self._told(request, outcome)

    def _call(self, request: ControlRequest) -> pb.ControlOutcome:
        policy = request.confirmation
        seconds = delivery.COMMAND_SECONDS + (0 if policy.skip else policy.timeout_seconds)
        message = to_message(request)
        response: pb.CancelLoopResponse | pb.ApprovePendingResponse | pb.RejectPendingResponse
        if isinstance(message, pb.CancelLoopRequest):
            response = self._stub.CancelLoop(message, timeout=seconds, metadata=self._metadata())
        elif isinstance(message, pb.ApprovePendingRequest):
            response = self._stub.ApprovePending(message, timeout=seconds, metadata=self._metadata())
        else:
            response = self._stub.RejectPending(message, timeout=seconds, metadata=self._metadata())
        if not response.HasField("outcome"):
            raise Unanswered(
                OpsError("service_response_invalid", f"{self._endpoint.target} answered without an outcome")
            )
        return response.outcome

    def _recorded(self, request: ControlRequest) -> pb.GetInvocationResponse:
        """What the agent knows of the key. Raises OpsError."""
        try:
            return self._stub.GetInvocation(
                pb.GetInvocationRequest(idempotency_key=request.idempotency_key),
                timeout=_QUESTION_SECONDS,
                metadata=self._metadata(),
            )
        except grpc.RpcError as failure:
            raise self._error_of(failure) from failure

    def _settled(self, request: ControlRequest, error: OpsError) -> pb.ControlOutcome:
        """The outcome that the agent recorded, though it failed with `error` afterwards.

        Raises `error` when nothing was run, and Unanswered when that is not known.
        """
        try:
            recorded = self._recorded(request)
        except OpsError as unknown:
            if unknown.reason == "invocation_not_found":
                raise error from unknown
            raise Unanswered(error) from unknown
        if not _is_finished(recorded, request):
            raise Unanswered(error)
        return recorded.outcome

    def _late(self, request: ControlRequest, error: OpsError) -> pb.ControlOutcome:
        """The outcome that was recorded and did not come in time. Raises Unanswered when there is none."""
        try:
            recorded = self._recorded(request)
        except OpsError as unknown:
            raise Unanswered(error) from unknown
        if not _is_finished(recorded, request):
            raise Unanswered(OpsError(error.reason, f"{error.message}; the agent still works on it"))
        return recorded.outcome

    def _told(
        self, request: ControlRequest, outcome: pb.ControlOutcome, error: OpsError | None = None
    ) -> Controlled:
        answer = answer_of_outcome(outcome, request.confirmation)
        text = jsontext.encode(answer).decode()
        return Controlled(told_by_answer(answer, command_of(self._endpoint), text), outcome, error=error)


def _is_finished(recorded: pb.GetInvocationResponse, request: ControlRequest) -> bool:
    """Whether the record tells what came of this request, and not of another one with its key."""
    outcome = recorded.outcome
    of_request = (outcome.loop_id, intent_word(outcome.intent)) == (request.loop_id, request.intent)
    return recorded.state == pb.INVOCATION_STATE_FINISHED and of_request


def _is_refusal(failure: grpc.RpcError, error: OpsError) -> bool:
    """Whether it is certain that the request was not run: the agent says so, or nobody let it through."""
    call: Any = failure  # what a stub raises is also the call
    told = any(key == DETAILS_KEY for key, _ in call.trailing_metadata() or ())
    return told or error.row.fault in {Fault.CREDENTIALS, Fault.UNKNOWN_METHOD}
