"""The state of a loop as one document, from a snapshot and the last event (contract F)."""

from spritemesh.bridge.parts import json_value, number_value
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc
from spritemesh.values import first, get, text, whole
from superloop.ops.v1 import envelope_pb2 as pb

# Events that only an active loop writes.
_ACTIVITY = frozenset(
    {
        "iteration_start",
        "role_start",
        "role_end",
        "iteration_end",
        "tests_start",
        "tests_end",
        "validation_start",
        "validation_end",
    }
)


def project(
    snapshot: pb.LoopRunSnapshot,
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
    _check_loop("snapshot", snapshot.source.loop_id, loop_id)
    if last_event is not None:
        _check_loop("event", get(last_event, "source", "loopId"), loop_id)
    run, runtime, health, cursor = snapshot.run, snapshot.runtime, snapshot.health, snapshot.cursor
    summary = json_value(run.summary, run.HasField("summary"))
    superloop_state = json_value(runtime.superloop_state, runtime.HasField("superloop_state"))
    pending = health.has_pending_approval if health.HasField("has_pending_approval") else None
    last_name = health.last_event_name if health.HasField("last_event_name") else None
    last_at = health.last_event_at if health.HasField("last_event_at") else None
    completion = first(get(summary, "completion_ok"), False)
    active = first(get(superloop_state, "active"), None)
    event_name = get(last_event, "event", "name")
    status = run.status or "unknown"
    previous_offset = whole(first(get(previous, "cursor", "eventLineOffset"), 0))
    flags = {
        "activeMismatch": event_name in _ACTIVITY and text(active) != "true",
        "approvalCompletionConflict": pending is True and completion is True,
        "cursorRegression": not new_lineage
        and previous_offset is not None
        and previous_offset > cursor.event_line_offset,
    }
    diverges = any(flags.values())
    return {
        "schemaVersion": "v1",
        "generatedAt": format_utc(now),
        "source": {"repoPath": repo_path, "loopId": loop_id},
        "run": {
            "runId": run.run_id or "unknown",
            "iteration": number_value(run.iteration, run.iteration_literal),
        },
        "transition": {
            "previousState": first(get(previous, "transition", "currentState"), "none"),
            "triggeringSignal": f"snapshot_status:{status}" if last_event is None else f"event:{event_name}",
            "currentState": status,
            "confidence": "low" if diverges else "medium" if last_event is None else "high",
        },
        "projection": {
            "status": run.status or None,
            "hasPendingApproval": pending,
            "completionOk": completion,
            "gates": json_value(health.gates, health.HasField("gates")),
            "stuck": json_value(health.stuck, health.HasField("stuck")),
            "active": active,
            "lastEventName": last_name,
            "lastEventAt": last_at,
        },
        "cursor": {
            "eventLineOffset": cursor.event_line_offset,
            "eventLineCount": cursor.event_line_count,
        },
        "divergence": {"any": diverges, "flags": flags},
        "evidence": {
            "snapshotFile": snapshot_file,
            "eventsFile": events_file,
            "snapshotEnvelope": {
                "runStatus": run.status or None,
                "lastEventName": last_name,
                "hasPendingApproval": pending,
            },
            "lastEventEnvelope": last_event,
        },
    }


def _check_loop(what: str, found: JSON, loop_id: str) -> None:
    if found != loop_id:
        raise OpsError("projection_failed", f"{what} belongs to loop {found!r}, not to {loop_id!r}")
