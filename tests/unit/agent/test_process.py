"""Facts about processes, of real ones."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sprite_agent.runtime.layout import loop_paths
from sprite_agent.runtime.process import ActiveRun, RunReader, own_facts, process_facts
from sprite_agent.runtime.statefiles import StateFiles
from spritemesh.jsontext import JSON
from tests.harness.loops import Repo
from tests.harness.waiting import wait_for

ACTIVE_RUN = loop_paths("any").active_run


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that lives until it is told otherwise."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def active_run(repo: Repo) -> ActiveRun | None:
    return RunReader(StateFiles(str(repo.root)), ACTIVE_RUN).read()


def test_own_process_is_described() -> None:
    facts = own_facts()
    assert facts.started_at == pytest.approx(psutil.Process().create_time(), abs=1)
    assert facts.rss_bytes > 1 << 20
    assert facts.cpu_seconds > 0


def test_running_process_is_alive(repo: Repo, child: "subprocess.Popen[bytes]") -> None:
    repo.running(child.pid, "alpha", stage="loop_start")
    run = active_run(repo)
    assert run is not None
    assert (run.pid, run.loop_id, run.stage) == (child.pid, "alpha", "loop_start")
    assert run.process is not None
    assert run.process.started_at == pytest.approx(psutil.Process(child.pid).create_time(), abs=1)


def test_zombie_is_not_alive(repo: Repo, child: "subprocess.Popen[bytes]") -> None:
    repo.running(child.pid)
    child.kill()
    wait_for(lambda: process_facts(child.pid) is None, what="the killed child to count as dead")
    run = active_run(repo)
    assert run is not None
    assert run.process is None


def test_process_that_ended_is_not_alive(repo: Repo, child: "subprocess.Popen[bytes]") -> None:
    repo.running(child.pid)
    child.kill()
    child.wait()
    run = active_run(repo)
    assert run is not None
    assert run.process is None


def test_later_process_with_the_same_id_is_not_the_run(repo: Repo, child: "subprocess.Popen[bytes]") -> None:
    repo.running(child.pid)
    before = psutil.Process(child.pid).create_time() - 60
    os.utime(repo.root / ACTIVE_RUN, (before, before))
    run = active_run(repo)
    assert run is not None
    assert run.process is None


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the start is computed otherwise elsewhere")
def test_run_stays_alive_when_the_clock_is_set(
    repo: Repo, child: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = RunReader(StateFiles(str(repo.root)), ACTIVE_RUN)
    repo.running(child.pid)
    before = reader.read()
    assert before is not None
    assert before.process is not None
    # What setting the clock by an hour changes there: the time of the boot, and so every start.
    booted_at = psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted_at + 3600)
    assert psutil.Process(child.pid).create_time() > before.process.started_at + 3000
    after = reader.read()
    assert after is not None
    assert after.process is not None
    assert after.process.started_at == before.process.started_at
    child.kill()
    child.wait()
    ended = reader.read()
    assert ended is not None
    assert ended.process is None


@pytest.mark.parametrize("pid", [None, 0, -1, 2**31, 2**70, "12", 1.5, True, []])
def test_file_without_a_process_id_names_no_run(repo: Repo, pid: JSON) -> None:
    repo.put("active-run.json", {"pid": pid})
    assert active_run(repo) is None


@pytest.mark.parametrize("document", [None, "x", []])
def test_file_of_another_kind_names_no_run(repo: Repo, document: JSON) -> None:
    repo.put("active-run.json", document)
    assert active_run(repo) is None


def test_missing_or_broken_file_names_no_run(repo: Repo) -> None:
    assert active_run(repo) is None
    (repo.root / ACTIVE_RUN).write_text("{half")
    assert active_run(repo) is None


def test_stage_that_is_no_text_is_told_as_far_as_a_message_can_hold_it(repo: Repo) -> None:
    (repo.root / ACTIVE_RUN).write_text(f'{{"pid":{os.getpid()},"stage":"half \\ud800"}}')
    run = active_run(repo)
    assert run is not None
    assert run.stage == "half \ufffd"


@pytest.mark.parametrize("loop_id", [None, "", "..", "../x", 3])
def test_loop_id_that_is_no_directory_name_is_dropped(repo: Repo, loop_id: JSON) -> None:
    repo.put("active-run.json", {"pid": os.getpid(), "loop_id": loop_id, "stage": 7})
    run = active_run(repo)
    assert run is not None
    assert (run.loop_id, run.stage) == ("", "")
