"""How well a loop is: one verdict with its reasons, from everything that is known (contract G.6)."""

from math import floor
from typing import NamedTuple

from manager.core.thresholds import Thresholds
from spritemesh.heartbeat import is_marked
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc, parse_rfc3339
from spritemesh.values import digits, drop, first, get, nz, text, whole

DEGRADED = "degraded"
CRITICAL = "critical"

# What a control intent may come to that is no success; a tuple, since files may hold values without a hash.
_BAD_CONTROL = ("ambiguous", "failed_command")

# States of a loop that has no process.
_AT_REST = ("awaiting_approval", "complete", "failed", "idle", "stopped")

# Why a pass failed -> what that means for health; codes not listed stand for themselves.
_FAILURE_REASONS = {
    "": "reconcile_failed",
    "snapshot_unavailable": "transport_unreachable",
    "events_unavailable": "transport_unreachable",
    "service_request_failed": "transport_unreachable",
    "service_response_invalid": "invalid_transport_payload",
}


class Condition(NamedTuple):
    """A reason that v1 does not know. severity: DEGRADED or CRITICAL. metric, observed, threshold: as in the
    other rows of `reasons`."""

    code: str
    severity: str
    metric: str
    observed: str
    threshold: str


def evaluate_health(
    *,
    state: JSON,
    heartbeat: JSON,
    sequence: JSON,
    transport_health: JSON,
    last_intent: JSON,
    now: float,
    now_text: str | None = None,
    trace_id: str | None,
    mode: str,
    profile: str | None,
    ingest_status: str,
    failure_code: str,
    thresholds: Thresholds,
    telemetry_writable: bool = True,
    conditions: tuple[Condition, ...] = (),
) -> dict[str, JSON]:
    """The document health.json.

    state, heartbeat, sequence, transport_health: documents of those names, None when absent.
    last_intent: last row of intents.jsonl or None. now_text: how `now` was spelled when it was given.
    mode: "local" or "sprite_service". ingest_status: "success" or "failed". failure_code: "" when none.
    telemetry_writable: False adds the reason `telemetry_unwritable`, which v1 does not know.
    conditions: further reasons.
    """
    last_event_at = first(get(state, "projection", "lastEventAt"), None)
    ingest_lag = lag_seconds(now, last_event_at)
    heartbeat_at = first(get(heartbeat, "lastHeartbeatAt"), get(heartbeat, "heartbeat", "timestamp"), None)
    heartbeat_lag = _heartbeat_lag(heartbeat, heartbeat_at, now)
    streak = digits(get(transport_health, "failureStreak")) or 0
    control_status = first(get(last_intent, "status"), None)
    sequence_status = first(get(sequence, "status"), None)

    reasons = _Reasons()
    if reads_true(get(state, "divergence", "any")):
        reasons.add("divergence_detected", DEGRADED, "divergence.any", "true", "false")
    if control_status in _BAD_CONTROL:
        reasons.add(f"control_{control_status}", DEGRADED, "control.status", control_status, "confirmed")
    reasons.add_measured(
        "ingest_stale",
        "ingestLagSeconds",
        ingest_lag,
        thresholds.degraded_ingest_lag,
        thresholds.critical_ingest_lag,
    )
    reasons.add_measured(
        "runtime_heartbeat_stale",
        "heartbeatLagSeconds",
        None if _beats_no_more(state, heartbeat) else heartbeat_lag,
        thresholds.degraded_heartbeat_lag,
        thresholds.critical_heartbeat_lag,
    )
    reasons.add_measured(
        "transport_unreachable",
        "transportFailureStreak",
        streak,
        thresholds.degraded_streak,
        thresholds.critical_streak,
    )
    if reads_true(get(sequence, "driftActive")):
        drift = "ordering_drift_detected"
        code = text(first(get(sequence, "reasonCode"), drift))
        reasons.add(code, DEGRADED, "sequence.status", first(sequence_status, drift), "ok")
    if ingest_status == "failed":
        code = _FAILURE_REASONS.get(failure_code, failure_code)
        reasons.add(code, DEGRADED, "ingestStatus", "failed", "success")
    if not telemetry_writable:
        reasons.add("telemetry_unwritable", DEGRADED, "telemetry", "unwritable", "writable")
    for condition in conditions:
        reasons.add(*condition)

    return {
        "schemaVersion": "v1",
        "updatedAt": format_utc(now) if now_text is None else now_text,
        "traceId": trace_id,
        "status": reasons.status,
        "reasonCodes": reasons.codes,
        "reasons": reasons.rows,
        "metrics": {
            "ingestLagSeconds": ingest_lag,
            "heartbeatLagSeconds": heartbeat_lag,
            "transportFailureStreak": streak,
            "lastControlStatus": control_status,
            "sequenceStatus": sequence_status,
            "lifecycleState": first(
                get(state, "transition", "currentState"), get(state, "projection", "status"), "unknown"
            ),
        },
        "thresholds": {
            "profile": profile,
            "degradedIngestLagSeconds": thresholds.degraded_ingest_lag,
            "criticalIngestLagSeconds": thresholds.critical_ingest_lag,
            "degradedHeartbeatLagSeconds": thresholds.degraded_heartbeat_lag,
            "criticalHeartbeatLagSeconds": thresholds.critical_heartbeat_lag,
            "degradedTransportFailureStreak": thresholds.degraded_streak,
            "criticalTransportFailureStreak": thresholds.critical_streak,
        },
        "transport": {
            "mode": mode,
            "ingestStatus": ingest_status,
            "failureCode": nz(failure_code),
            "lastFailureCode": first(get(transport_health, "lastFailureCode"), None),
        },
        "evidence": {
            "lastEventAt": last_event_at,
            "lastHeartbeatAt": heartbeat_at,
            "sequenceUpdatedAt": first(get(sequence, "updatedAt"), None),
        },
    }


def next_change(state: JSON, heartbeat: JSON, thresholds: Thresholds, now: float) -> float | None:
    """When health changes next by the mere passing of time; None: it does not."""
    moments = (
        (get(state, "projection", "lastEventAt"), thresholds.degraded_ingest_lag),
        (get(state, "projection", "lastEventAt"), thresholds.critical_ingest_lag),
        (get(heartbeat, "lastHeartbeatAt"), thresholds.degraded_heartbeat_lag),
        (get(heartbeat, "lastHeartbeatAt"), thresholds.critical_heartbeat_lag),
    )
    times = ((parse_rfc3339(moment), seconds) for moment, seconds in moments)
    return min((at + seconds for at, seconds in times if at is not None and at + seconds > now), default=None)


def lag_seconds(now: float, moment: JSON) -> int | None:
    """Whole seconds from `moment`, an RFC 3339 text (L13), to `now`; at least 0, None when it is no time."""
    at = parse_rfc3339(moment)
    return None if at is None else max(0, floor(now - at))


def reads_true(value: JSON) -> bool:
    """Whether `value` is true, or the text that v1's shell could not tell from it."""
    return value is True or value == "true"


def _heartbeat_lag(heartbeat: JSON, heartbeat_at: JSON, now: float) -> int | None:
    """The lag at `now`. The one that heartbeat.json holds was true when it was written, and serves only
    when there is no time to compute it from (L11)."""
    if get(heartbeat, "lastHeartbeatAt") is None:
        frozen = whole(get(heartbeat, "heartbeatLagSeconds"))
        if frozen is not None:
            return frozen
    lag = lag_seconds(now, heartbeat_at)
    return whole(get(heartbeat, "heartbeatLagSeconds")) if lag is None else lag


def _beats_no_more(state: JSON, heartbeat: JSON) -> bool:
    """Whether the last heartbeat was the agent's, which it keeps only while a process lives, and the loop is
    in a state that has none: it has ended, or waits for a decision. A runtime's own may be late all the
    same."""
    ours = is_marked(get(heartbeat, "heartbeat"))
    return ours and get(state, "transition", "currentState") in _AT_REST


class _Reasons:
    """Reasons in order of evaluation; of those with equal code and severity the first counts."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, JSON]] = {}

    def add(self, code: str, severity: str, metric: str, observed: JSON, threshold: JSON) -> None:
        row = {
            "code": code,
            "severity": severity,
            "metric": metric,
            "observed": text(observed),
            "threshold": text(threshold),
        }
        self._rows.setdefault(f"{code}:{severity}", drop(row))

    def add_measured(self, code: str, metric: str, value: int | None, degraded: int, critical: int) -> None:
        if value is None:
            return
        if value >= critical:
            self.add(code, CRITICAL, metric, value, critical)
        elif value >= degraded:
            self.add(code, DEGRADED, metric, value, degraded)

    @property
    def rows(self) -> list[JSON]:
        return [self._rows[key] for key in sorted(self._rows)]

    @property
    def codes(self) -> list[JSON]:
        return sorted({row["code"] for row in self._rows.values()})

    @property
    def status(self) -> str:
        severities = {row["severity"] for row in self._rows.values()}
        return CRITICAL if CRITICAL in severities else DEGRADED if severities else "healthy"
