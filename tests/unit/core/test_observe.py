"""The one step of a loop (contract G.1, G.2, G.8 and remedies)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.core.cursor import Cursor, Place
from manager.core.escalation import EvidenceFiles
from manager.core.facts import Arrived, Known, Outcome, Settings
from manager.core.health import DEGRADED, Condition
from manager.core.intake import BadLine
from manager.core.observe import observe
from manager.core.sequence import LogChange, Memory, Numbers
from manager.core.thresholds import DEFAULTS
from spritemesh.jsontext import JSON
from tests.fakes.streams import LOOP, REPO, FakeLog

SETTINGS = Settings(
    repo_path=REPO,
    loop_id=LOOP,
    trace_id="t",
    transport="local",
    thresholds=DEFAULTS._replace(degraded_ingest_lag=10**12, critical_ingest_lag=10**12),
    profile="balanced",
    profiles=frozenset({"strict", "balanced", "relaxed"}),
    min_confidence="high",
    required_streak=2,
    window=200,
    max_events=0,
    from_start=False,
    retry_attempts=3,
    retry_backoff_seconds=1,
    snapshot_file="/s",
    events_file="/e",
    reconcile_file="/r",
    control_file="/c",
    evidence=EvidenceFiles("/1", "/2", "/3", "/4", "/5", "/6", "/7"),
)
FAILED = Arrived(failure_code="events_unavailable", failure_message="line 2: no")


def arrived(count: int, *, since: int = 0, **given_: Any) -> Arrived:
    log = FakeLog(count)
    position = log.position()
    facts: dict[str, Any] = {
        "snapshot": log.snapshot(),
        "numbers": Numbers.of(range(since + 1, count + 1)),
        "offset": count,
        "place": Place(position.line, position.digest, position.first_line_digest),
        "line_count": count,
    }
    return Arrived(**(facts | given_))


def step(known: Known | None = None, what: Arrived | None = None, **given_: Any) -> Outcome:
    known = Known(reconcile_rows=[], control_rows=[]) if known is None else known
    what = arrived(3) if what is None else what
    settings = SETTINGS._replace(**given_)
    return observe(known, what, settings, started_at=100, now=101.9)


def remembered(outcome: Outcome, known: Known | None = None) -> Known:
    """What the files would say after `outcome`."""
    known = known or Known(reconcile_rows=[], control_rows=[])
    cursor = known.cursor
    if outcome.cursor is not None:
        position = outcome.cursor["position"]
        cursor = Cursor(
            outcome.cursor["eventLineOffset"],
            Place(
                position["line"],
                bytes.fromhex(position.get("logDigest", "")),
                bytes.fromhex(position.get("firstLineDigest", "")),
            ),
            Memory(position.get("lastSnapshotValue"), position.get("lastEventValue")),
        )
    return known._replace(
        cursor=cursor,
        state=outcome.state,
        health=outcome.health,
        sequence=outcome.sequence or known.sequence,
        transport_health=outcome.transport_health,
        drift=outcome.drift,
        reconcile_rows=[*(known.reconcile_rows or []), outcome.reconcile_row],
    )


def test_success_prints_the_state_with_all_its_parts() -> None:
    outcome = step()
    assert outcome.failure_code == ""
    assert outcome.state is not None
    assert outcome.document is outcome.state
    assert list(outcome.state)[-5:] == ["health", "trace", "sequence", "drift", "tuning"]
    assert list(outcome.state["drift"])[-1] == "traceId"
    assert "traceId" not in outcome.drift


def test_a_judgement_of_the_transport_that_somebody_damaged_counts_as_none() -> None:
    """A live session passes on what the file says until it has judged itself."""
    outcome = step(what=arrived(3, transport_health={"schemaVersion": "v1", "failureStreak": [1]}))
    assert outcome.reconcile_row["transportFailureStreak"] == 0


def test_ordinary_row_has_no_key_that_v1_does_not_know() -> None:
    assert list(step().reconcile_row) == [
        "timestamp",
        "startedAt",
        "loopId",
        "traceId",
        "transport",
        "status",
        "cursorOffsetBefore",
        "cursorOffsetAfter",
        "eventsIngested",
        "maxEvents",
        "fromStart",
        "retryAttempts",
        "retryBackoffSeconds",
        "thresholdProfile",
        "durationSeconds",
        "transportFailureStreak",
        "sequenceStatus",
        "healthStatus",
        "healthReasonCodes",
    ]


def test_failure_prints_the_health_and_moves_nothing() -> None:
    outcome = step(what=FAILED)
    assert outcome.document is outcome.health
    assert (outcome.state, outcome.cursor, outcome.sequence, outcome.heartbeat) == (None, None, None, None)
    assert outcome.reconcile_row["sequenceStatus"] == "skipped_ingest_failed"
    assert outcome.reconcile_row["failureMessage"] == "line 2: no"


def test_failure_replaces_judgements_in_an_existing_state_in_place() -> None:
    known = Known(state={"health": 1, "run": {"runId": "r"}, "sequence": {"kept": 1}}, reconcile_rows=[])
    state = step(known, FAILED).state
    assert state is not None
    assert list(state) == ["health", "run", "sequence", "trace", "drift", "tuning"]
    assert state["sequence"] == {"kept": 1}
    assert state["health"]["status"] == "degraded"


def test_failure_keeps_the_offset_that_the_cursor_has() -> None:
    known = Known(cursor=Cursor(7, Place(7)), reconcile_rows=[])
    row = step(known, FAILED).reconcile_row
    assert (row["cursorOffsetBefore"], row["cursorOffsetAfter"]) == (7, 7)
    row = step(known, FAILED, from_start=True).reconcile_row
    assert (row["cursorOffsetBefore"], row["cursorOffsetAfter"]) == (0, 7)


def test_foreign_snapshot_fails_projection_and_moves_nothing() -> None:
    outcome = step(what=arrived(3, snapshot=FakeLog(3).snapshot(loop_id="beta")))
    assert outcome.failure_code == "projection_failed"
    assert outcome.cursor is None
    assert outcome.reconcile_row["failureMessage"].startswith("projection_failed: ")


def test_proved_truncation_is_drift_although_the_pass_fails() -> None:
    known = remembered(step())
    change = LogChange("log_truncated", 3, 1)
    short = Arrived(
        snapshot=FakeLog(1).snapshot(),
        change=change,
        failure_code="events_unavailable",
        failure_message="log_truncated: ...",
    )
    outcome = step(known, short)
    assert outcome.cursor is None
    assert outcome.sequence is not None
    assert "event_sequence_regression" in outcome.sequence["violations"]
    assert outcome.health["reasonCodes"] == ["ordering_drift_detected", "transport_unreachable"]
    assert [row["category"] for row in outcome.escalations] == ["ordering_drift_detected", "health_degraded"]
    assert list(outcome.reconcile_row)[-1] == "logReset"
    again = step(remembered(outcome, known), short)
    assert again.escalations == []


def test_replaced_log_is_noted_and_nothing_else() -> None:
    known = remembered(step(what=arrived(5)))
    outcome = step(known, arrived(2, change=LogChange("log_replaced", 5, 2)))
    assert outcome.escalations == []
    assert outcome.health["status"] == "healthy"
    assert outcome.state is not None
    assert not outcome.state["divergence"]["any"]
    assert outcome.sequence_row is not None
    assert list(outcome.sequence_row)[-1] == "log"
    assert outcome.reconcile_row["logReset"]["verdict"] == "log_replaced"


def test_requested_replay_of_a_healthy_log_is_no_drift() -> None:
    known = remembered(step(what=arrived(5)))
    outcome = step(known, arrived(5), from_start=True)
    assert outcome.escalations == []
    assert outcome.sequence is not None
    assert outcome.sequence["events"]["previousLast"] == 5
    assert "logReset" not in outcome.reconcile_row


def test_requested_replay_notices_that_the_log_is_another_one() -> None:
    known = remembered(step(what=arrived(5)))
    other = FakeLog(2, first="another")
    outcome = step(known, arrived(2, snapshot=other.snapshot()), from_start=True)
    assert outcome.reconcile_row["logReset"] == {"verdict": "log_replaced", "previousLine": 5, "line": 2}
    assert outcome.escalations == []


def test_requested_replay_of_a_log_that_lost_lines_is_drift() -> None:
    known = remembered(step(what=arrived(5)))
    outcome = step(known, arrived(2), from_start=True)
    assert outcome.sequence is not None
    assert outcome.sequence["violations"] == ["snapshot_sequence_regression"]


def test_recommendation_outside_the_catalog_is_none() -> None:
    outcome = step(profiles=frozenset({"balanced"}))
    assert outcome.drift["status"] == "no_recommendation"
    assert outcome.state is not None
    assert outcome.state["tuning"]["recommendedProfile"] == "strict"


def test_unreadable_telemetry_leaves_out_the_tuning() -> None:
    outcome = step(Known(reconcile_rows=None))
    assert outcome.state is not None
    assert "tuning" not in outcome.state
    assert outcome.drift["status"] == "no_recommendation"


def test_summary_covers_the_window_with_this_pass() -> None:
    rows: list[JSON] = [{"status": "failed"}] * 9
    outcome = step(Known(reconcile_rows=rows), window=3)
    assert outcome.state is not None
    assert outcome.state["tuning"]["telemetrySummary"]["observed"]["reconcileAttempts"] == 3
    alone = step(Known(reconcile_rows=rows), window=1)
    assert alone.state is not None
    assert alone.state["tuning"]["telemetrySummary"]["observed"]["reconcileAttempts"] == 1


def test_profile_drift_is_escalated_when_it_becomes_active() -> None:
    known = remembered(step(min_confidence="low"))
    outcome = step(known, arrived(3, since=3), min_confidence="low")
    assert [row["category"] for row in outcome.escalations] == ["profile_drift_detected"]


def test_damage_is_told_last() -> None:
    row = step(Known(damaged_documents=("state.json",))).reconcile_row
    assert list(row)[-1] == "damagedDocuments"


def test_passed_lines_become_rows() -> None:
    bad = BadLine(2, 7, "ab", "invalid_json_line", "{broken")
    outcome = step(what=arrived(3, bad_lines=(bad,)))
    assert list(outcome.quarantine_rows[0]) == [
        "timestamp",
        "loopId",
        "traceId",
        "transport",
        "category",
        "reasonCode",
        "line",
        "sizeBytes",
        "sha256",
        "prefix",
    ]
    assert outcome.reconcile_row["linesQuarantined"] == 1


def test_memory_outlasts_idle_passes() -> None:
    known = remembered(step(what=arrived(5)))
    for _ in range(2):
        known = remembered(step(known, arrived(5, since=5)), known)
    assert known.cursor.memory == Memory(5, 5)
    outcome = step(known, arrived(5, numbers=Numbers.of((4, 5))))
    assert outcome.sequence is not None
    assert outcome.sequence["violations"] == ["event_sequence_regression"]


@given(st.lists(st.none() | st.integers(0, 4), min_size=1, max_size=10))
def test_growing_log_never_drifts_whatever_fails_between(growth: list[int | None]) -> None:
    known, count = Known(reconcile_rows=[], control_rows=[]), 1
    known = remembered(step(known, arrived(1)), known)
    for lines in growth:
        if lines is None:
            outcome = step(known, FAILED)
        else:
            outcome = step(known, arrived(count + lines, since=count))
            count += lines
        known = remembered(outcome, known)
        categories = {row["category"] for row in outcome.escalations}
        assert not categories & {"ordering_drift_detected", "divergence_detected"}
        assert known.cursor.offset == count
        assert outcome.transport_health["failureStreak"] == (
            0 if lines is not None else outcome.reconcile_row["transportFailureStreak"]
        )


@pytest.mark.parametrize("part", ["summary", "superloop_state", "heartbeat", "gates", "stuck"])
def test_carried_text_that_is_no_json_fails_the_pass_and_is_told(part: str) -> None:
    snapshot = FakeLog(3).snapshot()
    places = {"summary": snapshot.run, "gates": snapshot.health, "stuck": snapshot.health}
    getattr(places.get(part, snapshot.runtime), part).json = "{half"
    outcome = step(what=arrived(3, snapshot=snapshot))
    assert outcome.failure_code == "service_response_invalid"
    assert outcome.reconcile_row["status"] == "failed"
    assert outcome.transport_health["failureStreak"] == 1
    assert (outcome.state, outcome.heartbeat, outcome.heartbeat_row, outcome.cursor) == (None,) * 4
    assert [row["category"] for row in outcome.escalations] == ["health_degraded"]


def brief(known: Known, what: Arrived) -> Outcome:
    return observe(known, what, SETTINGS, started_at=100, now=101.9, brief=True)


def events_alone(count: int, since: int, **given_: Any) -> Arrived:
    event = {"event": {"name": "role_end"}, "source": {"loopId": LOOP}}
    return arrived(count, since=since, snapshot=None, projects=False, last_event=event, **given_)


def test_brief_step_leaves_drift_and_tuning_as_they_were() -> None:
    first = step()
    outcome = brief(remembered(first), arrived(5, since=3))
    assert first.state is not None
    assert outcome.state is not None
    assert (outcome.state["drift"], outcome.state["tuning"]) == (first.state["drift"], first.state["tuning"])
    assert (outcome.drift, outcome.drift_row) == ({}, None)


def test_brief_step_without_news_judges_no_sequence() -> None:
    known = remembered(step())
    assert brief(known, arrived(3, since=3)).sequence is None
    assert brief(known, arrived(3, since=3, snapshot=None, projects=False)).sequence is None
    assert brief(known, arrived(4, since=3)).sequence is not None


def test_events_without_their_snapshot_move_the_last_event_and_the_cursor() -> None:
    known = remembered(step())
    outcome = brief(known, events_alone(5, 3))
    assert outcome.failure_code == ""
    assert outcome.state is not None
    assert outcome.state["evidence"]["lastEventEnvelope"]["event"] == {"name": "role_end"}
    assert outcome.state["cursor"] == known.state["cursor"]
    assert outcome.cursor is not None
    assert outcome.cursor["eventLineOffset"] == 5
    assert outcome.sequence is not None
    assert outcome.sequence["violations"] == []
    assert outcome.sequence["snapshot"]["current"] == 3


def test_events_before_any_snapshot_make_no_state() -> None:
    outcome = brief(Known(), events_alone(2, 0))
    assert (outcome.state, outcome.failure_code) == (None, "")
    assert outcome.document is outcome.health


def test_replaced_log_takes_its_last_event_with_it_before_its_snapshot_comes() -> None:
    known = remembered(brief(remembered(step(what=arrived(5))), events_alone(6, 5)))
    change = LogChange("log_replaced", 6, 0)
    empty = Arrived(change=change, projects=False)
    outcome = brief(known, empty)
    assert outcome.state is not None
    assert outcome.state["evidence"]["lastEventEnvelope"] is None
    assert outcome.state["cursor"]["eventLineOffset"] == 0
    outcome = brief(remembered(outcome, known), arrived(2))
    assert outcome.state is not None
    assert not outcome.state["divergence"]["any"]


@pytest.mark.parametrize("state", [{"evidence": "x", "cursor": []}, {}])
def test_state_of_unsure_kind_is_carried(state: JSON) -> None:
    change = LogChange("log_replaced", 3, 1)
    outcome = brief(Known(state=state), events_alone(1, 0, change=change))
    assert outcome.state is not None
    assert outcome.state["cursor"] == {"eventLineOffset": 0}


def test_condition_is_part_of_health() -> None:
    condition = Condition("agent_silent", DEGRADED, "agent.heartbeatAgeSeconds", "20", "15")
    outcome = step(what=arrived(3, conditions=(condition,)))
    assert outcome.health["reasonCodes"] == ["agent_silent"]
