"""One loop, live: when steps are due, what they hold, and what one gives back that could not be written."""

import os
from typing import Any

import pytest

from manager.core.cursor import Cursor, Place
from manager.core.facts import Known
from manager.core.live import (
    COMMIT_BAD_LINES,
    COMMIT_EVENTS,
    COMMIT_SECONDS,
    FRESH_SECONDS,
    REGRESSED_SECONDS,
    RETRY_SECONDS,
    LiveLoop,
)
from manager.core.liveness import DEAD_GRACE_SECONDS, Record
from manager.core.sequence import Memory
from manager.core.session_record import record_row, session_document, session_judgement
from manager.core.step import Step
from manager.core.thresholds import DEFAULTS
from manager.core.view import loop_view
from manager.fleet.commits import SessionStore, Write
from manager.store import LoopStore
from manager.store.paths import loop_files
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.reasons import REASONS
from spritemesh.values import get
from tests.fakes.streams import LOOP, REPO, FakeLog, Message, heartbeat
from tests.unit.core.test_observe import SETTINGS

NOW = 1_710_147_610.0
NO_SPACE = OpsError("state_unwritable", "no space left")
EMPTY = Known(reconcile_rows=[], control_rows=[])


class Watched:
    """A loop that is up, and what was written of it."""

    def __init__(self, log: FakeLog, known: Known = EMPTY) -> None:
        self.log = log
        self.now = NOW
        self.loop = LiveLoop(SETTINGS, known, self.now)
        self.store = SessionStore(LoopStore(loop_files(REPO, LOOP)))
        self.judged: tuple[JSON, ...] = ()  # as session.json says
        self.steps: list[Step] = []
        self.rows: list[dict[str, JSON]] = []
        self.written: list[str] = []  # names of the documents of the last step
        self.connect()

    def connect(self) -> None:
        self.loop.open("t", self.now)
        opened = self.log.opened(self.loop.intake.place.line)
        self.take(opened)
        self.loop.up(opened.opened, self.now)

    def take(self, *messages: Message) -> None:
        for message in messages:
            self.loop.accept(message, self.now)

    def bookmark(self, **given: Any) -> Message:
        message = self.log.bookmark()
        message.bookmark.snapshot.CopyFrom(self.log.snapshot(**given))
        return message

    def read_all(self) -> None:
        start = self.loop.intake.place.line
        if start < len(self.log.lines):
            self.take(self.log.batch(start + 1, len(self.log.lines)))
        self.take(self.bookmark())

    def begin(self) -> Step:
        if self.loop.is_whole:
            self.loop.remember(self.loop.known._replace(reconcile_rows=[], control_rows=[]))
        return self.loop.step(self.now)

    def commit(self) -> Step:
        step = self.begin()
        judged, document = session_judgement(self.loop), None
        if step.fresh or judged != self.judged:
            self.judged, document = judged, session_document(self.loop, self.now)
        write = Write(self.store, step, self.loop.settings, document)
        self.written = [os.path.basename(path) for path, _ in self.store.documents(write)]
        self.loop.written(step, telemetry_writable=True)
        self.steps.append(step)
        if step.whole:
            self.rows.append(step.outcome.reconcile_row)
        return step

    def settle(self) -> Step:
        """Commit until nothing is left to tell; the last step."""
        while self.loop.due_at() is not None:
            self.commit()
            self.now += COMMIT_SECONDS
            assert len(self.steps) < 100, "it never settles"
        return self.steps[-1]

    def append(self, count: int) -> None:
        self.log = FakeLog(len(self.log.lines) + count)


def settled(count: int = 3) -> Watched:
    watched = Watched(FakeLog(count))
    watched.read_all()
    watched.settle()
    return watched


def codes(step: Step) -> list[str]:
    found: list[str] = step.outcome.health["reasonCodes"]
    return found


def is_full(watched: Watched) -> bool:
    return watched.loop.is_full


def violations(step: Step) -> list[str]:
    return get(step.outcome.sequence, "violations") or []


# --- when a step is due ---------------------------------------------------------------------------------


def test_nothing_to_tell_is_never_due() -> None:
    watched = settled()
    assert watched.loop.due_at() is None
    watched.loop.tick(watched.now + 1)
    assert watched.loop.due_at() is None


def test_events_with_their_snapshot_are_due_after_the_pace_of_commits() -> None:
    watched = settled()
    watched.append(1)
    stepped_at = watched.steps[-1].now
    watched.read_all()
    assert watched.loop.due_at() == stepped_at + COMMIT_SECONDS


def test_events_wait_for_their_snapshot_but_no_longer_than_a_commit_may() -> None:
    watched = settled()
    watched.now += 60
    watched.append(1)
    watched.take(watched.log.batch(4, 4))
    assert watched.loop.due_at() == watched.now + COMMIT_SECONDS
    watched.now += 0.05
    watched.take(watched.bookmark())
    due = watched.loop.due_at()
    assert due is not None
    assert due <= watched.now


def test_many_events_wait_for_nothing() -> None:
    watched = settled()
    watched.append(COMMIT_EVENTS)
    watched.take(watched.log.batch(4, COMMIT_EVENTS + 2))
    waits = watched.loop.due_at()
    watched.take(watched.log.batch(COMMIT_EVENTS + 3, COMMIT_EVENTS + 3))
    assert waits == watched.now + COMMIT_SECONDS
    assert watched.loop.due_at() == watched.now


def test_many_lines_that_are_no_events_wait_for_nothing_and_in_the_end_stop_the_reading() -> None:
    count = 4 * COMMIT_BAD_LINES
    watched = Watched(FakeLog(count, blank=range(1, count + 1)))
    watched.settle()

    def take_bad(first: int, last: int) -> None:
        for line in range(first, last + 1):
            message = watched.log.invalid(1)
            message.invalid_line.line = line
            watched.take(message)
        watched.take(watched.log.batch(first, last))

    watched.now = watched.steps[-1].now
    take_bad(1, COMMIT_BAD_LINES - 1)
    assert watched.loop.due_at() == watched.now + COMMIT_SECONDS
    take_bad(COMMIT_BAD_LINES, COMMIT_BAD_LINES)
    assert watched.loop.due_at() == watched.now
    step = watched.begin()
    watched.loop.failed(NO_SPACE, watched.now)
    take_bad(COMMIT_BAD_LINES + 1, count - 1)
    assert not is_full(watched)
    take_bad(count, count)
    assert is_full(watched)
    assert len(step.outcome.quarantine_rows) == COMMIT_BAD_LINES
    assert [row["line"] for row in watched.commit().outcome.quarantine_rows] == list(range(1, count + 1))
    assert not is_full(watched)


def test_nothing_is_due_while_a_step_is_being_written() -> None:
    watched = settled()
    watched.append(2)
    watched.take(watched.log.batch(4, 4))
    step = watched.begin()
    watched.take(watched.log.batch(5, 5))
    assert watched.loop.is_pending
    assert watched.loop.due_at() is None
    watched.loop.written(step, telemetry_writable=True)
    assert watched.loop.due_at() is not None
    assert watched.loop.committed_line == 4


def test_a_step_that_failed_is_tried_again_after_a_while() -> None:
    watched = settled()
    watched.append(1)
    watched.read_all()
    watched.begin()
    watched.loop.failed(NO_SPACE, watched.now)
    assert watched.loop.due_at() == watched.now + RETRY_SECONDS


# --- what a step that failed gives back -----------------------------------------------------------------


def test_nothing_of_a_step_that_failed_is_lost_or_told_twice() -> None:
    watched = settled()
    before = watched.loop.known
    watched.append(2)
    watched.take(watched.log.batch(4, 4))
    watched.loop.note(Record("agent_silent", {"active": True}), watched.now)
    watched.begin()
    watched.take(watched.log.batch(5, 5), watched.bookmark())
    watched.loop.failed(NO_SPACE, watched.now)
    assert watched.loop.known.cursor == before.cursor
    assert watched.loop.committed_line == 3
    step = watched.commit()
    assert get(step.outcome.sequence, "events", "ingestedCount") == 2
    assert (get(step.outcome.sequence, "events", "first"), violations(step)) == (4, [])
    assert [record.reason for record in step.records] == ["agent_silent"]
    assert get(step.outcome.state, "cursor", "eventLineOffset") == 5
    assert watched.loop.counts.commit_failures == 1


def test_health_tells_of_the_disk_until_it_takes_steps_again() -> None:
    watched = settled()
    watched.append(1)
    watched.read_all()
    watched.begin()
    watched.loop.failed(NO_SPACE, watched.now)
    assert codes(watched.commit()) == ["state_unwritable"]
    assert codes(watched.settle()) == []


def test_offered_snapshot_survives_a_step_that_failed() -> None:
    watched = Watched(FakeLog(3))
    watched.loop.offer(watched.log.snapshot(), watched.now)
    watched.begin()
    watched.loop.failed(NO_SPACE, watched.now)
    assert get(watched.commit().outcome.state, "run", "runId") == "run-1"


def test_intent_that_came_while_a_step_failed_counts() -> None:
    watched = settled()
    watched.append(1)
    watched.read_all()
    watched.begin()
    watched.loop.intent({"status": "failed_command"}, watched.now)
    watched.loop.failed(NO_SPACE, watched.now)
    assert "control_failed_command" in codes(watched.commit())


def test_records_are_bounded_while_none_can_be_written() -> None:
    watched = settled()
    for number in range(1200):
        watched.loop.note(Record("events_replayed", {"events": number}), watched.now)
        watched.begin()
        watched.loop.failed(NO_SPACE, watched.now)
    records = watched.commit().records
    assert len(records) == 1000
    assert records[-1].detail == {"events": 1199}


# --- rows and documents ---------------------------------------------------------------------------------


def test_rows_of_passes_tile_the_log() -> None:
    watched = Watched(FakeLog(3, blank=[2]))
    for _ in range(4):
        watched.read_all()
        watched.settle()
        watched.append(2)
        watched.take(watched.log.batch(len(watched.log.lines) - 1, len(watched.log.lines) - 1))
        watched.begin()
        watched.loop.failed(NO_SPACE, watched.now)
        watched.commit()
        watched.read_all()
        watched.settle()
        watched.loop.down(OpsError("stream_broken", "cut"), watched.now, watched.now)
        watched.settle()
        watched.connect()
        watched.append(3)
    watched.read_all()
    watched.settle()
    watched.loop.close(watched.now)
    watched.settle()
    reached, events = 0, 0
    for row in watched.rows:
        assert row["cursorOffsetBefore"] == reached
        reached, events = row["cursorOffsetAfter"], events + row["eventsIngested"]
    assert reached == len(watched.log.lines)
    assert events == len(watched.log.lines) - 1


def test_step_that_judges_as_before_moves_state_and_cursor_alone() -> None:
    watched = settled()
    watched.append(1)
    watched.read_all()
    step = watched.commit()
    assert (step.moved, step.judged, step.whole, step.fresh) == (True, False, False, False)
    assert watched.written == ["state.json", "cursor.json"]


def test_documents_that_fell_behind_are_written_after_a_while() -> None:
    watched = settled()
    watched.append(1)
    watched.read_all()
    watched.settle()
    watched.loop.tick(watched.now)
    assert watched.loop.due_at() is None
    watched.now += FRESH_SECONDS
    watched.loop.tick(watched.now)
    step = watched.commit()
    assert (step.fresh, step.judged, step.whole) == (True, False, False)
    assert {"state.json", "health.json", "session.json", "cursor.json"} <= set(watched.written)
    watched.loop.tick(watched.now + FRESH_SECONDS)
    assert watched.loop.due_at() is None


def test_another_judgement_is_written_at_once_and_then_told_by_a_pass() -> None:
    watched = settled()
    watched.append(1)
    watched.take(watched.log.batch(4, 4), watched.bookmark(status="failed"))
    step = watched.commit()
    assert (step.judged, step.whole) == (True, False)
    assert {"state.json", "health.json", "cursor.json"} <= set(watched.written)
    told = watched.commit()
    assert (told.judged, told.whole) == (False, True)
    assert watched.rows[-1]["eventsIngested"] == 1
    assert watched.loop.due_at() is None


def test_telemetry_that_cannot_be_written_shows_in_health_until_it_can() -> None:
    watched = settled()
    watched.append(1)
    watched.read_all()
    watched.loop.written(watched.begin(), telemetry_writable=False)
    assert codes(watched.commit()) == ["telemetry_unwritable"]
    assert codes(watched.settle()) == []


# --- the log changes ------------------------------------------------------------------------------------


def replace(watched: Watched, log: FakeLog, reason: str) -> None:
    requested = watched.loop.intake.place.line
    watched.log = log
    watched.take(log.reset(reason, requested))


def test_shorter_replacement_is_no_drift() -> None:
    watched = settled(9)
    replace(watched, FakeLog(2, first="another"), "replaced")
    watched.read_all()
    step = watched.settle()
    assert [violations(step) for step in watched.steps] == [[]] * len(watched.steps)
    assert get(step.outcome.state, "divergence", "any") is False
    assert watched.loop.counts.resets == 1


@pytest.mark.parametrize(
    ("reason", "violation"),
    [("truncated", "event_sequence_regression"), ("rewritten", "log_rewritten")],
)
def test_regression_is_drift_once(reason: str, violation: str) -> None:
    watched = settled(9)
    steps = len(watched.steps)
    replace(watched, FakeLog(4), reason)
    first = watched.commit()
    watched.read_all()
    watched.settle()
    assert violation in violations(first)
    assert all(not violations(step) for step in watched.steps[steps + 1 :])
    told = [row["category"] for step in watched.steps for row in step.outcome.escalations]
    assert told.count("ordering_drift_detected") == 1
    assert watched.loop.known.cursor.memory == Memory(4, 4)


def test_log_that_went_back_and_rests_is_degraded_for_a_while_and_then_no_more() -> None:
    watched = settled(9)
    replace(watched, FakeLog(4), "truncated")
    watched.read_all()
    assert get(watched.settle().outcome.state, "divergence", "flags", "cursorRegression") is True
    watched.now += REGRESSED_SECONDS - 1
    watched.loop.tick(watched.now)
    assert "divergence_detected" in codes(watched.settle()) or watched.loop.due_at() is None
    watched.now += 2
    assert watched.now >= watched.loop.wake_at
    watched.loop.tick(watched.now)
    step = watched.settle()
    assert get(step.outcome.state, "divergence", "any") is False
    assert "divergence_detected" not in codes(step)


@pytest.mark.parametrize("is_written", [True, False])
def test_regression_is_not_lost_when_the_log_is_replaced_before_it_is_told(is_written: bool) -> None:
    watched = settled(9)
    replace(watched, FakeLog(4), "truncated")
    if not is_written:
        watched.begin()
        watched.loop.failed(NO_SPACE, watched.now)
    replace(watched, FakeLog(2, first="another"), "replaced")
    watched.read_all()
    step = watched.commit()
    assert violations(step) == ["event_sequence_regression"]
    assert get(step.outcome.sequence, "log", "earlier") == ["log_truncated"]
    assert watched.loop.known.cursor.memory == Memory(2, 2)
    watched.connect()
    assert not violations(watched.settle())


def test_state_does_not_keep_the_last_event_of_a_log_that_is_gone() -> None:
    watched = settled(3)
    replace(watched, FakeLog(0), "replaced")
    watched.commit()
    assert get(watched.loop.known.state, "evidence", "lastEventEnvelope") is None
    watched.read_all()
    known = watched.settle().outcome.state
    assert get(known, "evidence", "lastEventEnvelope") is None


def test_lines_that_were_passed_are_on_record_though_their_log_is_gone() -> None:
    watched = Watched(FakeLog(3, blank=[2]))
    watched.take(watched.log.invalid(2), watched.log.batch(1, 3))
    replace(watched, FakeLog(2, first="another"), "replaced")
    assert [row["line"] for row in watched.commit().outcome.quarantine_rows] == [2]


def test_row_after_a_failed_step_begins_where_the_new_log_does() -> None:
    watched = settled(9)
    watched.append(1)
    watched.read_all()
    watched.begin()
    replace(watched, FakeLog(2, first="another"), "replaced")
    watched.loop.failed(NO_SPACE, watched.now)
    watched.read_all()
    row = watched.commit().outcome.reconcile_row
    assert (row["cursorOffsetBefore"], row["cursorOffsetAfter"], row["eventsIngested"]) == (0, 2, 2)


def known_ahead(cursor: Cursor) -> Known:
    """Files that a killed manager left: documents of line 9, and an older cursor."""
    return settled(9).loop.known._replace(cursor=cursor, reconcile_rows=[], control_rows=[])


def test_documents_newer_than_the_cursor_are_no_drift() -> None:
    log = FakeLog(9)
    at = log.position(5)
    place = Place(5, at.digest, at.first_line_digest)
    watched = Watched(log, known_ahead(Cursor(5, place, Memory(5, 5))))
    watched.read_all()
    watched.settle()
    assert all(not violations(step) for step in watched.steps)


def test_documents_newer_than_a_cursor_that_had_met_no_event_are_no_drift() -> None:
    log = FakeLog(9, blank=[1, 2])
    at = log.position(2)
    known = known_ahead(Cursor(0, Place(2, at.digest, at.first_line_digest), Memory(2, None)))
    watched = Watched(log, known)
    assert get(watched.loop.known.state, "evidence", "lastEventEnvelope") is None
    watched.read_all()
    watched.settle()
    assert all(not violations(step) for step in watched.steps)


@pytest.mark.parametrize("count", [9, 4])
def test_lost_cursor_is_no_drift_whatever_the_log_is_by_then(count: int) -> None:
    watched = Watched(FakeLog(count, first="another"), known_ahead(Cursor()))
    watched.read_all()
    step = watched.settle()
    assert all(not violations(step) for step in watched.steps)
    assert get(step.outcome.state, "divergence", "any") is False


def test_damaged_documents_beside_a_lost_cursor_are_read_past() -> None:
    known = EMPTY._replace(state={"cursor": 5, "evidence": []}, sequence={"snapshot": [], "events": "x"})
    watched = Watched(FakeLog(3), known)
    watched.read_all()
    assert not violations(watched.settle())


def test_snapshot_ahead_of_the_events_does_not_make_a_replaced_log_go_back() -> None:
    watched = Watched(FakeLog(9))
    watched.loop.offer(watched.log.snapshot(), watched.now)
    watched.commit()
    watched.log = FakeLog(2, first="another")  # before anything was read of it
    watched.read_all()
    step = watched.settle()
    assert all(not violations(step) for step in watched.steps)
    assert get(step.outcome.state, "divergence", "any") is False


def test_gap_is_counted_noted_and_answered_from_the_last_line() -> None:
    watched = Watched(FakeLog(9))
    watched.take(watched.log.batch(1, 3))
    with pytest.raises(OpsError, match="expected line 4"):
        watched.take(watched.log.batch(7, 9))
    assert watched.loop.counts.gaps == 1
    assert watched.loop.intake.resume() == watched.log.position(3)
    assert "event_sequence_gap" in [record.reason for record in watched.commit().records]


def test_replays_between_two_steps_are_one_record() -> None:
    watched = settled(3)
    watched.take(watched.log.batch(1, 3), watched.log.batch(2, 3))
    (record,) = watched.commit().records
    assert (record.reason, record.detail["events"]) == ("events_replayed", 5)
    assert watched.loop.counts.replayed == 5


# --- time alone -----------------------------------------------------------------------------------------


def test_runtime_that_falls_silent_is_stale_by_the_managers_clock_alone() -> None:
    watched = settled()
    watched.loop.beat(heartbeat(watched.now), watched.now)
    watched.settle()
    heard = watched.now
    stale: list[float] = []
    while watched.now < heard + DEFAULTS.critical_heartbeat_lag + 5:
        watched.now += 1
        watched.loop.tick(watched.now)
        if watched.loop.due_at() is not None and "runtime_heartbeat_stale" in codes(watched.settle()):
            stale.append(watched.now - heard)
    assert stale
    assert DEFAULTS.degraded_heartbeat_lag <= stale[0] <= DEFAULTS.degraded_heartbeat_lag + 3
    assert watched.loop.known.health["status"] == "critical"


def test_silence_of_the_agent_is_told_without_any_message() -> None:
    watched = settled()
    watched.loop.beat(heartbeat(watched.now, interval=2), watched.now)
    watched.settle()
    watched.now += 6
    watched.loop.tick(watched.now)
    step = watched.commit()
    assert "agent_silent" in codes(step)
    assert [record.reason for record in step.records] == ["agent_silent"]


def test_dead_process_of_a_running_loop_is_critical_after_its_grace() -> None:
    watched = settled()
    watched.loop.beat(heartbeat(watched.now), watched.now)
    watched.loop.beat(heartbeat(watched.now, alive=False), watched.now)
    died = watched.now
    assert "runtime_process_dead" not in codes(watched.settle())
    watched.now = died + DEAD_GRACE_SECONDS
    watched.loop.tick(watched.now)
    step = watched.commit()
    assert "runtime_process_dead" in codes(step)
    assert step.outcome.health["status"] == "critical"


def test_process_of_a_loop_that_has_ended_may_be_dead() -> None:
    watched = Watched(FakeLog(3))
    watched.take(watched.log.batch(1, 3), watched.bookmark(status="completed"))
    watched.settle()
    watched.loop.beat(heartbeat(watched.now, alive=False), watched.now)
    watched.now += DEAD_GRACE_SECONDS + 1
    watched.loop.tick(watched.now)
    assert "runtime_process_dead" not in codes(watched.settle())


def test_clock_of_the_manager_that_is_set_makes_nobody_silent() -> None:
    watched = settled()
    watched.loop.beat(heartbeat(watched.now), watched.now)
    watched.settle()
    for seconds in (3600, -7200):
        watched.now += seconds + 1
        watched.loop.shift(seconds)
        watched.loop.tick(watched.now)
        watched.loop.beat(heartbeat(watched.now), watched.now)
        step = watched.settle()
        assert codes(step) == []
        assert watched.loop.due_at() is None


def test_clock_that_is_set_back_does_not_hold_up_what_is_due() -> None:
    watched = settled()
    watched.append(1)
    watched.read_all()
    watched.now -= 3600
    watched.loop.shift(-3600)
    due = watched.loop.due_at()
    assert due is not None
    assert due <= watched.now + COMMIT_SECONDS


# --- connections ----------------------------------------------------------------------------------------


def test_lost_connection_is_told_and_judged_once_then_what_came_counts_first() -> None:
    watched = settled()
    watched.append(1)
    watched.take(watched.log.batch(4, 4))
    watched.loop.down(OpsError("stream_broken", "cut"), watched.now + 1, watched.now)
    first = watched.commit()
    assert first.outcome.failure_code == ""
    assert watched.loop.known.cursor.place.line == 4
    second = watched.commit()
    assert second.outcome.failure_code == "service_request_failed"
    assert second.outcome.cursor is None
    assert watched.loop.due_at() is None
    reasons = [record.reason for step in (first, second) for record in step.records]
    assert reasons == ["connection_lost"]


def test_further_failures_of_the_same_outage_are_no_further_records() -> None:
    watched = settled()
    for _ in range(3):
        watched.loop.down(OpsError("stream_broken", "no"), watched.now + 1, watched.now)
        watched.settle()
        watched.loop.open("t", watched.now)
    records = [record.reason for step in watched.steps for record in step.records]
    assert records.count("connection_lost") == 1
    assert "transport_unreachable" in codes(watched.steps[-1])
    watched.connect()
    step = watched.settle()
    assert codes(step) == []
    assert "connection_restored" in [record.reason for step in watched.steps for record in step.records]


def test_session_that_ends_says_so() -> None:
    watched = settled()
    watched.loop.close(watched.now)
    step = watched.commit()
    assert [record.reason for record in step.records] == ["session_closed"]
    assert session_document(watched.loop, watched.now)["connection"]["reasonCode"] == "session_closed"


def test_frozen_control_is_critical_until_it_is_free_again() -> None:
    watched = settled()
    watched.loop.freeze("sprite_cloned", Record("sprite_cloned", {"active": True}), watched.now)
    step = watched.commit()
    assert (codes(step), step.outcome.health["status"]) == (["sprite_cloned"], "critical")
    assert session_document(watched.loop, watched.now)["controlFrozen"] == "sprite_cloned"
    watched.loop.freeze("", Record("sprite_cloned", {"active": False}), watched.now)
    assert codes(watched.settle()) == []


# --- how it is shown ------------------------------------------------------------------------------------


def test_view_and_document_tell_three_livenesses() -> None:
    watched = settled()
    watched.loop.beat(heartbeat(watched.now), watched.now)
    watched.settle()
    view = loop_view(watched.loop, target="grpc://a:1", sprite_id="", now=watched.now)
    assert (view.applied_line, view.committed_line, view.head_line) == (3, 3, 3)
    assert (view.state, view.run_id, view.sprite_id) == ("running", "run-1", "grpc://a:1")
    assert (view.agent.boot_id, view.runtime.pid) == ("boot-1", 99)
    document = session_document(watched.loop, watched.now)
    states = [document[name]["state"] for name in ("connection", "agent", "runtime")]
    assert states == ["up", "alive", "alive"]
    assert document["log"] == {"appliedLine": 3, "headLine": 3}


def test_texts_of_a_sprite_are_cut_in_its_view_so_that_a_hundred_views_fit_a_message() -> None:
    watched = Watched(FakeLog(3, first="\U0001f600" * 250_000))
    watched.read_all()
    beat = heartbeat(watched.now)
    for part, name in (
        (beat.runtime, "stage"),
        (beat.agent, "version"),
        (beat, "boot_id"),
        (beat, "sprite_id"),
    ):
        setattr(part, name, "x" * 1_000_000)
    watched.loop.beat(beat, watched.now)
    watched.take(watched.bookmark(status="s" * 1_000_000))
    watched.settle()
    view = loop_view(watched.loop, target="grpc://a:1", sprite_id="", now=watched.now)
    assert view.agent.version.endswith("x…")
    assert 100 * view.ByteSize() < 4 * 1024 * 1024


def test_rows_of_a_session_have_reasons_that_are_in_the_table() -> None:
    watched = settled()
    rows = [record_row(record, SETTINGS, watched.now) for step in watched.steps for record in step.records]
    assert [row["reasonCode"] for row in rows] == ["session_opened"]
    assert all(row["reasonCode"] in REASONS for row in rows)


def test_view_of_a_loop_whose_documents_were_tampered_with_is_made_all_the_same() -> None:
    odd = EMPTY._replace(health={"reasonCodes": 5}, state={"run": {"runId": "\ud800-run"}})
    view = loop_view(LiveLoop(SETTINGS, odd, NOW), target="t", sprite_id="", now=NOW)
    assert (list(view.reason_codes), view.run_id) == ([], "\N{REPLACEMENT CHARACTER}-run")
