"""The one look at the runtime that all heartbeat streams share."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sprite_agent import liveness as liveness_module
from sprite_agent.changes import ChangeHub
from sprite_agent.heartbeat import HeartbeatSource
from sprite_agent.lag import LagProbe
from sprite_agent.liveness import RuntimeWatch, liveness
from sprite_agent.runtime.process import ActiveRun
from sprite_agent.runtime.repository import Repository
from tests.harness.loops import LoopFiles, Repo

needs_pidfd = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
# Less than any poll takes.
SOON = 0.9


class Looks:
    """Looks at a repository, and counts."""

    def __init__(self, repo: Repo) -> None:
        self._source = HeartbeatSource(Repository(str(repo.root)), LagProbe())
        self.count = 0

    async def __call__(self) -> ActiveRun | None:
        self.count += 1
        return self._source.look_for_run()

    @property
    def latest(self) -> tuple[int, bool]:
        return liveness(self._source.latest_run)


@pytest.fixture
def looks(repo: Repo) -> Looks:
    return Looks(repo)


@pytest.fixture
def directory(repo: Repo) -> str:
    return str(Path(repo.root) / ".superloop")


@pytest.fixture
def runtime() -> Iterator["subprocess.Popen[bytes]"]:
    """A process in the place of the runtime."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


async def test_quiet_runtime_is_looked_at_once(
    repo: Repo, loop: LoopFiles, looks: Looks, directory: str
) -> None:
    repo.running(os.getpid(), loop.loop_id)
    hub = ChangeHub()
    watch = RuntimeWatch(looks, hub, directory)
    with watch.subscribe() as one, watch.subscribe() as other:
        assert await one.wait(5)
        assert await other.wait(5)
        assert looks.latest == (os.getpid(), True)
        assert not await one.wait(1.3)
        assert looks.count == 1
    hub.close()


@needs_pidfd
async def test_death_and_birth_wake_every_subscriber_at_once(
    repo: Repo, loop: LoopFiles, looks: Looks, directory: str, runtime: "subprocess.Popen[bytes]"
) -> None:
    repo.running(runtime.pid, loop.loop_id)
    hub = ChangeHub()
    watch = RuntimeWatch(looks, hub, directory)
    with watch.subscribe() as one, watch.subscribe() as other:
        for subscription in (one, other):
            assert await subscription.wait(5)
        runtime.kill()
        for subscription in (one, other):
            assert await subscription.wait(SOON)
        assert looks.latest == (runtime.pid, False)
        repo.running(os.getpid(), loop.loop_id)
        for subscription in (one, other):
            assert await subscription.wait(SOON)
        assert looks.latest == (os.getpid(), True)
    hub.close()


async def test_death_is_found_by_the_poll_where_nobody_tells(
    repo: Repo,
    loop: LoopFiles,
    looks: Looks,
    directory: str,
    runtime: "subprocess.Popen[bytes]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    monkeypatch.setattr(liveness_module, "SAFETY_POLL_SECONDS", 0.05)
    repo.running(runtime.pid, loop.loop_id)
    hub = ChangeHub()
    watch = RuntimeWatch(looks, hub, directory)
    with watch.subscribe() as one:
        assert await one.wait(5)
        runtime.kill()
        assert await one.wait(5)
        assert looks.latest == (runtime.pid, False)
    hub.close()


async def test_nobody_looks_once_the_last_subscriber_is_gone(
    repo: Repo, loop: LoopFiles, looks: Looks, directory: str
) -> None:
    repo.running(os.getpid(), loop.loop_id)
    hub = ChangeHub()
    watch = RuntimeWatch(looks, hub, directory)
    held = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for turn in (1, 2):
        with watch.subscribe() as one:
            assert await one.wait(5)
        await asyncio.sleep(0)  # the task ends
        repo.running(os.getpid(), loop.loop_id, stage=str(turn))
        await asyncio.sleep(0.3)
        assert looks.count == turn
        if held:
            assert len(os.listdir("/proc/self/fd")) == held
    hub.close()


async def test_look_that_fails_is_not_the_last(
    repo: Repo, loop: LoopFiles, looks: Looks, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness_module, "SAFETY_POLL_SECONDS", 0.05)
    failures = iter([RuntimeError("can't start new thread")])

    async def look() -> ActiveRun | None:
        for failure in failures:
            raise failure
        return await looks()

    repo.running(os.getpid(), loop.loop_id)
    hub = ChangeHub()
    with RuntimeWatch(look, hub, directory).subscribe() as one:
        assert await one.wait(5)
        assert looks.latest == (os.getpid(), True)
    hub.close()
