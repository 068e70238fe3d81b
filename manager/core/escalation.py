"""What somebody must be told: rows of escalations.jsonl (contract G.7)."""

from typing import NamedTuple

from spritemesh.jsontext import JSON
from spritemesh.values import drop, first, get, nz


class EvidenceFiles(NamedTuple):
    """Absolute paths that rows point at."""

    state_file: str
    cursor_file: str
    health_file: str
    sequence_state_file: str
    sequence_telemetry_file: str
    drift_state_file: str
    drift_history_file: str


class EscalationSource(NamedTuple):
    """What every row says, and where the evidence lies."""

    timestamp: str
    loop_id: str
    trace_id: str | None
    transport: str
    files: EvidenceFiles

    def head(self, category: str) -> dict[str, JSON]:
        return {
            "timestamp": self.timestamp,
            "loopId": self.loop_id,
            "traceId": self.trace_id,
            "category": category,
            "transport": self.transport,
        }


def divergence_row(source: EscalationSource, state: JSON) -> dict[str, JSON] | None:
    """Row for a projected state that diverges, on every such pass (L22); None when it does not."""
    if get(state, "divergence", "any") is not True:
        return None
    return source.head("divergence_detected") | {
        "stateFile": source.files.state_file,
        "cursorFile": source.files.cursor_file,
        "divergenceFlags": get(state, "divergence", "flags"),
        "state": {member: get(state, member) for member in ("transition", "projection", "cursor")},
    }


def ordering_row(source: EscalationSource, sequence: JSON) -> dict[str, JSON] | None:
    """Row for the transition into ordering drift; None otherwise."""
    if get(sequence, "transition", "transitionedToDrift") is not True:
        return None
    members = ("status", "driftActive", "violations", "snapshot", "events")
    return source.head("ordering_drift_detected") | {
        "reasonCode": get(sequence, "reasonCode"),
        "stateFile": source.files.state_file,
        "sequenceStateFile": source.files.sequence_state_file,
        "sequenceTelemetryFile": source.files.sequence_telemetry_file,
        "sequence": {member: get(sequence, member) for member in members},
    }


def health_row(
    source: EscalationSource, health: JSON, previous: JSON, *, ingest_status: str, failure_code: str
) -> dict[str, JSON] | None:
    """Row for a health that is not healthy and changed since `previous`; None otherwise.

    previous: health.json of the pass before, None when absent or unreadable, which counts as healthy.
    """
    status, codes = get(health, "status"), get(health, "reasonCodes")
    previous_status = first(get(previous, "status"), "healthy")
    previous_codes = first(get(previous, "reasonCodes"), [])
    if status == "healthy" or (status == previous_status and codes == previous_codes):
        return None
    return drop(
        source.head(f"health_{status}")
        | {
            "ingestStatus": ingest_status,
            "failureCode": nz(failure_code),
            "stateFile": source.files.state_file,
            "cursorFile": source.files.cursor_file,
            "healthFile": source.files.health_file,
            "healthStatus": status,
            "reasonCodes": codes,
            "reasons": get(health, "reasons"),
        }
    )


def profile_drift_row(source: EscalationSource, drift: JSON) -> dict[str, JSON] | None:
    """Row for profile drift that becomes active; None otherwise."""
    if get(drift, "transitioned", "toActive") is not True:
        return None
    members = (
        "status",
        "appliedProfile",
        "recommendedProfile",
        "recommendationConfidence",
        "mismatchStreak",
        "requiredStreak",
        "action",
        "rationale",
    )
    return source.head("profile_drift_detected") | {
        "stateFile": source.files.state_file,
        "driftStateFile": source.files.drift_state_file,
        "driftHistoryFile": source.files.drift_history_file,
        "reasonCode": get(drift, "reasonCode"),
        "drift": {member: get(drift, member) for member in members},
    }
