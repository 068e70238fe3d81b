"""What became of a control request, as v1 tells it: rows of three files, and an answer (contract D.3, E).

Whoever told of the outcome, it is `Told` first. An agent's message and a v1 answer become the same, so that
rows do not depend on the way.
"""

from typing import NamedTuple

from spritemesh.control import Confirmation, intent_word
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc
from spritemesh.values import drop, first, get, nz
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


class Facts(NamedTuple):
    """What rows say beside the outcome. Times: epoch seconds. requested_by, note: as given.

    The numbers of `request` are told as given, even where they have no effect (contract E.4).
    """

    loop_id: str
    intent: str
    trace_id: str
    requested_by: str
    note: str
    idempotency_key: str
    transport: str
    started_at: float
    finished_at: float
    confirmation: Confirmation = Confirmation()
    retry_attempts: int = 3
    retry_backoff_seconds: int = 1


def exit_code(status: str) -> int:
    """What `ops-manager control` exits with (contract E.2)."""
    return _EXIT_CODES.get(status, 1)


def status_word(status: "pb.ControlStatus.ValueType") -> str:
    """v1's word for a status; one that is not known here counts as ambiguous."""
    return next((word for word, value in _STATUS_ENUM.items() if value == status), AMBIGUOUS)


def status_value(word: str) -> "pb.ControlStatus.ValueType":
    """The enum value of one of v1's words."""
    return _STATUS_ENUM[word]


# --- who tells ---------------------------------------------------------------------------------------


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


# --- what is written ---------------------------------------------------------------------------------


def intent_row(told: Told, facts: Facts) -> dict[str, JSON]:
    """The row of intents.jsonl, which is also what the command prints (contract E.4)."""
    return drop(
        {
            "timestamp": format_utc(facts.finished_at),
            "loopId": facts.loop_id,
            "intent": facts.intent,
            "traceId": facts.trace_id,
            "requestedBy": facts.requested_by,
            "note": nz(facts.note),
            "transport": facts.transport,
            "status": told.status,
            "command": told.command,
            "idempotencyKey": facts.idempotency_key,
            "exitCode": told.exit_code,
            "confirmExitCode": told.confirm_exit_code,
            "confirmed": told.confirmed,
            "commandOutput": nz(told.command_output),
            "confirm": told.confirm,
        }
    )


def control_row(told: Told, facts: Facts) -> dict[str, JSON]:
    """The row of telemetry/control.jsonl (contract E.4)."""
    return drop(
        {
            "timestamp": format_utc(facts.finished_at),
            "startedAt": format_utc(facts.started_at),
            "loopId": facts.loop_id,
            "intent": facts.intent,
            "traceId": facts.trace_id,
            "transport": facts.transport,
            "status": told.status,
            "reasonCode": told.reason_code,
            "idempotencyKey": facts.idempotency_key,
            "requestedBy": facts.requested_by,
            "exitCode": told.exit_code,
            "confirmExitCode": told.confirm_exit_code,
            "confirmed": told.confirmed,
            "durationSeconds": _duration(facts),
            "retryAttempts": facts.retry_attempts,
            "retryBackoffSeconds": facts.retry_backoff_seconds,
        }
    )


def invocation_row(told: Told, facts: Facts) -> dict[str, JSON]:
    """The row of telemetry/control-invocations.jsonl (contract E.4).

    `execution.reasonCode` is ours, and there only when v1 has no word for what happened.
    """
    return drop(
        {
            "schemaVersion": "v1",
            "timestamp": format_utc(facts.finished_at),
            "startedAt": format_utc(facts.started_at),
            "loopId": facts.loop_id,
            "intent": facts.intent,
            "traceId": facts.trace_id,
            "transport": facts.transport,
            "requestedBy": facts.requested_by,
            "note": nz(facts.note),
            "idempotencyKey": facts.idempotency_key,
            "request": {
                "doConfirm": not facts.confirmation.skip,
                "timeoutSeconds": _number(facts.confirmation.timeout_seconds),
                "intervalSeconds": _number(facts.confirmation.interval_seconds),
                "retryAttempts": facts.retry_attempts,
                "retryBackoffSeconds": facts.retry_backoff_seconds,
            },
            "execution": drop(
                {
                    "status": told.execution_status,
                    "exitCode": told.exit_code,
                    "command": told.command,
                    "output": nz(told.command_output),
                    "replayed": told.replayed,
                    "reasonCode": nz(told.reason),
                }
            ),
            "confirmation": drop(
                {
                    "attempted": told.confirm is not None,
                    "status": told.confirmation_status,
                    "exitCode": told.confirm_exit_code,
                    "outcome": told.confirm,
                }
            ),
            "outcome": drop(
                {
                    "status": told.status,
                    "confirmed": told.confirmed,
                    "reasonCode": told.reason_code,
                    "durationSeconds": _duration(facts),
                }
            ),
        }
    )


def answer_document(row: dict[str, JSON], told: Told, *, stderr: str = "") -> dict[str, JSON]:
    """The body that POST /ops/control answers with (contract D.3). row: that of intents.jsonl."""
    code = exit_code(told.status)
    return drop(
        {
            "ok": code == 0,
            "exitCode": code,
            "result": row,
            "stderr": nz(stderr),
            "replayed": told.replayed,
            "traceId": get(row, "traceId"),
        }
    )


def answer_of_outcome(outcome: pb.ControlOutcome, confirmation: Confirmation) -> dict[str, JSON]:
    """The answer that an agent's HTTP bridge would give for an outcome that came over gRPC."""
    told = told_by_outcome(outcome)
    facts = facts_of_outcome(outcome, confirmation)
    return answer_document(intent_row(told, facts), told)


def facts_of_outcome(outcome: pb.ControlOutcome, confirmation: Confirmation) -> Facts:
    """The facts of the rows that an agent writes, whose transport is "local" (contract D.3)."""
    return Facts(
        loop_id=outcome.loop_id,
        intent=intent_word(outcome.intent),
        trace_id=outcome.trace_id,
        requested_by=outcome.requested_by,
        note=outcome.note,
        idempotency_key=outcome.idempotency_key,
        transport="local",
        started_at=outcome.started_at.ToMilliseconds() / 1000,
        finished_at=outcome.finished_at.ToMilliseconds() / 1000,
        confirmation=confirmation,
    )


def confirm_document(intent: str, confirmation: pb.ControlConfirmation) -> dict[str, JSON]:
    """The document of E.3, members in its order, all present."""
    event, approval = confirmation.observed_last_event, confirmation.observed_approval_status
    return {
        "intent": intent,
        "confirmed": confirmation.confirmed,
        "reason": confirmation.reason,
        "attempts": confirmation.attempts,
        "timeoutSeconds": _number(confirmation.timeout.ToMilliseconds() / 1000),
        "observedStatus": confirmation.observed_status,
        "observedLastEvent": event if confirmation.HasField("observed_last_event") else None,
        "observedApprovalStatus": approval if confirmation.HasField("observed_approval_status") else None,
        "observedActive": confirmation.observed_active,
        "observedAt": confirmation.observed_at,
    }


def _duration(facts: Facts) -> int:
    return max(0, int(facts.finished_at) - int(facts.started_at))


def _number(seconds: float) -> int | float:
    return int(seconds) if seconds == int(seconds) else seconds


def _integer(value: JSON, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default
