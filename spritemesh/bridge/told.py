"""What became of a control request in v1's words, whoever told of it (contract E.2).

An agent's message and the answer of a v1 service become the same, so that rows do not depend on the way.
"""

from typing import NamedTuple

from spritemesh.control import intent_word
from spritemesh.jsontext import JSON
from spritemesh.values import first, get
from superloop.ops.v1 import control_pb2 as pb

CONFIRMED = "confirmed"
UNCONFIRMED = "executed_unconfirmed"
AMBIGUOUS = "ambiguous"
FAILED = "failed_command"
# Outcome of a request that was refused before anything ran. No v1 tool writes it.
REFUSED = "refused"

_STATUS_ENUM = {
    CONFIRMED: pb.CONTROL_STATUS_CONFIRMED,
    UNCONFIRMED: pb.CONTROL_STATUS_EXECUTED_UNCONFIRMED,
    AMBIGUOUS: pb.CONTROL_STATUS_AMBIGUOUS,
    FAILED: pb.CONTROL_STATUS_FAILED_COMMAND,
}
_EXIT_CODES = {CONFIRMED: 0, UNCONFIRMED: 0, AMBIGUOUS: 2}
# Outcomes of which the command's own success is not known.
_UNKNOWN_EXECUTIONS = frozenset({"runtime_killed", "runtime_timeout", "control_interrupted"})


class Told(NamedTuple):
    """What is known of an outcome, in v1's words (contract E.2). reason: a fine code that v1 has none for."""

    status: str
    exit_code: int | None
    confirm_exit_code: int
    confirmed: bool
    command: str
    command_output: str
    confirm: JSON
    execution_status: str
    confirmation_status: str
    replayed: bool
    reason: str = ""

    @property
    def reason_code(self) -> str | None:
        """The `reasonCode` of telemetry: of v1's two, or why the request was refused."""
        if self.status == REFUSED:
            return self.reason
        return {AMBIGUOUS: "control_ambiguous", FAILED: "control_failed_command"}.get(self.status)


def exit_code(status: str) -> int:
    """What `ops-manager control` exits with (contract E.2)."""
    return _EXIT_CODES.get(status, 1)


def status_word(status: "pb.ControlStatus.ValueType") -> str:
    """v1's word for a status; one that is not known here counts as ambiguous."""
    return next((word for word, value in _STATUS_ENUM.items() if value == status), AMBIGUOUS)


def told_by_outcome(outcome: pb.ControlOutcome) -> Told:
    """An outcome as the local transport of v1 tells it."""
    status = status_word(outcome.status)
    looked = outcome.HasField("confirmation")
    confirm = confirm_document(intent_word(outcome.intent), outcome.confirmation) if looked else None
    if looked:
        confirmation_status = CONFIRMED if outcome.confirmation.confirmed else AMBIGUOUS
    else:
        confirmation_status = "skipped" if status == UNCONFIRMED else "not_attempted"
    if outcome.reason in _UNKNOWN_EXECUTIONS and not looked:
        execution_status = "unknown"
    else:
        execution_status = FAILED if status == FAILED else "succeeded"
    return Told(
        status=status,
        exit_code=outcome.exit_code if outcome.HasField("exit_code") else None,
        confirm_exit_code=int(looked and not outcome.confirmation.confirmed),
        confirmed=status == CONFIRMED,
        command=outcome.command,
        command_output=outcome.output_tail,
        confirm=confirm,
        execution_status=execution_status,
        confirmation_status=confirmation_status,
        replayed=outcome.replayed,
        reason=outcome.reason if outcome.reason in _UNKNOWN_EXECUTIONS else "",
    )


def told_by_answer(answer: JSON, command: str, answer_text: str) -> Told:
    """What a service answered to POST /ops/control (contract E.2). command: the request as it is shown."""
    result = get(answer, "result")
    told_exit = _integer(get(answer, "exitCode"), 0)
    status = get(result, "status")
    if not isinstance(status, str) or not status:
        status = CONFIRMED if get(answer, "ok") is True else AMBIGUOUS if told_exit == 2 else FAILED
    confirm = first(get(result, "confirm"), None)
    if status in {CONFIRMED, AMBIGUOUS}:
        confirmation_status = status
    elif status == UNCONFIRMED:
        confirmation_status = "skipped"
    else:
        confirmation_status = "not_attempted" if confirm is None else "attempted_unknown"
    return Told(
        status=status,
        exit_code=told_exit,
        confirm_exit_code=_integer(get(result, "confirmExitCode"), 0),
        confirmed=get(result, "confirmed") is True or status == CONFIRMED,
        command=command,
        command_output=answer_text,
        confirm=confirm,
        execution_status=FAILED if status == FAILED else "succeeded",
        confirmation_status=confirmation_status,
        replayed=get(answer, "replayed") is True,
    )


def told_by_failure(command: str) -> Told:
    """A request that no service answered (contract E.2)."""
    return Told(FAILED, 1, 0, False, command, "{}", None, FAILED, "not_attempted", False)


def told_by_silence(command: str, reason: str) -> Told:
    """A request that may have reached a service which never answered: what became of it is not known."""
    return Told(AMBIGUOUS, None, 0, False, command, "", None, "unknown", "not_attempted", False, reason)


def told_by_refusal(reason: str, command: str) -> Told:
    """A request that was refused for a reason of the table; nothing ran."""
    return Told(REFUSED, None, 0, False, command, "", None, REFUSED, "not_attempted", False, reason)


def confirm_document(intent: str, confirmation: pb.ControlConfirmation) -> dict[str, JSON]:
    """The document of E.3, members in its order, all present."""
    event, approval = confirmation.observed_last_event, confirmation.observed_approval_status
    return {
        "intent": intent,
        "confirmed": confirmation.confirmed,
        "reason": confirmation.reason,
        "attempts": confirmation.attempts,
        "timeoutSeconds": whole_or_fraction(confirmation.timeout.ToMilliseconds() / 1000),
        "observedStatus": confirmation.observed_status,
        "observedLastEvent": event if confirmation.HasField("observed_last_event") else None,
        "observedApprovalStatus": approval if confirmation.HasField("observed_approval_status") else None,
        "observedActive": confirmation.observed_active,
        "observedAt": confirmation.observed_at,
    }


def whole_or_fraction(seconds: float) -> int | float:
    """Seconds as v1 writes them: whole ones without a point."""
    return int(seconds) if seconds == int(seconds) else seconds


def _integer(value: JSON, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default
