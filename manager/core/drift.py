"""Whether the applied threshold profile has differed from the recommended one for long (contract H.3)."""

from spritemesh.jsontext import JSON
from spritemesh.times import format_utc
from spritemesh.values import digits, drop, get, nz

# How sure a recommendation is.
CONFIDENCE_RANKS: dict[str, int] = {"low": 1, "medium": 2, "high": 3}

REASON = "profile_drift_detected"


def evaluate_drift(
    previous: JSON,
    *,
    now: float,
    loop_id: str,
    applied: str,
    recommended: str,
    confidence: str,
    min_confidence: str,
    required_streak: int,
    window: int,
    rationale: str,
) -> dict[str, JSON]:
    """The document profile-drift.json.

    previous: the document before this one, None when there is none. applied, recommended: profile names
    or "", checked against the catalog by the caller. confidence, min_confidence: keys of
    CONFIDENCE_RANKS. required_streak: evaluations in a row that make drift, at least 1.
    """
    rank, min_rank = CONFIDENCE_RANKS[confidence], CONFIDENCE_RANKS[min_confidence]
    mismatch = bool(applied and recommended and applied != recommended)
    confidence_ok = rank >= min_rank
    eligible = mismatch and confidence_ok
    streak = (digits(get(previous, "mismatchStreak")) or 0) + 1 if eligible else 0
    active = eligible and streak >= required_streak
    was_active = get(previous, "driftActive") is True
    action: str | None = None
    if not recommended:
        status = "no_recommendation"
    elif not mismatch:
        status = "aligned"
    elif not confidence_ok:
        status, action = "insufficient_confidence", "collect_more_confident_telemetry"
    elif active:
        status, action = "drift_active", "review_threshold_profile"
    else:
        status, action = "mismatch_pending", "monitor_additional_windows"
    return drop(
        {
            "schemaVersion": "v1",
            "updatedAt": format_utc(now),
            "loopId": loop_id,
            "status": status,
            "reasonCode": REASON if active else None,
            "appliedProfile": nz(applied),
            "recommendedProfile": nz(recommended),
            "recommendationConfidence": confidence,
            "minimumConfidence": min_confidence,
            "recommendationRank": rank,
            "minimumRank": min_rank,
            "requiredStreak": required_streak,
            "summaryWindow": window,
            "mismatch": mismatch,
            "confidenceOk": confidence_ok,
            "eligibleMismatch": eligible,
            "mismatchStreak": streak,
            "driftActive": active,
            "transitioned": {
                "toActive": active and not was_active,
                "toResolved": was_active and not active,
            },
            "rationale": nz(rationale),
            "action": action,
        }
    )


def history_row(document: dict[str, JSON]) -> dict[str, JSON]:
    """The row of telemetry/profile-drift.jsonl for a document of evaluate_drift."""
    return {
        "timestamp": document["updatedAt"],
        "loopId": document["loopId"],
        "category": "profile_drift_evaluation",
        "drift": document,
    }
