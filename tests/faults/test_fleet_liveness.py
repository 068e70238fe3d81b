"""Connection, agent and runtime are three livenesses: what becomes of one is not said of another."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spritemesh.times import format_utc
from superloop.ops.v1 import manager_pb2 as pb
from tests.harness.live_fleet import ALIVE, UP, Document, Fleet, entry, recent
from tests.harness.manager import run
from tests.harness.sprites import Sprites

THRESHOLDS = ("--degraded-heartbeat-lag-seconds", "3", "--critical-heartbeat-lag-seconds", "6")


def beat(path: Path, at: float) -> None:
    """What a runtime writes that keeps a heartbeat of its own."""
    path.write_text(f'{{"timestamp":"{format_utc(at)}","pid":{os.getpid()},"writer":"runtime"}}\n')


def severities(fleet: Fleet, loop_id: str) -> dict[str, str]:
    """What health.json gives as reasons, and how bad each is."""
    rows = fleet.document(loop_id, "health").get("reasons", [])
    return {row["code"]: row["severity"] for row in rows}


def livenesses(document: Document) -> list[str]:
    """The three of them, as a document tells them."""
    return [document[name]["state"] for name in ("connection", "agent", "runtime")]


def fleet_status(fleet: Fleet) -> dict[str, Document]:
    """What `ops-manager fleet status` says of each loop."""
    ran = run("fleet", "status", "--repo", str(fleet.root), "--output", "json")
    assert (ran.code, ran.err) == (0, "")
    (document,) = ran.documents
    return {loop["loopId"]: loop for loop in document["loops"]}


@pytest.fixture
def worker(tmp_path: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """A process that stands for a runtime."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], cwd=tmp_path)
    yield process
    process.kill()
    process.wait()


def test_dead_or_hung_runtime_is_told_though_its_agent_lives(
    sprites: Sprites, fleet: Fleet, worker: "subprocess.Popen[bytes]"
) -> None:
    dead = sprites.make("dead", recent(1, 10))
    # When all of it runs, about.
    written = time.time() + 3
    hung = sprites.make("hung", recent(1, 10), prepare=lambda loop: beat(loop.heartbeat, written))
    dead.repo.running(worker.pid, "dead")
    fleet.register(entry("dead", dead.agent.url), entry("hung", hung.agent.url))
    manager = fleet.start(*THRESHOLDS)
    for loop_id in ("dead", "hung"):
        fresh = manager.wait_for(
            loop_id, lambda view: view.agent.state == ALIVE and view.committed_line == 10
        )
        assert (fresh.runtime.state, fresh.health_status) == (pb.RuntimeView.STATE_ALIVE, "healthy")

    worker.kill()
    worker.wait()
    died = time.monotonic()
    told = manager.wait_for("dead", lambda view: view.runtime.state == pb.RuntimeView.STATE_DEAD)
    assert time.monotonic() - died < 2
    assert (told.connection.state, told.agent.state) == (UP, ALIVE)
    told = manager.wait_for("dead", lambda view: "runtime_process_dead" in view.reason_codes)
    assert told.health_status == "critical"
    assert time.monotonic() - died < 6

    # Nothing arrives that says so: our own clock does.
    told = manager.wait_for("hung", lambda view: "runtime_heartbeat_stale" in view.reason_codes)
    assert told.health_status == "degraded"
    assert told.updated_at.seconds - int(written) >= 3
    told = manager.wait_for("hung", lambda view: view.health_status == "critical")
    assert 6 <= told.updated_at.seconds - int(written) < 10
    assert list(told.reason_codes) == ["runtime_heartbeat_stale"]
    assert (told.connection.state, told.agent.state) == (UP, ALIVE)

    shown = fleet_status(fleet)
    assert livenesses(shown["dead"]) == ["up", "alive", "dead"]
    assert livenesses(shown["hung"]) == ["up", "alive", "alive"]
    hung.repo.running(os.getpid(), "hung")
    beat(hung.loop.heartbeat, time.time())
    manager.wait_for("hung", lambda view: view.health_status == "healthy")
    for loop_id in ("dead", "hung"):
        assert livenesses(fleet.document(loop_id, "session")) == livenesses(shown[loop_id])
    assert severities(fleet, "dead")["runtime_process_dead"] == "critical"
    assert manager.stop() == 0
    for loop_id in ("dead", "hung"):
        assert fleet.records(loop_id) == ["session_opened", "session_closed"]
        assert fleet.place(loop_id) == (10, 10)


def test_lost_agent_leaves_its_runtime_unknown_and_not_dead(sprites: Sprites, fleet: Fleet) -> None:
    made = sprites.make("alpha", recent(1, 10))
    fleet.register(entry("alpha", made.agent.url))
    manager = fleet.start()
    before = manager.wait_for("alpha", lambda view: view.agent.state == ALIVE and view.committed_line == 10)
    made.agent.end()
    lost = manager.wait_for("alpha", lambda view: "transport_unreachable" in view.reason_codes)
    assert lost.connection.state != UP
    assert (lost.agent.state, lost.agent.boot_id) == (ALIVE, before.agent.boot_id)
    assert "runtime_process_dead" not in lost.reason_codes
    status = fleet_status(fleet)["alpha"]
    assert status["connection"]["reason"] == "agent_unreachable"
    assert status["agent"]["heartbeatAgeSeconds"] <= 15
    assert manager.stop() == 0
