"""The state of a loop as one document, from a snapshot and the last event (contract F)."""

from typing import NamedTuple

from spritemesh.bridge.events import ENVELOPE_TYPE as EVENT_TYPE
from spritemesh.bridge.parts import SCHEMA_VERSION, Members, json_value, number_value
from spritemesh.bridge.snapshot import ENVELOPE_TYPE as SNAPSHOT_TYPE
from spritemesh.errors import OpsError, kind_of
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc
from spritemesh.values import first, get, text, whole
from superloop.ops.v1 import envelope_pb2 as pb

# Events that only an active loop writes. A tuple, since a document may hold a value without a hash.
_ACTIVITY = (
    "iteration_start",
    "role_start",
    "role_end",
    "iteration_end",
    "tests_start",
    "tests_end",
    "validation_start",
    "validation_end",
)


class Seen(NamedTuple):
    """What the projection takes from a snapshot; None where it says nothing, of any kind otherwise.

    summary, superloop_state: objects of the runtime, of which one member each counts. From a message the
    values have the kinds of contract B.3; a document may hold anything, and contract F refuses none of it.
    """

    loop_id: JSON
    run_id: JSON
    iteration: JSON
    status: JSON
    summary: JSON
    superloop_state: JSON
    event_line_offset: JSON
    event_line_count: JSON
    last_event_name: JSON
    last_event_at: JSON
    has_pending_approval: JSON
    gates: JSON
    stuck: JSON


def seen_in_message(snapshot: pb.LoopRunSnapshot) -> Seen:
    """Raises OpsError `service_response_invalid` when JSON text in `snapshot` is none."""
    run, runtime, health, cursor = snapshot.run, snapshot.runtime, snapshot.health, snapshot.cursor
    return Seen(
        loop_id=snapshot.source.loop_id,
        run_id=run.run_id or None,
        iteration=number_value(run.iteration, run.iteration_literal),
        status=run.status or None,
        summary=json_value(run.summary, run.HasField("summary")),
        superloop_state=json_value(runtime.superloop_state, runtime.HasField("superloop_state")),
        event_line_offset=cursor.event_line_offset,
        event_line_count=cursor.event_line_count,
        last_event_name=health.last_event_name if health.HasField("last_event_name") else None,
        last_event_at=health.last_event_at if health.HasField("last_event_at") else None,
        has_pending_approval=health.has_pending_approval if health.HasField("has_pending_approval") else None,
        gates=json_value(health.gates, health.HasField("gates")),
        stuck=json_value(health.stuck, health.HasField("stuck")),
    )


def seen_in_document(document: JSON, *, what: str) -> Seen:
    """Of a v1 document. Raises OpsError `projection_failed`, naming `what`, when its version or type is
    another: no other member is a reason to refuse it (contract F)."""
    members = Members(document, what)
    members.require(SCHEMA_VERSION, "schemaVersion")
    members.require(SNAPSHOT_TYPE, "envelopeType")
    value = members.value
    return Seen(
        loop_id=value("source", "loopId"),
        run_id=value("run", "runId"),
        iteration=value("run", "iteration"),
        status=value("run", "status"),
        summary=value("run", "summary"),
        superloop_state=value("runtime", "superloopState"),
        event_line_offset=value("cursor", "eventLineOffset"),
        event_line_count=value("cursor", "eventLineCount"),
        last_event_name=value("health", "lastEventName"),
        last_event_at=value("health", "lastEventAt"),
        has_pending_approval=value("health", "hasPendingApproval"),
        gates=value("health", "gates"),
        stuck=value("health", "stuck"),
    )


def check_event(document: JSON, *, what: str, loop_id: str) -> None:
    """Raise OpsError `projection_failed`, naming `what`, unless `document` is an event of the loop with a
    name: no other member is a reason to refuse it (contract F)."""
    members = Members(document, what)
    members.require(SCHEMA_VERSION, "schemaVersion")
    members.require(EVENT_TYPE, "envelopeType")
    check_loop(what, members.value("source", "loopId"), loop_id)
    if not members.required_text("event", "name"):
        raise members.error("event.name", None, "a non-empty string")


def check_loop(what: str, found: JSON, loop_id: str) -> None:
    """Raise OpsError `projection_failed` for something of another loop."""
    if found != loop_id:
        shown = f"loop {found!r}" if isinstance(found, str) else f"no loop ({kind_of(found)})"
        raise OpsError("projection_failed", f"{what} belongs to {shown}, not to {loop_id!r}")


def project(
    seen: Seen,
    last_event: JSON,
    previous: JSON,
    *,
    now: float,
    repo_path: str,
    loop_id: str,
    snapshot_file: str,
    events_file: str | None,
    new_lineage: bool = False,
) -> dict[str, JSON]:
    """The document state.json.

    last_event: v1 envelope of the last new event, None when there is none. previous: the document before
    this one, None when there is none. new_lineage: the log is another one than before, so that a smaller
    offset is no regression (L3).
    Raises OpsError `projection_failed` when snapshot or event belong to another loop.
    """
    check_loop("snapshot", seen.loop_id, loop_id)
    if last_event is not None:
        check_loop("event", get(last_event, "source", "loopId"), loop_id)
    completion = first(get(seen.summary, "completion_ok"), False)
    active = first(get(seen.superloop_state, "active"), None)
    event_name = get(last_event, "event", "name")
    status = first(seen.status, "unknown")
    offset = first(seen.event_line_offset, 0)
    flags = {
        "activeMismatch": event_name in _ACTIVITY and text(active) != "true",
        "approvalCompletionConflict": seen.has_pending_approval is True and completion is True,
        "cursorRegression": not new_lineage
        and _is_below(offset, first(get(previous, "cursor", "eventLineOffset"), 0)),
    }
    diverges = any(flags.values())
    signal = f"snapshot_status:{text(status)}" if last_event is None else f"event:{event_name}"
    return {
        "schemaVersion": "v1",
        "generatedAt": format_utc(now),
        "source": {"repoPath": repo_path, "loopId": loop_id},
        "run": {"runId": first(seen.run_id, "unknown"), "iteration": first(seen.iteration, 0)},
        "transition": {
            "previousState": first(get(previous, "transition", "currentState"), "none"),
            "triggeringSignal": signal,
            "currentState": status,
            "confidence": "low" if diverges else "medium" if last_event is None else "high",
        },
        "projection": {
            "status": seen.status,
            "hasPendingApproval": seen.has_pending_approval,
            "completionOk": completion,
            "gates": seen.gates,
            "stuck": seen.stuck,
            "active": active,
            "lastEventName": seen.last_event_name,
            "lastEventAt": seen.last_event_at,
        },
        "cursor": {"eventLineOffset": offset, "eventLineCount": first(seen.event_line_count, 0)},
        "divergence": {"any": diverges, "flags": flags},
        "evidence": {
            "snapshotFile": snapshot_file,
            "eventsFile": events_file,
            "snapshotEnvelope": {
                "runStatus": seen.status,
                "lastEventName": seen.last_event_name,
                "hasPendingApproval": seen.has_pending_approval,
            },
            "lastEventEnvelope": last_event,
        },
    }


def _is_below(offset: JSON, previous: JSON) -> bool:
    """Whether both are whole numbers, and `offset` is the smaller one."""
    now, before = whole(offset), whole(previous)
    return now is not None and before is not None and now < before
