"""Drift of the threshold profile (contract H.3)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.core.drift import evaluate_drift, history_row
from spritemesh.jsontext import JSON


def drift(previous: JSON = None, **given_: Any) -> dict[str, JSON]:
    facts: dict[str, Any] = {
        "now": 0,
        "loop_id": "alpha",
        "applied": "balanced",
        "recommended": "strict",
        "confidence": "high",
        "min_confidence": "medium",
        "required_streak": 2,
        "window": 200,
        "rationale": "because",
    }
    return evaluate_drift(previous, **(facts | given_))


@pytest.mark.parametrize(
    ("given_", "status", "action"),
    [
        ({"recommended": ""}, "no_recommendation", None),
        ({"recommended": "balanced"}, "aligned", None),
        ({"applied": ""}, "aligned", None),
        ({"confidence": "low"}, "insufficient_confidence", "collect_more_confident_telemetry"),
        ({}, "mismatch_pending", "monitor_additional_windows"),
        ({"required_streak": 1}, "drift_active", "review_threshold_profile"),
    ],
    ids=["none", "aligned", "nothing-applied", "unsure", "pending", "active"],
)
def test_first_matching_status_wins(given_: dict[str, Any], status: str, action: str | None) -> None:
    document = drift(**given_)
    assert (document["status"], document.get("action")) == (status, action)


def test_drift_becomes_active_once_and_resolves_once() -> None:
    first = drift()
    second = drift(first)
    third = drift(second)
    fourth = drift(third, recommended="balanced")
    assert [d["driftActive"] for d in (first, second, third, fourth)] == [False, True, True, False]
    assert [d["transitioned"]["toActive"] for d in (first, second, third, fourth)] == [
        False,
        True,
        False,
        False,
    ]
    assert fourth["transitioned"]["toResolved"]
    assert "reasonCode" not in fourth
    assert second["reasonCode"] == "profile_drift_detected"


@pytest.mark.parametrize("streak", [None, "x", -1, 1.5, {}, True])
def test_unreadable_previous_streak_counts_as_none(streak: JSON) -> None:
    assert drift({"mismatchStreak": streak})["mismatchStreak"] == 1


def test_history_row_holds_the_document() -> None:
    document = drift()
    row = history_row(document)
    assert list(row) == ["timestamp", "loopId", "category", "drift"]
    assert row["drift"] == document


@given(st.lists(st.booleans(), max_size=20), st.integers(1, 5))
def test_active_exactly_after_the_required_streak(matches: list[bool], required: int) -> None:
    document: JSON = None
    run = 0
    for match in matches:
        document = drift(document, recommended="balanced" if match else "strict", required_streak=required)
        run = 0 if match else run + 1
        assert document["driftActive"] == (run >= required)
        assert document["mismatchStreak"] == run
