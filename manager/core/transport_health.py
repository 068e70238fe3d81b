"""How often in a row a loop could not be read (contract G.3)."""

from spritemesh.jsontext import JSON
from spritemesh.times import format_utc
from spritemesh.values import digits, drop, get


def evaluate_transport(
    previous: JSON, *, now: float, trace_id: str | None, transport: str, failure_code: str
) -> dict[str, JSON]:
    """The document telemetry/transport-health.json.

    previous: the document before this one, None when there is none or it cannot be read. failure_code:
    why the pass failed, "" when it did not.
    """
    moment = format_utc(now)
    failed = bool(failure_code)
    return drop(
        {
            "schemaVersion": "v1",
            "updatedAt": moment,
            "traceId": trace_id,
            "transport": transport,
            "lastResult": "failed" if failed else "success",
            "failureStreak": (digits(get(previous, "failureStreak")) or 0) + 1 if failed else 0,
            "lastFailureCode": failure_code if failed else None,
            "lastSuccessAt": get(previous, "lastSuccessAt") if failed else moment,
            "lastFailureAt": moment if failed else get(previous, "lastFailureAt"),
        }
    )
