"""Failures in a row (contract G.3)."""

import pytest

from manager.core.transport_health import evaluate_transport
from spritemesh.jsontext import JSON


def after(previous: JSON, failure: str = "", *, now: float = 0) -> dict[str, JSON]:
    return evaluate_transport(previous, now=now, trace_id="t", transport="local", failure_code=failure)


def test_streak_counts_failures_and_ends_with_a_success() -> None:
    first = after(None, "events_unavailable")
    second = after(first, "projection_failed", now=60)
    third = after(second, now=120)
    assert [document["failureStreak"] for document in (first, second, third)] == [1, 2, 0]
    assert second["lastFailureCode"] == "projection_failed"
    assert "lastFailureCode" not in third
    assert third["lastFailureAt"] == "1970-01-01T00:01:00Z"
    assert third["lastSuccessAt"] == "1970-01-01T00:02:00Z"


def test_first_failure_has_no_success_to_tell() -> None:
    assert list(after(None, "x")) == [
        "schemaVersion",
        "updatedAt",
        "traceId",
        "transport",
        "lastResult",
        "failureStreak",
        "lastFailureCode",
        "lastFailureAt",
    ]


@pytest.mark.parametrize("streak", ["x", None, -3, 1.5, []])
def test_unreadable_streak_starts_from_zero(streak: JSON) -> None:
    assert after({"failureStreak": streak}, "x")["failureStreak"] == 1
