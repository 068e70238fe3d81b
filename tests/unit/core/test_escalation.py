"""Rows of escalations.jsonl (contract G.7)."""

import pytest

from manager.core.escalation import (
    EscalationSource,
    EvidenceFiles,
    divergence_row,
    health_row,
    ordering_row,
    profile_drift_row,
)
from spritemesh.jsontext import JSON

SOURCE = EscalationSource(
    "2024-03-11T09:00:00Z", "alpha", "t", "local", EvidenceFiles("/s", "/c", "/h", "/q", "/ql", "/d", "/dl")
)


def health(status: str, *codes: str) -> JSON:
    return {"status": status, "reasonCodes": list(codes), "reasons": []}


def told(now: JSON, before: JSON, *, failure: str = "") -> JSON:
    return health_row(
        SOURCE, now, before, ingest_status="failed" if failure else "success", failure_code=failure
    )


@pytest.mark.parametrize(
    ("before", "now", "category"),
    [
        (None, health("healthy"), None),
        (None, health("degraded", "a"), "health_degraded"),
        (health("degraded", "a"), health("degraded", "a"), None),
        (health("degraded", "a"), health("degraded", "b"), "health_degraded"),
        (health("degraded", "a"), health("critical", "a"), "health_critical"),
        (health("critical", "a"), health("healthy"), None),
    ],
    ids=["well", "first", "same", "other-reason", "worse", "recovered"],
)
def test_health_is_told_when_it_changed_for_the_worse(before: JSON, now: JSON, category: str | None) -> None:
    row = told(now, before)
    assert (None if row is None else row["category"]) == category


def test_failure_code_is_told_only_when_there_is_one() -> None:
    assert "failureCode" not in told(health("degraded", "a"), None)
    row = told(health("degraded", "a"), None, failure="events_unavailable")
    assert list(row) == [
        "timestamp",
        "loopId",
        "traceId",
        "category",
        "transport",
        "ingestStatus",
        "failureCode",
        "stateFile",
        "cursorFile",
        "healthFile",
        "healthStatus",
        "reasonCodes",
        "reasons",
    ]


def test_divergence_is_told_on_every_pass() -> None:
    state = {"divergence": {"any": True, "flags": {}}, "transition": {}, "projection": {}, "cursor": {}}
    row = divergence_row(SOURCE, state)
    assert row is not None
    assert list(row["state"]) == ["transition", "projection", "cursor"]
    assert divergence_row(SOURCE, {"divergence": {"any": False}}) is None
    assert divergence_row(SOURCE, None) is None


def test_ordering_drift_is_told_on_the_transition_only() -> None:
    sequence = {"transition": {"transitionedToDrift": True}, "reasonCode": "x", "log": {"verdict": "y"}}
    row = ordering_row(SOURCE, sequence)
    assert row is not None
    assert list(row["sequence"]) == ["status", "driftActive", "violations", "snapshot", "events"]
    assert ordering_row(SOURCE, {"transition": {"transitionedToDrift": False}}) is None


def test_profile_drift_is_told_when_it_becomes_active() -> None:
    row = profile_drift_row(SOURCE, {"transitioned": {"toActive": True}, "reasonCode": "x"})
    assert row is not None
    assert row["driftHistoryFile"] == "/dl"
    assert profile_drift_row(SOURCE, {"transitioned": {"toActive": False}}) is None
