"""Three livenesses of a loop (issue: the manager watches a whole fleet, live)."""

from typing import Any

import pytest

from manager.core.liveness import (
    DEAD_GRACE_SECONDS,
    PROBE_SECONDS,
    SILENT_INTERVALS,
    Agent,
    Connection,
    Liveness,
    Runtime,
)
from tests.fakes.streams import LOOP, heartbeat

NOW = 1_700_000_000.0


def liveness(*beats: tuple[float, Any]) -> Liveness:
    found = Liveness(LOOP, NOW)
    for now, beat in beats:
        found.beat(beat, now)
    return found


def reasons(found: Liveness, now: float, lifecycle: str = "running") -> list[str]:
    return [condition.code for condition in found.conditions(lifecycle, now)]


# --- the agent ------------------------------------------------------------------------------------------


def test_agent_never_heard_is_unknown_and_never_silent() -> None:
    found = liveness()
    assert (found.agent, found.runtime, found.silent_at) == (
        Agent.STATE_UNKNOWN,
        Runtime.STATE_UNKNOWN,
        None,
    )
    assert found.tick(NOW + 3600) == []


def test_three_missing_heartbeats_make_an_agent_silent_by_our_own_clock() -> None:
    found = liveness((NOW, heartbeat(NOW, interval=5)))
    late = NOW + SILENT_INTERVALS * 5
    assert found.tick(late - 0.1) == []
    (record,) = found.tick(late)
    assert (record.reason, record.detail["active"]) == ("agent_silent", True)
    assert (found.agent, found.runtime) == (Agent.STATE_SILENT, Runtime.STATE_UNKNOWN)
    assert found.tick(late + 1) == []
    assert reasons(found, late) == ["agent_silent"]


def test_silence_ends_with_the_next_heartbeat() -> None:
    found = liveness((NOW, heartbeat(NOW)))
    found.tick(NOW + 60)
    (record,) = found.beat(heartbeat(NOW + 61), NOW + 61)
    assert (record.reason, record.detail) == ("agent_silent", {"active": False})
    assert reasons(found, NOW + 61) == []


def test_draining_agent_says_so() -> None:
    assert liveness((NOW, heartbeat(NOW, draining=True))).agent == Agent.STATE_DRAINING


def test_another_process_is_a_restart() -> None:
    found = liveness((NOW, heartbeat(NOW)))
    (record,) = found.beat(heartbeat(NOW + 5, boot_id="boot-2", pid=8, started_at=NOW + 4), NOW + 5)
    assert record.reason == "agent_restarted"
    assert record.detail["previousBootId"] == "boot-1"
    assert found.beat(heartbeat(NOW + 10, boot_id="boot-2", pid=8, started_at=NOW + 4), NOW + 10) == []


def test_same_process_with_a_new_boot_id_was_resumed() -> None:
    found = liveness((NOW, heartbeat(NOW)))
    beat = heartbeat(NOW + 40, boot_id="boot-2", resumed_at=NOW + 39, suspended_seconds=30.04)
    (record,) = found.beat(beat, NOW + 40)
    assert record.reason == "sprite_resumed"
    assert record.detail == {"bootId": "boot-2", "previousBootId": "boot-1", "suspendedSeconds": 30.0}


def test_first_heartbeat_of_an_agent_resumed_long_ago_tells_nothing() -> None:
    found = Liveness(LOOP, NOW)
    assert found.beat(heartbeat(NOW, resumed_at=NOW - 999, suspended_seconds=30), NOW) == []


# --- the runtime ----------------------------------------------------------------------------------------


def test_dead_runtime_counts_only_while_running_and_after_a_grace() -> None:
    found = liveness((NOW, heartbeat(NOW, alive=True)), (NOW + 5, heartbeat(NOW + 5, alive=False)))
    assert found.runtime == Runtime.STATE_DEAD
    dead_at = NOW + 5 + DEAD_GRACE_SECONDS
    assert reasons(found, dead_at - 0.1) == []
    assert reasons(found, dead_at) == ["runtime_process_dead"]
    assert reasons(found, dead_at, "awaiting_approval") == []
    assert reasons(found, dead_at, "completed") == []


def test_grace_begins_with_the_first_word_of_the_death() -> None:
    beats = [(NOW + after, heartbeat(NOW + after, alive=False)) for after in (0, 5, 10)]
    assert liveness(*beats).dead_at == NOW + DEAD_GRACE_SECONDS


def test_runtime_that_lives_again_is_no_longer_dead() -> None:
    found = liveness((NOW, heartbeat(NOW, alive=False)), (NOW + 5, heartbeat(NOW + 5, alive=True)))
    assert found.dead_at is None
    assert reasons(found, NOW + 60) == []


def test_runtime_of_another_loop_is_none_of_this_one() -> None:
    assert liveness((NOW, heartbeat(NOW, alive=True, loop="beta"))).runtime == Runtime.STATE_IDLE
    assert liveness((NOW, heartbeat(NOW, alive=None))).runtime == Runtime.STATE_IDLE


def test_freshness_is_told_by_the_heartbeats_of_a_runtime_that_lives() -> None:
    found = liveness((NOW, heartbeat(NOW, alive=True)))
    document = found.runtime_document()
    assert document["timestamp"].startswith("2023-11-14T22:13:20")
    assert (document["boot_id"], document["process"]["pid"]) == ("boot-1", 99)
    found.beat(heartbeat(NOW + 5, alive=False, boot_id="boot-2"), NOW + 5)
    assert found.runtime_document() == document
    assert liveness((NOW, heartbeat(NOW, alive=False))).runtime_document() is None


# --- clocks ---------------------------------------------------------------------------------------------


def test_clock_that_is_ahead_shows_in_a_single_heartbeat() -> None:
    found = Liveness(LOOP, NOW)
    (record,) = found.beat(heartbeat(NOW + 60), NOW)
    assert (record.reason, record.detail) == ("clock_skew", {"active": True, "offsetSeconds": 60.0})
    assert reasons(found, NOW) == ["clock_skew"]


def test_delayed_heartbeats_are_not_taken_for_a_clock_that_is_behind() -> None:
    found = Liveness(LOOP, NOW)
    assert found.beat(heartbeat(NOW - 20), NOW) == []
    assert found.wants_probe(NOW)
    found.probed(NOW)
    assert found.round_trip(NOW, NOW + 0.1, NOW + 20) == []  # the way is slow, the clock is right
    assert reasons(found, NOW + 20) == []
    assert found.beat(heartbeat(NOW + 5), NOW + 25) == []
    assert not found.wants_probe(NOW + 25)


def test_clock_that_is_behind_is_proved_by_a_round_trip() -> None:
    found = liveness((NOW, heartbeat(NOW - 60)))
    (record,) = found.round_trip(NOW, NOW - 60, NOW + 0.2)
    assert record.detail == {"active": True, "offsetSeconds": -60.0}
    assert reasons(found, NOW) == ["clock_skew"]


@pytest.mark.parametrize("offset", [60.0, -60.0])
def test_clock_that_was_set_right_is_no_skew_any_more(offset: float) -> None:
    found = Liveness(LOOP, NOW)
    found.round_trip(NOW, NOW + offset, NOW)
    (record,) = found.beat(heartbeat(NOW + 5), NOW + 5)
    assert record.detail == {"active": False, "offsetSeconds": 0.0}
    assert reasons(found, NOW + 5) == []


def test_agent_whose_clock_was_set_back_tells_the_next_pause_all_the_same() -> None:
    found = liveness((NOW, heartbeat(NOW)))
    found.beat(heartbeat(NOW + 5, boot_id="boot-2", resumed_at=NOW + 3605, suspended_seconds=3600), NOW + 5)
    beat = heartbeat(NOW + 50, boot_id="boot-3", resumed_at=NOW + 49, suspended_seconds=30)
    assert [record.reason for record in found.beat(beat, NOW + 50)] == ["sprite_resumed"]


def test_clock_that_is_no_longer_skewed_is_as_far_ahead_as_is_proven() -> None:
    found = liveness((NOW, heartbeat(NOW + 7)), (NOW + 5, heartbeat(NOW + 7)))
    assert (found.is_skewed, found.clock_offset) == (False, 2.0)


def test_proof_is_asked_for_now_and_then_not_with_each_heartbeat() -> None:
    found = liveness((NOW, heartbeat(NOW - 20)))
    found.probed(NOW)
    found.beat(heartbeat(NOW - 15), NOW + 5)
    assert not found.wants_probe(NOW + 5)
    later = NOW + PROBE_SECONDS
    found.beat(heartbeat(later - 20), later)
    assert found.wants_probe(later)


def test_clock_of_the_manager_that_is_set_ages_nothing() -> None:
    found = liveness((NOW, heartbeat(NOW, alive=True)), (NOW + 5, heartbeat(NOW + 5, alive=False)))
    found.up(NOW)
    found.shift(3600)
    assert found.tick(NOW + 3606) == []
    assert (found.connection_since, found.heartbeat_at) == (NOW + 3600, NOW + 3605)
    assert found.dead_at == NOW + 3605 + DEAD_GRACE_SECONDS
    # That the agent's clock now differs is for a round trip to say, at once.
    found.beat(heartbeat(NOW + 10), NOW + 3610)
    assert found.wants_probe(NOW + 3610)


# --- the connection -------------------------------------------------------------------------------------


def test_tries_between_failures_do_not_make_a_connection_younger() -> None:
    found = liveness()
    found.down("connection_refused", NOW + 1, NOW)
    found.connecting(NOW + 1)
    found.down("connection_refused", NOW + 4, NOW + 2)
    assert (found.connection_since, found.failures, found.retry_at) == (NOW, 2, NOW + 4)
    assert found.up(NOW + 5) == 2
    assert (found.connection, found.connection_since) == (Connection.STATE_UP, NOW + 5)
    assert (found.failures, found.retry_at, found.connection_reason) == (0, None, "")
