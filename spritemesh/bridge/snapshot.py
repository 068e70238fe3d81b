"""The v1 envelope `loop_run_snapshot` (contract B.3) to its message and back."""

from spritemesh.bridge.parts import (
    INT64,
    SCHEMA_VERSION,
    SEQUENCE_SOURCE,
    UINT64,
    Members,
    json_object,
    json_value,
    number_fields,
    number_value,
)
from spritemesh.jsontext import JSON
from superloop.ops.v1 import envelope_pb2 as pb

ENVELOPE_TYPE = "loop_run_snapshot"

# v1 member of `artifacts` -> field of the message, in the order of the contract.
_ARTIFACTS = {
    "events": "events",
    "runSummary": "run_summary",
    "state": "state",
    "activeRun": "active_run",
    "approval": "approval",
    "heartbeat": "heartbeat",
}


def snapshot_to_json(snapshot: pb.LoopRunSnapshot) -> dict[str, JSON]:
    """The v1 document of `snapshot`, members in the order of contract B.3."""
    run, runtime, health = snapshot.run, snapshot.runtime, snapshot.health
    return {
        "schemaVersion": SCHEMA_VERSION,
        "envelopeType": ENVELOPE_TYPE,
        "emittedAt": snapshot.emitted_at,
        "traceId": _optional(snapshot, "trace_id"),
        "source": {"repoPath": snapshot.source.repo_path, "loopId": snapshot.source.loop_id},
        "run": {
            "runId": run.run_id,
            "iteration": number_value(run.iteration, run.iteration_literal),
            "status": run.status,
            "summary": json_value(run.summary, run.HasField("summary")),
        },
        "runtime": {
            "superloopState": json_value(runtime.superloop_state, runtime.HasField("superloop_state")),
            "activeRun": json_value(runtime.active_run, runtime.HasField("active_run")),
            "approval": json_value(runtime.approval, runtime.HasField("approval")),
            "heartbeat": json_value(runtime.heartbeat, runtime.HasField("heartbeat")),
        },
        "artifacts": _artifacts_to_json(snapshot.artifacts),
        "sequence": {"source": SEQUENCE_SOURCE, "value": _optional(snapshot, "sequence_value")},
        "cursor": {
            "eventLineOffset": _optional(snapshot.cursor, "event_line_offset"),
            "eventLineCount": _optional(snapshot.cursor, "event_line_count"),
        },
        "health": {
            "eventCount": _optional(health, "event_count"),
            "lastEventAt": _optional(health, "last_event_at"),
            "lastEventName": _optional(health, "last_event_name"),
            "lastSummaryAt": _optional(health, "last_summary_at"),
            "hasPendingApproval": _optional(health, "has_pending_approval"),
            "gates": json_value(health.gates, health.HasField("gates")),
            "stuck": json_value(health.stuck, health.HasField("stuck")),
        },
    }


def snapshot_from_json(
    document: JSON, *, what: str = "snapshot", reason: str = "projection_failed"
) -> pb.LoopRunSnapshot:
    """The message of a v1 document; members that it lacks stay unset.

    Raises OpsError with `reason`, naming the member and the kind of its value, when the document is not
    of this version and type, or a member is of another kind than the message can hold.
    """
    members = Members(document, what, reason)
    members.require(SCHEMA_VERSION, "schemaVersion")
    members.require(ENVELOPE_TYPE, "envelopeType")
    members.check_objects("source", "run", "runtime", "artifacts", "sequence", "cursor", "health")
    iteration, literal = number_fields(members.number("run", "iteration"))
    health = ("health",)
    return pb.LoopRunSnapshot(
        emitted_at=members.text("emittedAt") or "",
        trace_id=members.text("traceId"),
        source=pb.Source(
            repo_path=members.text("source", "repoPath") or "",
            loop_id=members.required_text("source", "loopId"),
        ),
        run=pb.Run(
            run_id=members.text("run", "runId") or "",
            iteration=iteration,
            iteration_literal=literal,
            status=members.text("run", "status") or "",
            summary=json_object(members.value("run", "summary")),
        ),
        runtime=pb.Runtime(
            superloop_state=json_object(members.value("runtime", "superloopState")),
            active_run=json_object(members.value("runtime", "activeRun")),
            approval=json_object(members.value("runtime", "approval")),
            heartbeat=json_object(members.value("runtime", "heartbeat")),
        ),
        artifacts=_artifacts_from_json(members),
        sequence_value=members.count("sequence", "value"),
        cursor=pb.EnvelopeCursor(
            event_line_offset=members.count("cursor", "eventLineOffset"),
            event_line_count=members.count("cursor", "eventLineCount"),
        ),
        health=pb.SnapshotHealth(
            event_count=members.count(*health, "eventCount"),
            last_event_at=members.text(*health, "lastEventAt"),
            last_event_name=members.text(*health, "lastEventName"),
            last_summary_at=members.text(*health, "lastSummaryAt"),
            has_pending_approval=members.flag(*health, "hasPendingApproval"),
            gates=json_object(members.value(*health, "gates")),
            stuck=json_object(members.value(*health, "stuck")),
        ),
    )


def _optional(message: object, field: str) -> JSON:
    """The value of a field with presence, None when it is unset."""
    return getattr(message, field) if message.HasField(field) else None  # type: ignore[attr-defined]


def _artifacts_to_json(artifacts: pb.Artifacts) -> dict[str, JSON]:
    document: dict[str, JSON] = {}
    for name, field in _ARTIFACTS.items():
        if artifacts.HasField(field):  # type: ignore[arg-type]
            reference: pb.ArtifactRef = getattr(artifacts, field)
            document[name] = {
                "path": reference.path,
                "exists": reference.exists,
                "sizeBytes": reference.size_bytes,
                "lineCount": reference.line_count,
                "sha256": _optional(reference, "sha256"),
                "mtimeEpoch": _optional(reference, "mtime_epoch"),
            }
    return document


def _artifacts_from_json(members: Members) -> pb.Artifacts:
    artifacts = pb.Artifacts()
    for name, field in _ARTIFACTS.items():
        at = ("artifacts", name)
        if not members.is_object(*at):
            continue
        getattr(artifacts, field).CopyFrom(
            pb.ArtifactRef(
                path=members.text(*at, "path") or "",
                exists=members.flag(*at, "exists") or False,
                size_bytes=members.whole(*at, "sizeBytes", bits=UINT64) or 0,
                line_count=members.whole(*at, "lineCount", bits=UINT64) or 0,
                sha256=members.text(*at, "sha256"),
                mtime_epoch=members.whole(*at, "mtimeEpoch", bits=INT64),
            )
        )
    return artifacts
