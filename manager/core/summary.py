"""What the last passes were like, and which threshold profile suits them (contract H.2)."""

from collections import Counter
from collections.abc import Iterable
from math import floor

from spritemesh import jsontext
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc
from spritemesh.values import first, get, numeric

# Passes after which a recommendation is more than a guess.
_HIGH_CONFIDENCE_ATTEMPTS = 100
_MEDIUM_CONFIDENCE_ATTEMPTS = 30

# Rates from which a loop is too unsteady for its thresholds, and below which it is very steady.
_RELAXED_CRITICAL_RATE = 0.20
_RELAXED_FAILED_RATE = 0.25
_STRICT_DEGRADED_RATE = 0.05
_STRICT_FAILED_RATE = 0.02

# What a summary reads of its rows.
MEMBERS = frozenset({"status", "healthStatus", "healthReasonCodes", "reasonCode", "durationSeconds"})

_RATIONALE = {
    "none": "No reconcile pass has been observed yet; balanced is the starting point.",
    "relaxed": "Critical or failed passes are frequent; relaxed thresholds avoid alarms that nobody acts on.",
    "strict": "Passes succeed, health is steady, no control was ambiguous; strict thresholds cost nothing.",
    "balanced": "Some passes were degraded or failed, but not many; balanced thresholds fit.",
}


def parse_rows(lines: Iterable[bytes]) -> tuple[list[dict[str, JSON]], int]:
    """The objects among JSONL `lines`, and how many other non-blank lines there were (contract L25)."""
    rows: list[dict[str, JSON]] = []
    damaged = 0
    for line in lines:
        if not line.strip():
            continue
        try:
            row = jsontext.parse(line)
        except jsontext.JSONError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            damaged += 1
    return rows, damaged


def summarize(
    reconcile_rows: list[JSON],
    control_rows: list[JSON],
    *,
    now: float,
    repo_path: str,
    loop_id: str,
    reconcile_file: str,
    control_file: str,
    window: int,
    damaged: int = 0,
) -> dict[str, JSON]:
    """The document of `telemetry-summary` over rows that the caller has cut to `window`.

    damaged: lines that were no JSON object and had to be left out; told as `observed.damagedLines` when
    there are any.
    """
    attempts = len(reconcile_rows)
    by_status = Counter(_text(row, "status") for row in reconcile_rows)
    by_health = Counter(_text(row, "healthStatus") for row in reconcile_rows)
    failed, degraded, critical = by_status["failed"], by_health["degraded"], by_health["critical"]
    ambiguous = sum(
        1
        for row in control_rows
        if get(row, "status") == "ambiguous" or get(row, "reasonCode") == "control_ambiguous"
    )
    if not attempts:
        branch = "none"
    elif critical / attempts >= _RELAXED_CRITICAL_RATE or failed / attempts >= _RELAXED_FAILED_RATE:
        branch = "relaxed"
    elif (
        not critical
        and degraded / attempts <= _STRICT_DEGRADED_RATE
        and failed / attempts <= _STRICT_FAILED_RATE
        and not ambiguous
    ):
        branch = "strict"
    else:
        branch = "balanced"
    observed: dict[str, JSON] = {
        "reconcileAttempts": attempts,
        "reconcileSuccessCount": by_status["success"],
        "reconcileFailedCount": failed,
        "health": {
            "degradedCount": degraded,
            "criticalCount": critical,
            "degradedRate": _rate(degraded, attempts),
            "criticalRate": _rate(critical, attempts),
            "reasonCodeFrequency": _code_frequency(reconcile_rows),
        },
        "control": {"ambiguousCount": ambiguous},
        "durationSeconds": _durations(reconcile_rows),
    }
    if damaged:
        observed["damagedLines"] = damaged
    return {
        "schemaVersion": "v1",
        "generatedAt": format_utc(now),
        "source": {
            "repoPath": repo_path,
            "loopId": loop_id,
            "reconcileTelemetryFile": reconcile_file,
            "controlTelemetryFile": control_file,
            "window": window,
        },
        "observed": observed,
        "recommendedProfile": "balanced" if branch == "none" else branch,
        "confidence": _confidence(attempts),
        "rationale": _RATIONALE[branch],
    }


def _confidence(attempts: int) -> str:
    if attempts >= _HIGH_CONFIDENCE_ATTEMPTS:
        return "high"
    return "medium" if attempts >= _MEDIUM_CONFIDENCE_ATTEMPTS else "low"


def _rate(count: int, attempts: int) -> float:
    """Share of `attempts`; whole ones as integers, the way v1 prints them."""
    return count / attempts if 0 < count < attempts else int(bool(count))


def _code_frequency(rows: list[JSON]) -> list[JSON]:
    """Reason codes by count, descending; ties in reverse alphabetical order."""
    counts: Counter[str] = Counter()
    for row in rows:
        codes = first(get(row, "healthReasonCodes"), [])
        if isinstance(codes, list):
            counts.update(code for code in codes if isinstance(code, str))
    ordered = sorted(((count, code) for code, count in counts.items()), reverse=True)
    return [{"code": code, "count": count} for count, code in ordered]


def _durations(rows: list[JSON]) -> dict[str, JSON]:
    values = [get(row, "durationSeconds") for row in rows]
    durations = sorted(number for number in map(numeric, values) if number is not None)
    if not durations:
        return {"p50": None, "p95": None, "max": None}
    last = len(durations) - 1
    return {
        "p50": durations[floor(last * 0.5)],
        "p95": durations[floor(last * 0.95)],
        "max": durations[last],
    }


def _text(row: JSON, member: str) -> str | None:
    value = get(row, member)
    return value if isinstance(value, str) else None
