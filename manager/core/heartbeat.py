"""How fresh the runtime's own heartbeat is (contract G.4, times read as L13 asks)."""

from typing import NamedTuple

from manager.core.health import CRITICAL, DEGRADED, lag_seconds
from manager.core.thresholds import Thresholds
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc, parse_rfc3339, parse_strict
from spritemesh.values import drop, first, get


class HeartbeatOutcome(NamedTuple):
    """document: heartbeat.json, None when it stays as it is. row: of telemetry/heartbeat.jsonl."""

    document: dict[str, JSON] | None
    row: dict[str, JSON]


def evaluate_heartbeat(
    heartbeat: JSON,
    *,
    now: float,
    loop_id: str,
    trace_id: str | None,
    transport: str,
    thresholds: Thresholds,
) -> HeartbeatOutcome | None:
    """Judge `heartbeat`, the content of heartbeat.v1.json; None when there is none: that is neutral."""
    if heartbeat is None:
        return None
    at = first(get(heartbeat, "timestamp"), get(heartbeat, "updatedAt"), None)
    head: dict[str, JSON] = {
        "timestamp": format_utc(now),
        "loopId": loop_id,
        "traceId": trace_id,
        "transport": transport,
        "category": "runtime_heartbeat",
    }
    if at is None or at is False:
        return HeartbeatOutcome(
            None,
            head | {"status": "failed", "reasonCode": "missing_heartbeat_timestamp", "heartbeat": heartbeat},
        )
    moment, lag = parse_rfc3339(at), lag_seconds(now, at)
    if moment is None or lag is None:
        refusal = {"status": "failed", "reasonCode": "invalid_heartbeat_timestamp", "heartbeatAt": at}
        return HeartbeatOutcome(None, head | refusal | {"heartbeat": heartbeat})
    # Emitted in the one form of contract 0.3, whatever form was read.
    shown = at if parse_strict(at) is not None else format_utc(moment)
    freshness = _freshness(lag, thresholds)
    reason = None if freshness == "fresh" else "runtime_heartbeat_stale"
    document = drop(
        {
            "schemaVersion": "v1",
            "updatedAt": head["timestamp"],
            "loopId": loop_id,
            "traceId": trace_id,
            "transport": transport,
            "lastHeartbeatAt": shown,
            "heartbeatLagSeconds": lag,
            "freshnessStatus": freshness,
            "reasonCode": reason,
            "thresholds": {
                "degradedHeartbeatLagSeconds": thresholds.degraded_heartbeat_lag,
                "criticalHeartbeatLagSeconds": thresholds.critical_heartbeat_lag,
            },
            "heartbeat": heartbeat,
        }
    )
    row = drop(
        head
        | {
            "status": freshness,
            "reasonCode": reason,
            "heartbeatAt": shown,
            "heartbeatLagSeconds": lag,
            "heartbeat": heartbeat,
        }
    )
    return HeartbeatOutcome(document, row)


def _freshness(lag: int, thresholds: Thresholds) -> str:
    if lag >= thresholds.critical_heartbeat_lag:
        return CRITICAL
    return DEGRADED if lag >= thresholds.degraded_heartbeat_lag else "fresh"
