"""Connections between a manager and an agent that are cut, half-open, slow or far."""

import time
from collections import Counter

import pytest

from tests.faults.conftest import Way
from tests.harness.live_fleet import ALIVE, UP, recent


def test_connection_that_is_cut_is_opened_anew_and_goes_on_with_the_next_line(way: Way) -> None:
    way.loop.append(recent(1, 40))
    manager = way.watch()
    manager.wait_for("alpha", lambda view: view.agent.state == ALIVE)
    way.proxy.refuse()
    assert way.proxy.cut() == 1
    lost = manager.wait_for("alpha", lambda view: view.connection.state != UP and view.connection.failures)
    assert lost.connection.reason in {"agent_unreachable", "stream_broken"}
    assert lost.applied_line == 40
    way.loop.append(recent(41, 60))
    way.proxy.refuse(False)
    after = manager.wait_for("alpha", lambda view: view.committed_line == 60)
    assert after.connection.state == UP
    assert after.connection.reason == ""
    assert (after.counts.events, after.counts.replayed, after.counts.disconnects) == (60, 0, 1)
    assert manager.stop() == 0
    records = Counter(way.fleet.records("alpha"))
    assert records == Counter(["session_opened", "connection_lost", "connection_restored", "session_closed"])
    assert way.fleet.ordering_faults("alpha") == []
    assert way.fleet.place("alpha") == (60, 60)


def test_connection_cut_many_times_in_a_replay_loses_and_repeats_no_line(way: Way) -> None:
    lines = 20_000
    data = recent(1, lines)
    way.loop.append(data)
    way.proxy.slow(len(data) / 2)
    manager = way.fleet.start()
    for part in range(1, 6):
        manager.wait_for_line("alpha", part * lines // 10)
        way.proxy.cut(reset=part % 2 == 0)
    way.proxy.slow(0)
    way.fleet.wait_until_read("alpha", lines)
    after = manager.view("alpha")
    assert (after.counts.events, after.counts.gaps, after.counts.resets) == (lines, 0, 0)
    assert after.counts.disconnects == 5
    assert manager.stop() == 0
    assert way.fleet.ordering_faults("alpha") == []


def test_half_open_connection_is_found_within_20_seconds_and_restored(way: Way) -> None:
    way.loop.append(recent(1, 40))
    manager = way.watch()
    manager.wait_for("alpha", lambda view: view.agent.state == ALIVE)
    since = time.monotonic()
    # Nothing arrives any more, and nothing ends.
    way.proxy.hold()
    way.loop.append(recent(41, 60))
    lost = manager.wait_for("alpha", lambda view: view.connection.state != UP, seconds=30)
    assert time.monotonic() - since < 20
    assert lost.applied_line == 40
    way.proxy.release()
    after = manager.wait_for("alpha", lambda view: view.iteration == "60")
    assert after.connection.state == UP
    assert (after.counts.events, after.counts.replayed, after.counts.disconnects) == (60, 0, 1)
    assert manager.stop() == 0
    records = Counter(way.fleet.records("alpha"))
    assert records["connection_lost"] == records["connection_restored"] == 1
    assert way.fleet.ordering_faults("alpha") == []


@pytest.mark.timeout(120)
def test_slow_way_brings_every_line_and_says_how_far_it_is(way: Way) -> None:
    """The first connection asks for more than comes in time; the next one asks for little at a time."""
    lines = 40
    way.loop.append(recent(1, lines))
    way.proxy.slow(1000)
    manager = way.fleet.start()
    midway = manager.wait_for("alpha", lambda view: 0 < view.applied_line < lines, seconds=40)
    assert midway.connection.state == UP
    assert midway.head_line == lines
    after = manager.wait_for("alpha", lambda view: view.committed_line == lines, seconds=40)
    assert after.connection.state == UP
    assert (after.counts.events, after.counts.replayed, after.counts.resets) == (lines, 0, 0)
    assert after.reason_codes == []
    manager.kill()
    causes = [row["cause"] for row in way.fleet.rows("alpha", "session_telemetry") if "cause" in row]
    assert causes == ["deadline_exceeded"]
    assert way.fleet.ordering_faults("alpha") == []
    assert way.fleet.place("alpha") == (lines, lines)


def test_way_with_half_a_second_of_latency_works_without_talk_of_clocks(way: Way) -> None:
    way.loop.append(recent(1, 40))
    way.proxy.delay(0.5)
    manager = way.fleet.start()
    manager.wait_for("alpha", lambda view: view.applied_line == 40)
    way.loop.append(recent(41, 60))
    after = manager.wait_for("alpha", lambda view: view.iteration == "60" and view.agent.state == ALIVE)
    assert (after.connection.state, after.health_status) == (UP, "healthy")
    assert (after.counts.events, after.counts.replayed, after.counts.disconnects) == (60, 0, 0)
    assert abs(after.agent.clock_offset.ToNanoseconds()) < 1e9
    assert manager.stop() == 0
    assert way.fleet.records("alpha") == ["session_opened", "session_closed"]
