"""Fixtures of the golden cases: a workspace, and agents that serve it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.contract import cases
from tests.contract.cases import ServiceFacts
from tests.contract.playback import Playback, StartService
from tests.contract.service import Service
from tests.contract.workspace import Workspace

STOP_TIMEOUT_SECONDS = 10


class Agents:
    """Agents of one workspace, one at a time."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, facts: ServiceFacts) -> Service:
        """Start an agent for the repository, and end the one before it."""
        self.end()
        path = os.pathsep.join(entry for entry in sys.path if entry)
        words = [
            "serve",
            "--repo",
            str(self._workspace.repo),
            "--grpc",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
        ]
        words += ["--token", facts.token] if facts.token else ["--allow-unauthenticated"]
        # Not a pipe, which nobody reads while the case runs.
        said = self._workspace.home / "agent.txt"
        with said.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sprite_agent", *words],
                cwd=self._workspace.repo,
                env=self._workspace.environment({"PYTHONPATH": path, **facts.env}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, said.read_text()
        ready = json.loads(line)
        return Service(f"grpc://{ready['grpc']}", f"http://{ready['http']}", facts.token)

    def end(self) -> None:
        if self._process is not None:
            # Its orderly end takes a second, and has tests of its own.
            self._process.kill()
            self._process.communicate(timeout=STOP_TIMEOUT_SECONDS)
            self._process = None


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def start_agent(workspace: Workspace) -> Iterator[StartService]:
    """Starts agents for the workspace's repository."""
    agents = Agents(workspace)
    yield agents.start
    agents.end()


# --- cases that wait ---------------------------------------------------------------------------------

# Parameter of the tests that wait for a play in the background: (case, way).
SLOW_PARAMETER = "slow_play"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow tests last of all, when nothing is left to wait for."""
    items.sort(key=_waits)


def _waits(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and SLOW_PARAMETER in item.fixturenames


@pytest.fixture(scope="session", autouse=True)
def slow_plays(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, str], Future[None]]]:
    """The plays of all collected slow cases, begun with the first test of this directory.

    They wait about 30 s while the other cases are played. Their commands run as processes: this process's
    directory, environment and output belong to the test that runs.
    """
    wanted: list[Any] = [
        item.callspec.params[SLOW_PARAMETER]
        for item in request.session.items
        if isinstance(item, pytest.Function) and _waits(item) and hasattr(item, "callspec")
    ]
    with ThreadPoolExecutor(max(1, len(wanted))) as pool:
        yield {play: pool.submit(_play, play, tmp_path_factory.mktemp("slow")) for play in wanted}


def _play(play: tuple[str, str], directory: Path) -> None:
    name, way = play
    workspace = Workspace(directory)
    agents = Agents(workspace)
    try:
        Playback(cases.load(name), workspace, way=way, start=agents.start, spawn=True).play()
    finally:
        agents.end()
