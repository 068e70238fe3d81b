"""Where the manager's files of one loop are (contract 0.6)."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from manager.core.escalation import EvidenceFiles
from spritemesh.ids import validate_loop_id


class LoopFiles(NamedTuple):
    """Absolute paths, each under the manager directory `ops` unless a flag names another."""

    ops: str
    cursor: str
    state: str
    health: str
    heartbeat: str
    sequence_state: str
    drift_state: str
    escalations: str
    intents: str
    transport_health: str
    reconcile_telemetry: str
    heartbeat_telemetry: str
    sequence_telemetry: str
    drift_history: str
    control_telemetry: str
    control_invocations: str
    quarantine: str
    session: str
    session_telemetry: str
    runtime_traces: str
    traces_cursor: str
    alert_state: str
    alert_telemetry: str
    alert_retries: str

    @property
    def evidence(self) -> EvidenceFiles:
        """The paths that rows of escalations.jsonl name."""
        return EvidenceFiles(
            state_file=self.state,
            cursor_file=self.cursor,
            health_file=self.health,
            sequence_state_file=self.sequence_state,
            sequence_telemetry_file=self.sequence_telemetry,
            drift_state_file=self.drift_state,
            drift_history_file=self.drift_history,
        )


# Field -> name below the manager directory.
_NAMES = {
    "cursor": "cursor.json",
    "state": "state.json",
    "health": "health.json",
    "heartbeat": "heartbeat.json",
    "sequence_state": "sequence-state.json",
    "drift_state": "profile-drift.json",
    "escalations": "escalations.jsonl",
    "intents": "intents.jsonl",
    "transport_health": "telemetry/transport-health.json",
    "reconcile_telemetry": "telemetry/reconcile.jsonl",
    "heartbeat_telemetry": "telemetry/heartbeat.jsonl",
    "sequence_telemetry": "telemetry/sequence.jsonl",
    "drift_history": "telemetry/profile-drift.jsonl",
    "control_telemetry": "telemetry/control.jsonl",
    "control_invocations": "telemetry/control-invocations.jsonl",
    "quarantine": "telemetry/quarantine.jsonl",
    "session": "session.json",
    "session_telemetry": "telemetry/session.jsonl",
    "runtime_traces": "telemetry/traces.jsonl",
    "traces_cursor": "traces-cursor.json",
    "alert_state": "alert-dispatch-state.json",
    "alert_telemetry": "telemetry/alerts.jsonl",
    "alert_retries": "alert-retries.json",
}


def loop_files(repo: str, loop_id: str, overrides: Mapping[str, str | None] | None = None) -> LoopFiles:
    """The files of a loop. repo: absolute. overrides: field -> path from a flag, None or "" for none.

    Raises OpsError `invalid_loop_id` for an id that could leave its directory (L1).
    """
    validate_loop_id(loop_id, field="--loop")
    ops = os.path.join(repo, ".superloop", "ops-manager", loop_id)
    paths = {field: os.path.join(ops, name) for field, name in _NAMES.items()}
    for field, path in (overrides or {}).items():
        if path:
            paths[field] = os.path.abspath(path)
            if field == "alert_state":
                # The queue belongs to the offset that the state holds.
                paths["alert_retries"] = f"{paths[field]}.retries.json"
    return LoopFiles(ops=ops, **paths)
