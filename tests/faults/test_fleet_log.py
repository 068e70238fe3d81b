"""Logs that are truncated, replaced, rotated, rewritten or torn while a manager watches them."""

import json
import os
import random
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.conftest import Way
from tests.harness.live_fleet import UP, Document, recent
from tests.harness.loops import LoopFiles


def rotate(loop: LoopFiles, data: bytes) -> None:
    """As logrotate does without copying: the old file gets another name, and a new one is begun."""
    loop.log.rename(loop.log.with_name("events.jsonl.1"))
    loop.append(data)


def drifts(way: Way) -> list[tuple[str, list[str]]]:
    """Each change of the ordering's status, with the violations that were found."""
    found: list[tuple[str, list[str]]] = [("ok", [])]
    for row in way.fleet.rows("alpha", "sequence_telemetry"):
        if row["status"] != found[-1][0]:
            found.append((row["status"], row["violations"]))
    return found[1:]


def escalations(way: Way, category: str) -> list[Document]:
    return [row for row in way.fleet.rows("alpha", "escalations") if row["category"] == category]


@pytest.mark.parametrize("way_of_change", ["replaced", "rotated"])
def test_another_log_in_mid_stream_is_read_from_its_start_and_is_no_drift(
    way: Way, way_of_change: str
) -> None:
    way.loop.append(recent(1, 40))
    manager = way.watch()
    fresh = recent(1, 25, role="reviewer")
    if way_of_change == "rotated":
        rotate(way.loop, fresh)
    else:
        way.loop.replace(fresh)
    manager.wait_for("alpha", lambda view: view.counts.resets == 1)
    way.fleet.wait_until_read("alpha", 25)
    way.loop.append(recent(26, 30, role="reviewer"))
    after = manager.wait_for("alpha", lambda view: view.committed_line == 30)
    assert (after.counts.events, after.counts.replayed, after.counts.resets) == (70, 0, 1)
    assert (after.applied_line, after.head_line) == (30, 30)
    assert (after.sequence_status, after.health_status) == ("ok", "healthy")
    assert manager.stop() == 0
    assert way.fleet.records("alpha") == ["session_opened", "log_replaced", "session_closed"]
    assert way.fleet.ordering_faults("alpha") == []
    assert way.fleet.place("alpha") == (30, 30)


def test_truncated_log_is_drift_once_and_recovers(way: Way) -> None:
    data = recent(1, 40)
    way.loop.append(data)
    manager = way.watch()
    way.loop.replace(b"".join(data.splitlines(keepends=True)[:30]))
    bad = manager.wait_for("alpha", lambda view: view.sequence_status == "ordering_drift_detected")
    assert "ordering_drift_detected" in bad.reason_codes
    way.fleet.wait_until_read("alpha", 30)
    way.loop.append(recent(31, 35))
    after = manager.wait_for("alpha", lambda view: view.committed_line == 35 and view.sequence_status == "ok")
    assert (after.counts.events, after.counts.resets) == (75, 1)
    assert after.committed_line == 35
    assert manager.stop() == 0
    assert way.fleet.records("alpha") == ["session_opened", "log_truncated", "session_closed"]
    (began, violations), (ended, _) = drifts(way)
    assert (began, ended) == ("ordering_drift_detected", "ok")
    assert "event_sequence_regression" in violations
    assert len(escalations(way, "ordering_drift_detected")) == 1
    assert way.fleet.place("alpha") == (35, 35)


def test_rewritten_log_is_drift_once_and_recovers(way: Way) -> None:
    lines = recent(1, 40).splitlines(keepends=True)
    way.loop.append(b"".join(lines))
    manager = way.watch()
    lines[19] = lines[19].replace(b"implementer", b"tester")
    way.loop.replace(b"".join(lines) + recent(41, 45))
    manager.wait_for("alpha", lambda view: view.counts.resets == 1)
    way.fleet.wait_until_read("alpha", 45)
    way.loop.append(recent(46, 50))
    after = manager.wait_for("alpha", lambda view: view.committed_line == 50 and view.sequence_status == "ok")
    assert (after.counts.events, after.counts.resets) == (90, 1)
    assert manager.stop() == 0
    assert way.fleet.records("alpha") == ["session_opened", "log_rewritten", "session_closed"]
    (began, violations), (ended, _) = drifts(way)
    assert (began, ended) == ("ordering_drift_detected", "ok")
    assert "log_rewritten" in violations
    assert len(escalations(way, "ordering_drift_detected")) == 1
    assert way.fleet.place("alpha") == (50, 50)


def test_log_replaced_in_mid_replay_never_mixes_with_the_one_before(way: Way) -> None:
    old, new = recent(1, 20_000), recent(1, 3000, role="reviewer")
    way.loop.append(old)
    way.proxy.slow(len(old) / 3)
    manager = way.fleet.start()
    manager.wait_for("alpha", lambda view: 0 < view.applied_line < 10_000)
    way.loop.replace(new)
    way.proxy.slow(0)
    way.fleet.wait_until_read("alpha", 3000)
    after = manager.view("alpha")
    reset = next(row for row in way.fleet.rows("alpha", "session_telemetry") if "verdict" in row)
    assert (reset["reasonCode"], reset["verdict"]) == ("log_replaced", "log_replaced")
    assert 0 < reset["previousLine"] < 20_000
    assert after.counts.events == reset["previousLine"] + 3000
    assert manager.stop() == 0
    assert way.fleet.ordering_faults("alpha") == []
    assert way.fleet.place("alpha") == (3000, 3000)


def test_log_truncated_in_mid_replay_is_drift_and_what_is_left_is_read(way: Way) -> None:
    data = recent(1, 20_000)
    way.loop.append(data)
    way.proxy.slow(len(data) / 3)
    manager = way.fleet.start()
    manager.wait_for_line("alpha", 3000)
    os.truncate(way.loop.log, len(recent(1, 2000)))
    way.proxy.slow(0)
    way.fleet.wait_until_read("alpha", 2000)
    after = manager.view("alpha")
    assert manager.stop() == 0
    resets = [row for row in way.fleet.rows("alpha", "session_telemetry") if "verdict" in row]
    assert [row["reasonCode"] for row in resets] == ["log_truncated"]
    assert after.counts.events == resets[0]["previousLine"] + 2000
    assert len(escalations(way, "ordering_drift_detected")) == 1
    assert way.fleet.place("alpha") == (2000, 2000)


def test_torn_last_line_is_applied_once_when_it_is_complete(way: Way) -> None:
    way.loop.append(recent(1, 40))
    manager = way.watch()
    for number in range(41, 61):
        line = recent(number, number)
        for piece in (line[:60], line[60:-1], line[-1:]):
            way.loop.append(piece)
    manager.wait_for("alpha", lambda view: view.committed_line == 60)
    torn = recent(61, 61)
    way.loop.append(torn[:-1])
    assert manager.stop() == 0
    assert way.fleet.place("alpha") == (60, 60)
    manager = way.fleet.start()
    again = manager.wait_for("alpha", lambda view: view.connection.state == UP)
    assert (again.applied_line, again.head_line) == (60, 60)
    way.loop.append(torn[-1:] + recent(62, 62))
    after = manager.wait_for("alpha", lambda view: view.committed_line == 62)
    assert (after.counts.events, after.counts.quarantined, after.counts.replayed) == (2, 0, 0)
    assert manager.stop() == 0
    assert way.fleet.rows("alpha", "quarantine") == []
    assert way.fleet.ordering_faults("alpha") == []
    assert way.fleet.place("alpha") == (62, 62)


def write_torn(log: Path, writer: int, count: int) -> None:
    """Append lines of 70 kB as a writer does whom the system interrupts: some in two writes, and others'
    lines come between."""
    dice = random.Random(writer)
    with log.open("ab", buffering=0) as file:
        for number in range(1, count + 1):
            line = recent(number, number, message=f"{writer}" * 70_000)
            cut = dice.randrange(1, len(line)) if dice.random() < 0.3 else len(line)
            file.write(line[:cut])
            if cut < len(line):
                threading.Event().wait(0.002)
                file.write(line[cut:])


def test_long_lines_of_several_writers_go_on_record_or_are_applied_each_once(way: Way) -> None:
    manager = way.watch()
    writers = [threading.Thread(target=write_torn, args=(way.loop.log, number, 25)) for number in range(1, 5)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    way.loop.append(b"\n" + recent(1, 1))
    lines = way.loop.log.read_bytes().splitlines()
    good = [is_event(line) for line in lines]
    bad = [number for number, fine in enumerate(good, 1) if not fine and lines[number - 1].strip()]
    way.fleet.wait_until_read("alpha", len(lines))
    after = manager.view("alpha")
    assert bad
    assert (after.counts.events, after.counts.quarantined) == (sum(good), len(bad))
    assert after.counts.disconnects == 0
    assert manager.stop() == 0
    quarantined = way.fleet.rows("alpha", "quarantine")
    assert [row["line"] for row in quarantined] == bad
    assert [row["sizeBytes"] for row in quarantined] == [len(lines[number - 1]) for number in bad]
    assert way.fleet.ordering_faults("alpha") == []
    assert Counter(way.fleet.records("alpha"))["connection_lost"] == 0


def is_event(line: bytes) -> bool:
    """Whether a line is a JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
