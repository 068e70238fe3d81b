"""The runtime's heartbeat (contract G.4, remedy L13)."""

import pytest

from manager.core.heartbeat import HeartbeatOutcome, evaluate_heartbeat
from manager.core.thresholds import DEFAULTS
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc, parse_strict

NOW = parse_strict("2024-03-11T09:00:00Z") or 0


def outcome(heartbeat: JSON) -> HeartbeatOutcome | None:
    return evaluate_heartbeat(
        heartbeat, now=NOW, loop_id="alpha", trace_id="t", transport="local", thresholds=DEFAULTS
    )


def judged(heartbeat: JSON) -> HeartbeatOutcome:
    found = outcome(heartbeat)
    assert found is not None
    return found


def test_no_heartbeat_is_neutral() -> None:
    assert outcome(None) is None


@pytest.mark.parametrize(
    ("lag", "freshness"),
    [(0, "fresh"), (119, "fresh"), (120, "degraded"), (299, "degraded"), (300, "critical")],
)
def test_freshness_follows_the_thresholds(lag: int, freshness: str) -> None:
    found = judged({"timestamp": format_utc(NOW - lag)})
    assert found.document is not None
    assert found.document["freshnessStatus"] == found.row["status"] == freshness
    assert found.document["heartbeatLagSeconds"] == lag
    assert ("reasonCode" in found.document) == (freshness != "fresh")


def test_future_heartbeat_has_no_lag() -> None:
    assert judged({"timestamp": "2024-03-11T09:10:00Z"}).row["heartbeatLagSeconds"] == 0


def test_updated_at_stands_in_for_timestamp() -> None:
    assert judged({"timestamp": None, "updatedAt": "2024-03-11T09:00:00Z"}).row["status"] == "fresh"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2024-03-11T10:58:30.900+02:00", "2024-03-11T08:58:30Z"),
        ("2024-03-11t08:58:30z", "2024-03-11T08:58:30Z"),
        ("2024-03-11T08:58:30Z", "2024-03-11T08:58:30Z"),
    ],
    ids=["offset", "lower-case", "plain"],
)
def test_every_rfc_3339_time_is_read_and_one_form_written(text: str, shown: str) -> None:
    found = judged({"timestamp": text})
    assert found.document is not None
    assert found.document["lastHeartbeatAt"] == found.row["heartbeatAt"] == shown
    assert found.document["heartbeat"] == {"timestamp": text}


@pytest.mark.parametrize("heartbeat", [{"pid": 7}, {}, "alive", 5, {"timestamp": False}])
def test_heartbeat_without_time_leaves_the_document_alone(heartbeat: JSON) -> None:
    found = judged(heartbeat)
    assert found.document is None
    assert found.row["reasonCode"] == "missing_heartbeat_timestamp"
    assert list(found.row)[-3:] == ["status", "reasonCode", "heartbeat"]


@pytest.mark.parametrize("time", ["yesterday", "2024-03-11 09:00", 1710147600, "2024-03-11T09:00:00"])
def test_heartbeat_with_another_time_leaves_the_document_alone(time: JSON) -> None:
    found = judged({"timestamp": time})
    assert found.document is None
    assert found.row["reasonCode"] == "invalid_heartbeat_timestamp"
    assert found.row["heartbeatAt"] == time
