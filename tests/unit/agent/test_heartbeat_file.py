"""heartbeat.v1.json: kept for a loop whose process lives, and never over another's file."""

import asyncio
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from sprite_agent.heartbeat import HeartbeatFile, HeartbeatSource, grant_interval
from sprite_agent.lag import LagProbe
from sprite_agent.runtime.repository import Repository
from spritemesh.names import HEARTBEAT_WRITER
from tests.harness.loops import LoopFiles, Repo
from tests.harness.waiting import wait_for

LONG_AGO = psutil.Process().create_time() - 3600


@pytest.fixture
def heartbeats(repo: Repo) -> HeartbeatFile:
    repository = Repository(str(repo.root), boot_id="b" * 32)
    return HeartbeatFile(HeartbeatSource(repository, LagProbe()), 2.5)


def document(loop: LoopFiles) -> dict[str, Any]:
    found = json.loads(loop.heartbeat.read_text())
    assert isinstance(found, dict)
    return found


def test_running_loop_gets_a_marked_heartbeat(repo: Repo, loop: LoopFiles, heartbeats: HeartbeatFile) -> None:
    repo.running(os.getpid(), loop.loop_id)
    assert heartbeats.write_once()
    found = document(loop)
    assert (found["writer"], found["loop_id"], found["stage"]) == (HEARTBEAT_WRITER, "alpha", "loop_start")
    assert (found["boot_id"], found["sequence"], found["interval_seconds"]) == ("b" * 32, 1, 2.5)
    assert found["process"]["pid"] == os.getpid()
    assert found["timestamp"].endswith("Z")
    assert heartbeats.write_once()
    assert document(loop)["sequence"] == 2
    assert sorted(path.name for path in loop.directory.iterdir()) == ["events.jsonl", "heartbeat.v1.json"]


def test_own_file_of_an_earlier_start_is_taken_over(
    repo: Repo, loop: LoopFiles, heartbeats: HeartbeatFile
) -> None:
    loop.put("heartbeat.v1.json", {"writer": HEARTBEAT_WRITER, "boot_id": "other"})
    repo.running(os.getpid(), loop.loop_id)
    assert heartbeats.write_once()
    assert document(loop)["boot_id"] == "b" * 32


@pytest.mark.parametrize(
    "content", ["{}", '{"writer":"someone"}', '{"timestamp":"2026-02-22T03:45:00Z"}', "[]", "{half", ""]
)
def test_file_of_somebody_else_is_never_touched(
    repo: Repo, loop: LoopFiles, heartbeats: HeartbeatFile, content: str
) -> None:
    loop.heartbeat.write_text(content)
    before = loop.heartbeat.stat()
    repo.running(os.getpid(), loop.loop_id)
    assert not heartbeats.write_once()
    after = loop.heartbeat.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert loop.heartbeat.read_text() == content


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "directory"])
def test_what_is_no_plain_file_is_left_alone(
    repo: Repo, loop: LoopFiles, heartbeats: HeartbeatFile, kind: str
) -> None:
    if kind == "link":
        (loop.directory / "real").write_text(json.dumps({"writer": HEARTBEAT_WRITER}))
        loop.heartbeat.symlink_to("real")
    elif kind == "dangling link":
        loop.heartbeat.symlink_to("nowhere")
    elif kind == "pipe":
        os.mkfifo(loop.heartbeat)
    else:
        loop.heartbeat.mkdir()
    before = loop.heartbeat.lstat()
    repo.running(os.getpid(), loop.loop_id)
    assert not heartbeats.write_once()
    assert loop.heartbeat.lstat().st_ino == before.st_ino


def test_nothing_is_written_where_nothing_runs(
    repo: Repo, loop: LoopFiles, heartbeats: HeartbeatFile
) -> None:
    assert not heartbeats.write_once()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    repo.running(ended.pid, loop.loop_id)
    assert not heartbeats.write_once()
    repo.running(os.getpid(), None)
    assert not heartbeats.write_once()
    repo.running(os.getpid(), "../alpha")
    assert not heartbeats.write_once()
    repo.running(os.getpid(), loop.loop_id)
    active = repo.root / ".superloop" / "active-run.json"
    os.utime(active, (LONG_AGO, LONG_AGO))
    assert not heartbeats.write_once()
    assert not loop.heartbeat.exists()


def test_no_directory_is_made_for_a_loop_that_has_none(repo: Repo, heartbeats: HeartbeatFile) -> None:
    repo.running(os.getpid(), "ghost")
    assert not heartbeats.write_once()
    assert not (repo.root / ".superloop" / "loops" / "ghost").exists()


async def test_defect_while_writing_is_logged_and_tried_again(
    repo: Repo, loop: LoopFiles, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that left `run` would end the task group of the agent, and so the agent."""

    class Defective(HeartbeatFile):
        tries = 0

        def write_once(self) -> bool:
            self.tries += 1
            if self.tries == 1:
                raise ZeroDivisionError
            return super().write_once()

    repo.running(os.getpid(), loop.loop_id)
    repository = Repository(str(repo.root), boot_id="b" * 32)
    task = asyncio.create_task(Defective(HeartbeatSource(repository, LagProbe()), 0.01).run())
    await asyncio.to_thread(wait_for, lambda: loop.heartbeat.exists() or task.done(), what="the second try")
    assert not task.done()
    task.cancel()
    assert "ZeroDivisionError" in caplog.text


def test_streams_share_one_look_at_the_runtime(repo: Repo, loop: LoopFiles) -> None:
    """A thousand streams ask four times a second each; the answers of one moment are one."""
    source = HeartbeatSource(Repository(str(repo.root), boot_id="b" * 32), LagProbe())
    repo.running(os.getpid(), loop.loop_id)
    with ThreadPoolExecutor(8) as pool:
        started = time.monotonic()
        found = [future.result() for future in [pool.submit(source.active_run) for _ in range(1000)]]
        periods = 2 + (time.monotonic() - started) / 0.2
    assert found[0] is not None
    assert len({id(run) for run in found}) <= periods
    repo.running(1, loop.loop_id)

    def pid() -> int:
        run = source.active_run()
        return 0 if run is None else run.pid

    wait_for(lambda: pid() == 1, what="the change to be seen")


@pytest.mark.parametrize(
    ("wanted", "granted"), [(None, 5.0), (0.0, 0.25), (0.1, 0.25), (0.25, 0.25), (7.5, 7.5), (3600.0, 60.0)]
)
def test_interval_is_granted_within_bounds(wanted: float | None, granted: float) -> None:
    assert grant_interval(wanted) == granted
