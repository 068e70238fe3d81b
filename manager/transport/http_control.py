"""Control through POST /ops/control (contract D.3, E.2): one try of one request, and what its answer says."""

from collections.abc import Callable
from typing import NamedTuple

from manager.transport.base import Controlled, control_command
from manager.transport.delivery import Unanswered
from manager.transport.http_client import Answer, HttpClient, NoAnswer, error_of
from spritemesh import jsontext
from spritemesh.bridge.told import told_by_answer
from spritemesh.control import ControlRequest
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.values import drop, get, nz
from superloop.ops.v1 import envelope_pb2 as pb

_PATH = "/ops/control"
# A service confirms so long, whatever the caller wants (contract D.3).
_CONFIRMATION_SECONDS = 30.0
# How long a request may take beside its confirmation: an agent's runtime command has 60 s.
_COMMAND_SECONDS = 75.0
# Failures of an agent that may have come after the command was run.
_MAYBE_AFTER = frozenset({"agent_fault", "audit_unavailable", "internal_error"})
# What stands for "try again" where only a status is known, so that delivery knows it.
_REASON_OF_STATUS = {
    408: "deadline_exceeded",
    425: "agent_unreachable",
    429: "agent_unreachable",
    502: "agent_unreachable",
    503: "agent_unreachable",
    504: "deadline_exceeded",
}


class Target(NamedTuple):
    """Run, and identity of the pending approval; "" for none."""

    run_id: str
    approval_id: str


def check_target(
    request: ControlRequest, snapshot: Callable[..., pb.LoopRunSnapshot], client: HttpClient
) -> None:
    """Refuse with `target_changed` when the loop is not the one that the operator saw.

    Only for a v1 service, which cannot check that itself; an agent does, and knows repetitions. Once, before
    the first try: later the loop may be another by the very request. snapshot: through `client`; its errors
    are raised, too.
    """
    wanted = Target(request.expected_run_id, request.expected_approval_id)
    if not any(wanted):
        return
    found = target_of(snapshot(request.loop_id, trace_id=request.trace_id or None))
    if client.meets_agent:
        return
    for what, expected, seen in zip(("run", "pending approval"), wanted, found, strict=True):
        if expected and expected != seen:
            raise OpsError(
                "target_changed", f"the {what} is {seen or 'none'}, not {expected}; the request was not sent"
            )


def target_of(snapshot: pb.LoopRunSnapshot) -> Target:
    """What a request may name of a snapshot that came as a v1 document."""
    pending = snapshot.health.has_pending_approval
    return Target(snapshot.run.run_id, snapshot.artifacts.approval.sha256 if pending else "")


def body_of(request: ControlRequest) -> bytes:
    """The body, pretty-printed as v1's is (contract E.2)."""
    document = drop(
        {
            "loopId": request.loop_id,
            "intent": request.intent,
            "by": request.requested_by,
            "note": nz(request.note),
            "traceId": nz(request.trace_id),
            "idempotencyKey": request.idempotency_key,
            "noConfirm": request.confirmation.skip,
            # Ours: an agent's bridge checks them, a v1 service passes them over.
            "expectedRunId": nz(request.expected_run_id),
            "expectedApprovalId": nz(request.expected_approval_id),
        }
    )
    return jsontext.pretty(document) + b"\n"


class ControlPost:
    """Control requests of a client."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def send(self, request: ControlRequest) -> Controlled:
        """One try. Raises Unanswered when it may have arrived; OpsError when it was refused or never sent."""
        seconds = _COMMAND_SECONDS + (0 if request.confirmation.skip else _CONFIRMATION_SECONDS)
        try:
            answer = self._client.request(
                "POST", _PATH, body=body_of(request), trace_id=request.trace_id or None, silence=seconds
            )
        except NoAnswer as lost:
            if lost.sent:
                raise Unanswered(lost.error) from lost
            raise lost.error from lost
        except OpsError as error:
            raise Unanswered(error) from error  # it answered more than is read
        document = _control_answer(answer)
        if document is None:
            raise self._error(answer)
        text = jsontext.encode(document).decode()
        return Controlled(told_by_answer(document, control_command(self._client.base_url), text))

    def _error(self, answer: Answer) -> Unanswered | OpsError:
        """What to raise for an answer that tells of no outcome."""
        if answer.ok:
            return Unanswered(
                OpsError("service_response_invalid", f"{answer.what}: {answer.status} without an outcome")
            )
        error = error_of(answer, has_token=self._client.has_token)
        if error.reason != "service_http_error":
            return Unanswered(error) if error.reason in _MAYBE_AFTER else error
        reason = _REASON_OF_STATUS.get(answer.status, error.reason)
        error = OpsError(reason, error.message, retry_after=error.retry_after)
        # Whoever stands between may have let the request through before it failed.
        return Unanswered(error) if answer.status >= 500 or answer.status == 408 else error


def _control_answer(answer: Answer) -> JSON:
    """The document of an outcome, whatever its status says (contract D.3, L16); None when it is none."""
    if answer.status not in {200, 409, 500}:
        return None
    try:
        document = answer.document()
    except OpsError:
        return None
    tells = isinstance(get(document, "ok"), bool) and not isinstance(get(document, "error"), dict)
    return document if tells and (get(document, "exitCode") is not None or get(document, "ok")) else None
