"""Telemetry that moves aside while a loop is watched: nothing is lost to those who read it."""

import json
from collections import Counter
from pathlib import Path

from spritemesh.rotation import KEEP
from spritemesh.traceindex import index_path
from tests.faults.conftest import Way
from tests.harness.live_fleet import ALIVE, UP, Document, Fleet, Manager, recent
from tests.harness.manager import run
from tests.harness.waiting import wait_for

# The manager, with files that move aside when they hold a few rows.
LIMIT_BYTES = 2500
SMALL_FILES = f"""
import sys
import manager.store.loop
from manager.cli import main
manager.store.loop.ROTATE_BYTES = {LIMIT_BYTES}
sys.exit(main(sys.argv[1:]))
"""
CUTS = 6


def with_small_files(words: list[str]) -> list[str]:
    python, _, _, *rest = words
    return [python, "-c", SMALL_FILES, *rest]


def files_of(path: Path) -> list[Path]:
    """A file and those that moved aside, the oldest first."""
    return [found for number in range(KEEP, 0, -1) if (found := Path(f"{path}.{number}")).exists()] + [path]


def all_rows(fleet: Fleet, name: str) -> list[Document]:
    files = files_of(fleet.path("alpha", name))
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


def words_of(fleet: Fleet) -> list[str]:
    return [row["reasonCode"] for row in all_rows(fleet, "session_telemetry")]


def kinds_of(fleet: Fleet, trace_id: str) -> Counter[str]:
    """How many steps of each kind `ops-manager trace` finds."""
    ran = run("trace", trace_id, "--repo", str(fleet.root))
    assert (ran.code, ran.err) == (0, "")
    (document,) = ran.documents
    return Counter(step["kind"] for step in document["steps"])


def trace_after_cut(way: Way, manager: Manager, number: int) -> str:
    """Let ten events come and cut the connection for the `number`th time; the next one's trace id."""
    last = 10 * number
    way.loop.append(recent(last - 9, last))
    manager.wait_for("alpha", lambda view: view.committed_line == last)
    way.proxy.cut()
    up = manager.wait_for(
        "alpha", lambda view: view.counts.disconnects == number and view.connection.state == UP
    )
    # A pass of its own, which the next cut must not come before.
    wait_for(
        lambda: Counter(words_of(way.fleet))["connection_restored"] == number,
        what=f"row {number} of a restored connection",
    )
    return up.last_trace_id


def test_telemetry_that_moves_aside_while_a_loop_is_watched_is_read_whole(way: Way) -> None:
    manager = way.fleet.start(under=with_small_files)
    manager.wait_for("alpha", lambda view: view.agent.state == ALIVE)
    traces = [manager.view("alpha").last_trace_id]
    traces += [trace_after_cut(way, manager, number) for number in range(1, CUTS + 1)]
    assert manager.stop() == 0

    for name in ("session_telemetry", "reconcile_telemetry"):
        files = files_of(way.fleet.path("alpha", name))
        assert 1 < len(files) <= KEEP, "the test wants files that move, and none that is dropped"
        assert all(file.stat().st_size < 2 * LIMIT_BYTES for file in files)
    records = Counter(words_of(way.fleet))
    assert records == {
        "session_opened": 1,
        "connection_lost": CUTS,
        "connection_restored": CUTS,
        "session_closed": 1,
    }
    passes = all_rows(way.fleet, "reconcile_telemetry")
    assert sum(row["eventsIngested"] for row in passes) == 10 * CUTS
    assert [row["cursorOffsetAfter"] for row in passes] == sorted(row["cursorOffsetAfter"] for row in passes)
    words = ("--repo", str(way.fleet.root), "--loop", "alpha")
    (summary,) = run("telemetry-summary", *words).documents
    assert summary["observed"]["reconcileAttempts"] == len(passes)
    (status,) = run("status", *words).documents
    assert status["traceLinkage"]["reconcileTraceId"] == traces[-1]

    indexed = [kinds_of(way.fleet, trace_id) for trace_id in traces]
    Path(index_path(str(way.fleet.root))).unlink()
    told = all_rows(way.fleet, "session_telemetry")
    for trace_id, before in zip(traces, indexed, strict=True):
        # With its index, and from the artifacts alone.
        assert kinds_of(way.fleet, trace_id) == before
        assert before["session"] == sum(row["traceId"] == trace_id for row in told)
        assert before["reconcile"] == sum(row["traceId"] == trace_id for row in passes)
    assert sum(before["session"] for before in indexed) == len(told)
