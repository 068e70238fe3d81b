"""Health (contract G.6, remedies L11 and L13)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.core.health import evaluate_health
from manager.core.thresholds import DEFAULTS
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc, parse_strict

NOW = parse_strict("2024-03-11T09:00:00Z") or 0


def health(**given_: Any) -> JSON:
    facts: dict[str, Any] = {
        "state": None,
        "heartbeat": None,
        "sequence": None,
        "transport_health": None,
        "last_intent": None,
        "now": NOW,
        "trace_id": None,
        "mode": "local",
        "profile": None,
        "ingest_status": "success",
        "failure_code": "",
        "thresholds": DEFAULTS,
    }
    return evaluate_health(**(facts | given_))


def event_at(text: str) -> JSON:
    return {"projection": {"lastEventAt": text}}


def test_nothing_known_is_healthy() -> None:
    document = health()
    assert (document["status"], document["reasons"]) == ("healthy", [])
    assert document["metrics"]["ingestLagSeconds"] is None
    assert document["metrics"]["lifecycleState"] == "unknown"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("snapshot_unavailable", "transport_unreachable"),
        ("events_unavailable", "transport_unreachable"),
        ("service_request_failed", "transport_unreachable"),
        ("service_response_invalid", "invalid_transport_payload"),
        ("projection_failed", "projection_failed"),
        ("event_sequence_gap", "event_sequence_gap"),
        ("", "reconcile_failed"),
    ],
)
def test_failure_code_becomes_a_reason(code: str, reason: str) -> None:
    assert health(ingest_status="failed", failure_code=code)["reasonCodes"] == [reason]


def test_same_code_can_stand_with_both_severities() -> None:
    document = health(
        ingest_status="failed", failure_code="events_unavailable", transport_health={"failureStreak": 4}
    )
    assert document["status"] == "critical"
    assert document["reasonCodes"] == ["transport_unreachable"]
    assert [reason["severity"] for reason in document["reasons"]] == ["critical", "degraded"]


def test_first_reason_of_equal_code_and_severity_survives() -> None:
    document = health(
        ingest_status="failed", failure_code="events_unavailable", transport_health={"failureStreak": 2}
    )
    assert [reason["metric"] for reason in document["reasons"]] == ["transportFailureStreak"]


@pytest.mark.parametrize(
    ("text", "lag"),
    [
        ("2024-03-11T08:59:50Z", 10),
        ("2024-03-11T08:59:50.250Z", 9),
        ("2024-03-11T10:59:50+02:00", 10),
        ("2024-03-11t08:59:50z", 10),
        ("2024-03-11T09:30:00Z", 0),
        ("yesterday", None),
        ("2024-03-11T08:59:50", None),
    ],
    ids=["plain", "fraction", "offset", "lower-case", "future", "word", "no-zone"],
)
def test_event_times_are_read_as_rfc_3339(text: str, lag: int | None) -> None:
    assert health(state=event_at(text))["metrics"]["ingestLagSeconds"] == lag


def test_heartbeat_lag_grows_while_the_heartbeat_stays_away() -> None:
    frozen = {"lastHeartbeatAt": "2024-03-11T08:54:00Z", "heartbeatLagSeconds": 5}
    document = health(heartbeat=frozen)
    assert document["metrics"]["heartbeatLagSeconds"] == 360
    assert document["reasonCodes"] == ["runtime_heartbeat_stale"]
    assert document["status"] == "critical"


def test_stored_heartbeat_lag_serves_without_a_time() -> None:
    assert health(heartbeat={"heartbeatLagSeconds": 7})["metrics"]["heartbeatLagSeconds"] == 7


def test_no_heartbeat_at_all_is_neutral() -> None:
    assert health(heartbeat=None)["metrics"]["heartbeatLagSeconds"] is None


def test_heartbeat_time_falls_back_to_the_heartbeat_itself() -> None:
    document = health(heartbeat={"heartbeat": {"timestamp": "2024-03-11T08:59:00Z"}})
    assert document["metrics"]["heartbeatLagSeconds"] == 60
    assert document["evidence"]["lastHeartbeatAt"] == "2024-03-11T08:59:00Z"


def test_drift_without_reason_code_is_named() -> None:
    document = health(sequence={"driftActive": True})
    assert document["reasons"] == [
        {
            "code": "ordering_drift_detected",
            "severity": "degraded",
            "metric": "sequence.status",
            "observed": "ordering_drift_detected",
            "threshold": "ok",
        }
    ]


def test_unwritable_telemetry_degrades() -> None:
    document = health(telemetry_writable=False)
    assert (document["status"], document["reasonCodes"]) == ("degraded", ["telemetry_unwritable"])


def test_time_is_shown_as_it_was_given() -> None:
    assert health(now_text="2024-03-11T09:00:00Z")["updatedAt"] == "2024-03-11T09:00:00Z"


maybe_lag = st.none() | st.integers(-50, 2000)


@given(
    ingest=maybe_lag,
    beat=maybe_lag,
    streak=st.integers(0, 8),
    drifting=st.booleans(),
    diverging=st.booleans(),
    intent=st.sampled_from([None, "ambiguous", "confirmed", "failed_command"]),
    failure=st.sampled_from([None, "", "events_unavailable", "projection_failed", "odd"]),
)
def test_reasons_are_sorted_unique_and_decide_the_status(
    ingest: int | None,
    beat: int | None,
    streak: int,
    *,
    drifting: bool,
    diverging: bool,
    intent: str | None,
    failure: str | None,
) -> None:
    document = health(
        state={"divergence": {"any": diverging}}
        | (event_at(format_utc(NOW - ingest)) if ingest is not None else {}),
        heartbeat=None if beat is None else {"lastHeartbeatAt": format_utc(NOW - beat)},
        sequence={"driftActive": drifting},
        transport_health={"failureStreak": streak},
        last_intent={"status": intent},
        ingest_status="success" if failure is None else "failed",
        failure_code=failure or "",
    )
    keys = [f"{reason['code']}:{reason['severity']}" for reason in document["reasons"]]
    assert keys == sorted(set(keys))
    assert document["reasonCodes"] == sorted({reason["code"] for reason in document["reasons"]})
    severities = {reason["severity"] for reason in document["reasons"]}
    expected = "critical" if "critical" in severities else "degraded" if severities else "healthy"
    assert document["status"] == expected
    assert all(isinstance(value, str) for reason in document["reasons"] for value in reason.values())


ODD_VALUES: list[JSON] = [["x"], {"a": 1}, [], {}, 5, 1e300, True, False, "", "\ud800", None]


@pytest.mark.parametrize("value", ODD_VALUES, ids=repr)
def test_value_of_any_kind_in_a_damaged_file_is_no_reason_to_stop(value: JSON) -> None:
    members = (
        "status reasonCode driftActive updatedAt failureStreak lastFailureCode lastHeartbeatAt"
        " heartbeatLagSeconds heartbeat transition projection divergence"
    )
    damaged = dict.fromkeys(members.split(), value)
    for document in (value, damaged):
        verdict = health(
            state=document,
            heartbeat=document,
            sequence=document,
            transport_health=document,
            last_intent=document,
        )
        assert not any(code.startswith("control_") for code in verdict["reasonCodes"])
