"""Control through POST /ops/control (contract D.3, E.2): one try of one request, and what its answer says.

An agent refuses with a reason, and executes a key once; a v1 service does neither. Which of them answers is
told by a header of each answer; where there is none, GET /healthz is asked.
"""

from collections.abc import Callable
from typing import NamedTuple

from manager.transport import delivery
from manager.transport.base import Controlled, control_command
from manager.transport.delivery import MAYBE_AFTER, Failed, Unanswered
from manager.transport.http_client import (
    RETRIED_STATUSES,
    Answer,
    HttpClient,
    NoAnswer,
    error_of,
    plain_error,
)
from spritemesh import jsontext
from spritemesh.bridge.told import told_by_answer
from spritemesh.control import ControlRequest
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.secrets import Scrubber
from spritemesh.values import drop, get, nz
from superloop.ops.v1 import envelope_pb2 as pb

_PATH = "/ops/control"
# A service confirms so long, whatever the caller wants (contract D.3).
_CONFIRMATION_SECONDS = 30.0
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
    if client.is_agent:
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
            "requirePending": (request.intent != "cancel" and not request.even_if_nothing_pending) or None,
        }
    )
    return jsontext.pretty(document) + b"\n"


class ControlPost:
    """Control requests of a client."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        # What was seen of a try that was sent and not answered.
        self._lost: OpsError | None = None

    def send(self, request: ControlRequest) -> Controlled:
        """One try. Raises Unanswered when it may have arrived; Failed for the error of a v1 service; OpsError
        when it was refused or never sent."""
        if self._lost is not None and not self._client.ask_agent():
            raise self._unanswered(self._lost)
        seconds = delivery.COMMAND_SECONDS + (0 if request.confirmation.skip else _CONFIRMATION_SECONDS)
        try:
            answer = self._client.request(
                "POST", _PATH, body=body_of(request), trace_id=request.trace_id or None, silence=seconds
            )
        except NoAnswer as lost:
            if not lost.sent:
                raise lost.error from lost
            self._lost = lost.error
            raise self._unanswered(lost.error) from lost
        except OpsError as error:
            raise Unanswered(error, again=False) from error  # it answered more than is read
        document = _control_answer(answer)
        if document is None:
            raise self._failure(answer)
        text = jsontext.encode(_scrubbed(document, answer.scrubber)).decode()
        told = told_by_answer(document, control_command(self._client.base_url), text)
        return Controlled(told._replace(confirm=_scrubbed(told.confirm, answer.scrubber)))

    def _unanswered(self, error: OpsError) -> Unanswered:
        """A request that was sent: only an agent may get it again. Who cannot be asked yet is asked later."""
        return Unanswered(error, again=None if self._client.ask_agent() is not False else False)

    def _failure(self, answer: Answer) -> Unanswered | Failed | OpsError:
        """What to raise for an answer that tells of no outcome."""
        if answer.ok:
            # It seems to have been run, so it has not failed as v1's client fails (contract L6).
            error = OpsError("service_response_invalid", f"{answer.what}: {answer.status} without an outcome")
            return Unanswered(error, again=False)
        # Whoever stands between may have let the request through before it failed.
        by_gateway = answer.status >= 500 or answer.status == 408
        has_token = self._client.has_token
        if not (self._client.ask_agent() if by_gateway else self._client.is_agent):
            error = plain_error(answer, has_token=has_token)
            again = answer.status in RETRIED_STATUSES
            # Its 409 means that the command ran (contract D.3).
            return Unanswered(error, again=again) if answer.status == 409 else Failed(error, again=again)
        error = error_of(answer, has_token=has_token)
        if error.reason != "service_http_error":
            # What took too long goes on: 504 and 507 of an agent.
            may_run = error.reason in MAYBE_AFTER or error.reason == "deadline_exceeded"
            return Unanswered(error) if may_run else error
        reason = _REASON_OF_STATUS.get(answer.status, error.reason)
        error = OpsError(reason, error.message, retry_after=error.retry_after)
        return Unanswered(error) if by_gateway else error


def _control_answer(answer: Answer) -> JSON:
    """The document of an outcome (contract E.2, L16); None when it is none.

    A success holds an object, whatever its members; 409 and 500 hold one that tells of an outcome.
    """
    if not answer.ok and answer.status not in {409, 500}:
        return None
    try:
        document = answer.document()
    except OpsError:
        return None
    if answer.ok:
        return document if isinstance(document, dict) else None
    tells = isinstance(get(document, "ok"), bool) and not isinstance(get(document, "error"), dict)
    return document if tells and (get(document, "exitCode") is not None or get(document, "ok")) else None


def _scrubbed(value: JSON, scrubber: Scrubber) -> JSON:
    """A document without the token in its texts: it is written down."""
    if isinstance(value, str):
        return scrubber.scrub(value)
    if isinstance(value, list):
        return [_scrubbed(element, scrubber) for element in value]
    if isinstance(value, dict):
        return {name: _scrubbed(member, scrubber) for name, member in value.items()}
    return value
