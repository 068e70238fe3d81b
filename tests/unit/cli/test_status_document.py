"""The status document where recordings do not reach (contract J)."""

from typing import Any

import pytest

from manager.core.status import Known, status_document


def document(**known: Any) -> dict[str, Any]:
    return status_document(
        Known(**known), now_text="now", repo_path="/r", loop_id="alpha", window=5, files={"stateFile": "/s"}
    )


def test_nothing_known_gives_null_members_and_leaves_optional_ones_out() -> None:
    found = document()
    assert list(found) == [
        "schemaVersion",
        "generatedAt",
        "source",
        "lifecycle",
        "health",
        "cursor",
        "control",
        "reconcile",
        "visibility",
        "tuning",
        "traceLinkage",
        "files",
    ]
    assert found["lifecycle"] == {"state": "unknown", "confidence": None, "runId": None, "iteration": None}
    assert found["health"] == {}
    assert found["visibility"] == {"trace": {}}
    assert found["cursor"] == {"eventLineOffset": 0, "eventLineCount": 0}


def test_health_of_the_state_comes_before_the_health_file() -> None:
    assert document(state={"health": {"status": "a"}}, health={"status": "b"})["health"] == {"status": "a"}
    assert document(state={}, health={"status": "b"})["health"] == {"status": "b"}


def test_cursor_file_comes_before_the_state() -> None:
    state = {"cursor": {"eventLineOffset": 1, "eventLineCount": 2}}
    assert document(state=state, cursor={"eventLineOffset": 7})["cursor"] == {
        "eventLineOffset": 7,
        "eventLineCount": 2,
    }


def test_lifecycle_falls_back_to_the_projection() -> None:
    assert document(state={"projection": {"status": "idle"}})["lifecycle"]["state"] == "idle"


def test_false_flags_are_left_out() -> None:
    found = document(
        sequence={"driftActive": False, "violations": []},
        last_invocation={"execution": {"replayed": False}},
    )
    assert found["visibility"]["sequence"] == {"violations": []}
    assert found["visibility"]["invocationAudit"] == {}


def test_telemetry_rows_stand_in_for_state_files_member_by_member() -> None:
    found = document(
        heartbeat={"freshnessStatus": "fresh", "updatedAt": "u"},
        last_heartbeat={"status": "critical", "heartbeatAt": "h", "timestamp": "t", "transport": "local"},
        last_sequence={"status": "ok", "snapshot": {"current": 3}, "timestamp": "t"},
    )
    assert found["visibility"]["heartbeat"] == {
        "freshnessStatus": "fresh",
        "lastHeartbeatAt": "h",
        "updatedAt": "u",
        "transport": "local",
    }
    assert found["visibility"]["sequence"] == {"status": "ok", "snapshotCurrent": 3, "updatedAt": "t"}


@pytest.mark.parametrize(
    ("traces", "seen", "linked"),
    [
        ({"last_reconcile": "a", "last_alert": "a"}, "a", "a"),
        ({"last_reconcile": "a", "last_alert": "a", "last_intent": "b"}, None, None),
        ({"last_reconcile": "a", "last_alert": "a", "sequence": "b"}, None, "a"),
        ({"last_reconcile": "a"}, "a", None),
        ({"last_alert": "a", "last_intent": "a"}, "a", None),
        ({"last_reconcile": "a", "dispatch": "a", "last_invocation": "z"}, "a", "a"),
        ({}, None, None),
    ],
)
def test_two_rules_for_the_shared_trace_are_kept(
    traces: dict[str, str], seen: str | None, linked: str | None
) -> None:
    found = document(**{name: {"traceId": trace} for name, trace in traces.items()})
    assert found["visibility"]["trace"].get("sharedTraceId") == seen
    assert found["traceLinkage"]["sharedTraceId"] == linked


def test_dispatch_counts_default_to_zero() -> None:
    assert document(dispatch={"status": "no_source"})["alerts"] == {
        "dispatch": {
            "status": "no_source",
            "processedCount": 0,
            "dispatchedCount": 0,
            "skippedCount": 0,
            "failedCount": 0,
            "failureReasonCodes": [],
            "escalationsLineOffset": 0,
            "escalationsLineCount": 0,
        }
    }


def test_last_delivery_is_told_with_the_trace_of_its_escalation() -> None:
    row = {
        "timestamp": "t",
        "loopId": "alpha",
        "traceId": "a",
        "escalationTraceId": "e",
        "category": "alert_dispatch",
        "escalationCategory": "health_critical",
        "eventSeverity": "critical",
        "status": "partial",
        "reasonCode": "partial_dispatch_failure",
        "sinkCount": 2,
        "dispatchedSinkCount": 1,
        "failedSinkCount": 0,
        "sinks": [],
    }
    told = dict(row)
    for name in ("loopId", "category", "sinks"):
        del told[name]
    found = document(last_alert=row)["alerts"]["lastDelivery"]
    assert found == {**told, "traceId": "a", "escalationTraceId": "e"}
    assert list(found)[-2:] == ["traceId", "escalationTraceId"]
    assert document(last_alert={"status": "failed"})["alerts"] == {"lastDelivery": {"status": "failed"}}


def test_alert_trace_is_that_of_the_last_row_before_that_of_the_state() -> None:
    found = document(last_alert={"traceId": "row"}, dispatch={"traceId": "state", "processedCount": False})
    assert found["traceLinkage"]["alertTraceId"] == "row"
    assert found["alerts"]["dispatch"]["lastTraceId"] == "state"
    assert found["alerts"]["dispatch"]["processedCount"] == 0
    assert document(dispatch={"traceId": "state"})["traceLinkage"]["alertTraceId"] == "state"


def test_heartbeat_and_sequence_traces_come_from_the_state_then_the_row() -> None:
    rows = {"last_heartbeat": {"traceId": "h2"}, "last_sequence": {"traceId": "s2"}}
    linkage = document(**rows)["traceLinkage"]
    assert (linkage["heartbeatTraceId"], linkage["sequenceTraceId"]) == ("h2", "s2")
    linkage = document(heartbeat={"traceId": "h1"}, sequence={"traceId": "s1"}, **rows)["traceLinkage"]
    assert (linkage["heartbeatTraceId"], linkage["sequenceTraceId"]) == ("h1", "s1")


def test_control_tells_of_the_last_intent_and_falls_back_for_the_trace_only() -> None:
    control = {
        "intent": "cancel",
        "status": "confirmed",
        "requestedBy": "x",
        "timestamp": "t",
        "traceId": "c",
    }
    assert document(last_control=control)["control"] == {
        "lastIntent": None,
        "lastStatus": None,
        "lastRequestedBy": None,
        "lastTimestamp": None,
        "lastTraceId": "c",
    }
    assert document(last_intent=control)["control"] == {
        "lastIntent": "cancel",
        "lastStatus": "confirmed",
        "lastRequestedBy": "x",
        "lastTimestamp": "t",
        "lastTraceId": "c",
    }


def test_reconcile_and_linkage_are_null_where_nothing_is_known() -> None:
    found = document()
    names = ("Status", "Timestamp", "Transport", "FailureCode", "DurationSeconds", "TraceId")
    assert found["reconcile"] == {f"last{name}": None for name in names}
    linked = ("control", "controlInvocation", "reconcile", "heartbeat", "sequence", "alert", "shared")
    assert found["traceLinkage"] == {f"{name}TraceId": None for name in linked}
    assert found["tuning"] == {
        "summaryWindow": 5,
        "appliedProfile": None,
        "recommendedProfile": None,
        "confidence": None,
        "rationale": None,
        "telemetrySummary": None,
    }


def test_tuning_takes_the_profile_of_the_state_and_the_rest_of_the_summary() -> None:
    summary = {
        "observed": {"reconcileAttempts": 3},
        "source": {"window": 5},
        "generatedAt": "t",
        "recommendedProfile": "strict",
        "confidence": "low",
        "rationale": "because",
    }
    profile = {"thresholds": {"profile": "relaxed"}}
    found = document(state={"health": profile}, health={"thresholds": {"profile": "other"}}, summary=summary)
    assert found["tuning"] == {
        "summaryWindow": 5,
        "appliedProfile": "relaxed",
        "recommendedProfile": "strict",
        "confidence": "low",
        "rationale": "because",
        "telemetrySummary": {"observed": {"reconcileAttempts": 3}, "source": {"window": 5}},
    }
    assert document(health=profile)["tuning"]["appliedProfile"] == "relaxed"


def test_invocation_audit_tells_of_the_last_call() -> None:
    row = {
        "timestamp": "t",
        "intent": "cancel",
        "transport": "local",
        "idempotencyKey": "k",
        "traceId": "i",
        "execution": {"status": "succeeded", "replayed": True},
        "confirmation": {"status": "confirmed"},
        "outcome": {"status": "confirmed"},
    }
    assert document(last_invocation=row)["visibility"]["invocationAudit"] == {
        "timestamp": "t",
        "intent": "cancel",
        "transport": "local",
        "idempotencyKey": "k",
        "executionStatus": "succeeded",
        "confirmationStatus": "confirmed",
        "outcomeStatus": "confirmed",
        "replayed": True,
        "traceId": "i",
    }
    assert document(last_invocation=row)["visibility"]["trace"] == {"controlInvocationTraceId": "i"}


def test_drift_file_comes_before_the_drift_of_the_state() -> None:
    assert document(drift={"status": "a"}, state={"drift": {"status": "b"}})["drift"] == {"status": "a"}
    assert document(state={"drift": {"status": "b"}})["drift"] == {"status": "b"}


@pytest.mark.parametrize("odd", [5, "text", [1], True, {"transition": 1, "health": 2, "cursor": []}])
def test_damaged_documents_do_no_harm(odd: Any) -> None:
    assert document(**dict.fromkeys(Known._fields, odd))["schemaVersion"] == "v1"
