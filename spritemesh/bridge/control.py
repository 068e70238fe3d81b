"""What v1 writes of a control request: rows of three files, and a service's answer (contract D.3, E.4)."""

from typing import NamedTuple

from spritemesh.bridge.told import Told, exit_code, told_by_outcome, whole_or_fraction
from spritemesh.control import Confirmation, ControlRequest, intent_word
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc
from spritemesh.values import drop, get, nz
from superloop.ops.v1 import control_pb2 as pb


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
                "timeoutSeconds": whole_or_fraction(facts.confirmation.timeout_seconds),
                "intervalSeconds": whole_or_fraction(facts.confirmation.interval_seconds),
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


def facts_of_request(
    request: ControlRequest,
    times: tuple[float, float],
    *,
    transport: str,
    retry_attempts: int,
    retry_backoff_seconds: int,
    shown_key: str = "",
) -> Facts:
    """The facts of a request. times: when it began and ended. shown_key: a key to show instead of its own."""
    return Facts(
        loop_id=request.loop_id,
        intent=request.intent,
        trace_id=request.trace_id,
        requested_by=request.requested_by,
        note=request.note,
        idempotency_key=shown_key or request.idempotency_key,
        transport=transport,
        started_at=times[0],
        finished_at=times[1],
        confirmation=request.confirmation,
        retry_attempts=retry_attempts,
        retry_backoff_seconds=retry_backoff_seconds,
    )


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


def _duration(facts: Facts) -> int:
    return max(0, int(facts.finished_at) - int(facts.started_at))
