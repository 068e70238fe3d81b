"""The runtime's traces on their way into a manager that watches: each line once, whatever happens."""

import json
import os
import signal
import time
from pathlib import Path

from spritemesh import rotation
from tests.faults.conftest import Way
from tests.harness.agents import StartAgent
from tests.harness.live_fleet import UP, Fleet, Manager, recent
from tests.harness.spans import append, span_id, spans
from tests.harness.waiting import wait_for

# Heartbeats, which tell that there is something to read, come each 5 s.
SECONDS = 15.0


def stored(fleet: Fleet) -> list[str]:
    """Ids of the spans that are stored of the loop alpha, in their order, from all generations."""
    lines: list[bytes] = []
    with rotation.generations(str(fleet.path("alpha", "runtime_traces"))) as opened:
        for generation in reversed(opened):
            # What is being written, or was left half written, is no line.
            lines += Path(generation.name).read_bytes().split(b"\n")[:-1]
    return [json.loads(line)["trace_id"] for line in lines]


def wait_until_stored(fleet: Fleet, manager: Manager, last: int) -> None:
    """Until all spans up to a number are stored; they must be so once, and in order."""
    try:
        wait_for(lambda: len(stored(fleet)) >= last, seconds=SECONDS)
    except AssertionError as error:
        told = (len(stored(fleet)), fleet.rows("alpha", "session_telemetry"), manager.said())
        raise AssertionError(f"{last} spans are not stored in {SECONDS:g} s: {told}") from error
    assert stored(fleet) == [span_id(number) for number in range(1, last + 1)]


def test_each_line_is_stored_once_whoever_is_cut_or_killed_or_moves_aside(
    way: Way, start: StartAgent
) -> None:
    trace, fleet = way.loop.repo / "trace.jsonl", way.fleet
    append(trace, spans(1, 300))
    way.loop.append(recent(1, 10))
    manager = way.watch()
    wait_until_stored(fleet, manager, 300)

    append(trace, spans(301, 400))
    os.replace(trace, f"{trace}.1")
    append(trace, spans(401, 500))
    wait_until_stored(fleet, manager, 500)
    # Another history in the place of the first is all new.
    os.unlink(f"{trace}.1")
    fresh = trace.with_suffix(".new")
    fresh.write_bytes(spans(501, 600))
    fresh.replace(trace)
    wait_until_stored(fleet, manager, 600)

    append(trace, spans(601, 800))
    way.proxy.cut()
    append(trace, spans(801, 1000))
    wait_until_stored(fleet, manager, 1000)

    append(trace, spans(1001, 3000))
    wait_for(lambda: len(stored(fleet)) > 1000, seconds=SECONDS)
    manager.kill()
    count = len(stored(fleet))
    # What SIGKILL between the two writes leaves, at worst.
    append(fleet.path("alpha", "runtime_traces"), spans(count + 1, count + 10) + b'{"trace_id":"rsn_17')
    append(trace, spans(3001, 3100))
    manager = fleet.start()
    wait_until_stored(fleet, manager, 3100)

    append(trace, spans(3101, 5000))
    way.agent.signal(signal.SIGKILL)
    way.agent.wait()
    way.proxy.retarget(start().address)
    wait_until_stored(fleet, manager, 5000)

    assert manager.stop() == 0
    wait_until_stored(fleet, manager, 5000)
    assert "Traceback" not in manager.said()


def test_flood_that_cannot_be_written_holds_up_no_event_and_is_written_later(way: Way) -> None:
    trace, path = way.loop.repo / "trace.jsonl", way.fleet.path("alpha", "runtime_traces")
    append(trace, spans(1, 100))
    way.loop.append(recent(1, 10))
    manager = way.watch()
    wait_until_stored(way.fleet, manager, 100)
    before = manager.rss_bytes
    kept = path.with_suffix(".kept")
    path.rename(kept)
    path.mkdir()
    append(trace, spans(101, 15_000))
    failed = manager.wait_for("alpha", lambda view: view.counts.trace_failures > 0, seconds=SECONDS)
    assert failed.connection.state == UP
    way.loop.append(recent(11, 30))
    way.fleet.wait_until_read("alpha", 30)
    well = manager.wait_for("alpha", lambda view: view.health_status == "healthy")
    assert (well.counts.trace_lines, well.counts.disconnects) == (100, 0)
    path.rmdir()
    kept.rename(path)
    began = time.monotonic()
    way.loop.append(recent(31, 40))
    way.fleet.wait_until_read("alpha", 40)
    assert time.monotonic() - began < 5
    wait_until_stored(way.fleet, manager, 15_000)
    manager.wait_for("alpha", lambda view: view.counts.trace_lines == 15_000)
    assert manager.rss_bytes - before < 20_000_000
    assert manager.stop() == 0
    rows = way.fleet.rows("alpha", "session_telemetry")
    told = [row for row in rows if row["reasonCode"] == "traces_unavailable"]
    assert [(row["active"], row.get("cause")) for row in told] == [
        (True, "telemetry_unwritable"),
        (False, None),
    ]
