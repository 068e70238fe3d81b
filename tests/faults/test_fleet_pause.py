"""An agent that is stopped for half a minute while it is watched."""

import signal
import time

import pytest

from tests.faults.conftest import Way
from tests.harness.live_fleet import ALIVE, DOWN, SILENT, UP, recent

STOPPED_SECONDS = 30.0


@pytest.mark.timeout(120)
def test_agent_stopped_for_half_a_minute_is_silent_then_lost_then_resumed(way: Way) -> None:
    way.loop.append(recent(1, 40))
    manager = way.watch()
    before = manager.wait_for("alpha", lambda view: view.agent.state == ALIVE)
    stopped = time.monotonic()
    way.agent.signal(signal.SIGSTOP)
    try:
        way.loop.append(recent(41, 60))
        # Three heartbeats are missing; that the runtime is well, nobody says any more.
        silent = manager.wait_for("alpha", lambda view: view.agent.state == SILENT)
        assert 10 < time.monotonic() - stopped < 18
        assert silent.runtime.state == silent.runtime.STATE_UNKNOWN
        told = manager.wait_for("alpha", lambda view: "agent_silent" in view.reason_codes)
        assert told.health_status != "healthy"
        lost = manager.wait_for("alpha", lambda view: view.connection.state != UP)
        assert time.monotonic() - stopped < 20
        assert lost.connection.state == DOWN
        assert lost.applied_line == 40
        lost = manager.wait_for("alpha", lambda view: "transport_unreachable" in view.reason_codes)
        assert lost.agent.state == SILENT
        time.sleep(max(0.0, stopped + STOPPED_SECONDS - time.monotonic()))
    finally:
        way.agent.signal(signal.SIGCONT)
    after = manager.wait_for(
        "alpha", lambda view: view.agent.state == ALIVE and view.iteration == "60", seconds=40
    )
    assert after.connection.state == UP
    assert after.agent.boot_id != before.agent.boot_id
    assert after.control_frozen == ""
    well = manager.wait_for("alpha", lambda view: view.health_status == "healthy")
    assert (well.counts.events, well.counts.replayed, well.counts.resets) == (60, 0, 0)
    assert manager.stop() == 0
    rows = way.fleet.rows("alpha", "session_telemetry")
    records = [row["reasonCode"] for row in rows]
    assert records[:3] == ["session_opened", "agent_silent", "connection_lost"]
    assert records[-1] == "session_closed"
    assert sorted(records[3:-1]) == ["agent_silent", "connection_restored", "sprite_resumed"]
    (resumed,) = (row for row in rows if row["reasonCode"] == "sprite_resumed")
    assert resumed["previousBootId"] == before.agent.boot_id
    assert resumed["bootId"] == after.agent.boot_id
    assert STOPPED_SECONDS - 2 < resumed["suspendedSeconds"] < STOPPED_SECONDS + 5
    assert [row["active"] for row in rows if row["reasonCode"] == "agent_silent"] == [True, False]
    assert way.fleet.ordering_faults("alpha") == []
    assert way.fleet.place("alpha") == (60, 60)
