"""The steps that a control request adds to its trace: intent, command, confirmation, effect."""

from typing import NamedTuple

from sprite_agent.connected import connected_document, connected_of
from sprite_agent.runtime.layout import ops_directory
from spritemesh.audit import audit_files
from spritemesh.bridge.control import Facts
from spritemesh.bridge.told import REFUSED, Told
from spritemesh.jsontext import JSON
from spritemesh.traceindex import Entry
from superloop.ops.v1 import control_pb2 as pb

# Of texts that may be long: a trace is an overview.
_SHOWN_CHARS = 200


class RanStep(NamedTuple):
    """When the command began, epoch seconds, and how long it took, seconds."""

    at: float
    seconds: float


def outcome_steps(told: Told, outcome: pb.ControlOutcome, facts: Facts, ran: RanStep | None) -> list[Entry]:
    """All steps of a request that was executed here. ran: None after a crash."""
    found = [
        _step(
            "intent",
            facts,
            facts.started_at,
            told.status,
            facts.finished_at - facts.started_at,
            intent=facts.intent,
            requestedBy=facts.requested_by,
            connected=connected_document(connected_of(outcome)) or None,
            reasonCode=outcome.reason or None,
        )
    ]
    if ran is not None:
        found.append(_runtime_step(told, outcome, facts, ran.at, ran.seconds))
    if outcome.HasField("confirmation"):
        looked_at = facts.started_at if ran is None else ran.at + ran.seconds
        found.append(
            _step(
                "confirmation",
                facts,
                looked_at,
                told.confirmation_status,
                max(0.0, facts.finished_at - looked_at),
                reason=outcome.confirmation.reason,
                attempts=outcome.confirmation.attempts,
            )
        )
    return found + _effect_steps(outcome, facts)


def told_steps(told: Told, outcome: pb.ControlOutcome, facts: Facts) -> list[Entry]:
    """The steps that only an outcome tells a manager of: the command and the effect. Their times on the
    sprite's clock are not known here: they are put to the beginning and the end of the request."""
    found = []
    if outcome.HasField("exit_code"):
        found.append(_runtime_step(told, outcome, facts, facts.started_at, None))
    return found + _effect_steps(outcome, facts)


def refusal_step(facts: Facts, reason: str, connected: dict[str, JSON]) -> Entry:
    """The step of a request that was refused: there is no row of it but that of the invocation.

    connected: who connected, as rows tell it.
    """
    step = _step(
        "invocation",
        facts,
        facts.started_at,
        REFUSED,
        facts.finished_at - facts.started_at,
        intent=facts.intent,
        requestedBy=facts.requested_by,
        connected=connected or None,
        reasonCode=reason,
    )
    return step._replace(file=audit_files(ops_directory("", facts.loop_id)).invocations)


def _runtime_step(
    told: Told, outcome: pb.ControlOutcome, facts: Facts, at: float, seconds: float | None
) -> Entry:
    command = outcome.command[:_SHOWN_CHARS]
    return _step(
        "runtime", facts, at, told.execution_status, seconds, exitCode=outcome.exit_code, command=command
    )


def _effect_steps(outcome: pb.ControlOutcome, facts: Facts) -> list[Entry]:
    """One step, or none when nothing confirmed the request."""
    effect = outcome.effect
    kind = effect.WhichOneof("kind")
    if kind is None:
        return []
    detail: dict[str, JSON]
    if kind == "event":
        event = effect.event
        detail = {"event": event.name, "line": event.position.line, "timestamp": event.timestamp}
    else:
        state = effect.state if kind == "state" else effect.already
        detail = {
            "path": state.path,
            "member": state.member,
            "before": state.before[:_SHOWN_CHARS],
            "after": state.after[:_SHOWN_CHARS],
        }
    return [_step("effect", facts, facts.finished_at, kind, None, **detail)]


def _step(kind: str, facts: Facts, at: float, status: str, seconds: float | None, **detail: JSON) -> Entry:
    # The key joins the steps of one request to one tree.
    joined: dict[str, JSON] = {"idempotencyKey": facts.idempotency_key, **detail}
    file = audit_files(ops_directory("", facts.loop_id)).intents
    return Entry(facts.trace_id, at, facts.loop_id, kind, status, seconds, file, joined)
