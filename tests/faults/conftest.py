"""What tests with a running manager share: its repository, a sprite, and the way between them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.agents import Agent, StartAgent
from tests.harness.live_fleet import Fleet, MakeFleet, Manager, entry, running_loop
from tests.harness.loops import LoopFiles, Repo
from tests.harness.proxy import Proxy
from tests.harness.sprites import Sprites


class Way(NamedTuple):
    """A running loop in an agent that a manager reaches through a proxy; nobody watches it yet."""

    loop: LoopFiles
    agent: Agent
    proxy: Proxy
    fleet: Fleet

    def watch(self) -> Manager:
        """A manager that has caught up with the log."""
        manager = self.fleet.start()
        lines = self.loop.log.read_bytes().count(b"\n")
        self.fleet.wait_until_read(self.loop.loop_id, lines)
        return manager


@pytest.fixture
def make_fleet(tmp_path: Path) -> Iterator[MakeFleet]:
    """Makes repositories for managers; those that run there end with the test."""
    made: list[Fleet] = []

    def make() -> Fleet:
        made.append(Fleet(tmp_path / f"manager-{len(made)}"))
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()


@pytest.fixture
def fleet(make_fleet: MakeFleet) -> Fleet:
    """A repository for managers."""
    return make_fleet()


@pytest.fixture
def sprites(tmp_path: Path) -> Iterator[Sprites]:
    """Makes sprites, each with a repository of its own."""
    made = Sprites(tmp_path)
    yield made
    made.close()


@pytest.fixture
def way(repo: Repo, start: StartAgent, fleet: Fleet) -> Iterator[Way]:
    """The loop alpha, which runs, and its registry."""
    loop = running_loop(repo)
    agent = start()
    with Proxy(agent.address) as proxy:
        fleet.register(entry("alpha", proxy.url))
        yield Way(loop, agent, proxy, fleet)
