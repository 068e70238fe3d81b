"""A disk that is full under the manager's files of a loop, and has room again: a file system of 1 MB."""

from collections import Counter
from pathlib import Path

from tests.faults.conftest import Way
from tests.harness.disk import SmallDisk
from tests.harness.live_fleet import ALIVE, UP, Fleet, recent

MEGABYTE = 1 << 20


def directory_of(fleet: Fleet, loop_id: str, *below: str) -> Path:
    """A directory of a loop's manager files, made now."""
    found = fleet.path(loop_id, "state").parent.joinpath(*below)
    found.mkdir(parents=True)
    return found


def test_full_disk_under_telemetry_is_told_and_holds_up_nothing(way: Way) -> None:
    way.loop.append(recent(1, 40))
    with SmallDisk(directory_of(way.fleet, "alpha", "telemetry"), MEGABYTE) as disk:
        manager = way.watch()
        manager.wait_for("alpha", lambda view: view.agent.state == ALIVE and view.health_status == "healthy")
        disk.fill()
        way.proxy.cut()
        told = manager.wait_for("alpha", lambda view: "telemetry_unwritable" in view.reason_codes)
        assert told.health_status == "degraded"
        last = 40
        for _ in range(3):
            way.loop.append(recent(last + 1, last + 10))
            last += 10
            way.fleet.wait_until_read("alpha", last)
            # As long as nothing can be written there, nobody takes it back.
            assert way.fleet.document("alpha", "health")["reasonCodes"] == ["telemetry_unwritable"]
        disk.free()
        way.loop.append(recent(last + 1, last + 10))
        well = manager.wait_for(
            "alpha", lambda view: view.iteration == str(last + 10) and not view.reason_codes
        )
        assert (well.counts.events, well.counts.replayed, well.counts.commit_failures) == (last + 10, 0, 0)
        assert manager.stop() == 0
        assert way.fleet.records("alpha")[-1] == "session_closed"
        assert way.fleet.place("alpha") == (last + 10, last + 10)
        assert way.fleet.ordering_faults("alpha") == []
        categories = Counter(row["category"] for row in way.fleet.rows("alpha", "escalations"))
        assert categories == {"health_degraded": 1}
        assert "Traceback" not in manager.said()


def test_full_disk_under_all_files_of_a_loop_loses_and_repeats_nothing(way: Way) -> None:
    way.loop.append(recent(1, 40))
    with SmallDisk(directory_of(way.fleet, "alpha"), MEGABYTE) as disk:
        manager = way.watch()
        manager.wait_for("alpha", lambda view: view.agent.state == ALIVE and view.health_status == "healthy")
        before = manager.rss_bytes
        # A document that was replaced before has a spare, and so needs no more room.
        for spare in disk.path.glob(".*.spare"):
            spare.unlink()
        disk.fill()
        way.loop.append(recent(41, 20_000))
        told = manager.wait_for(
            "alpha", lambda view: view.counts.commit_failures > 1 and view.iteration == "20000"
        )
        assert told.counts.commits
        assert told.committed_line < told.applied_line == 20_000
        assert "state_unwritable" in told.reason_codes
        assert told.health_status != "healthy"
        # What is to be told of it waits as well.
        way.proxy.cut()
        manager.wait_for("alpha", lambda view: view.counts.disconnects == 1 and view.connection.state == UP)
        # Each line that is no event is kept until it can be put on record, so reading stops at so many.
        way.loop.append(
            b"".join(b'{"torn": %d\n' % number for number in range(1500)) + recent(20_001, 20_010)
        )
        full = manager.wait_for("alpha", lambda view: view.counts.quarantined >= 1024)
        failures = full.counts.commit_failures
        held = manager.wait_for("alpha", lambda view: view.counts.commit_failures > failures)
        assert held.applied_line < 21_500
        assert way.fleet.place("alpha").line == told.committed_line
        assert manager.rss_bytes - before < 16 * MEGABYTE
        disk.free()
        way.fleet.wait_until_read("alpha", 21_510)
        well = manager.wait_for("alpha", lambda view: view.health_status == "healthy")
        assert well.committed_line == 21_510
        assert (well.counts.events, well.counts.replayed, well.counts.quarantined) == (20_010, 0, 1500)
        assert manager.stop() == 0
        rows = way.fleet.rows("alpha", "quarantine")
        assert [row["line"] for row in rows] == list(range(20_001, 21_501))
        records = way.fleet.records("alpha")
        assert records == ["session_opened", "connection_lost", "connection_restored", "session_closed"]
        assert way.fleet.ordering_faults("alpha") == []
        assert way.fleet.place("alpha") == (21_510, 21_510)
        ingested = sum(row["eventsIngested"] for row in way.fleet.rows("alpha", "reconcile_telemetry"))
        assert ingested == 20_010
        assert not list(disk.path.rglob("*.tmp"))
        assert "Traceback" not in manager.said()
