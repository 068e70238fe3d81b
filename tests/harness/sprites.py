"""Sprites: repositories of their own with a running loop, an agent on each."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.harness.agents import Agent, Wrapper, start_agent
from tests.harness.live_fleet import running_loop
from tests.harness.loops import LoopFiles, Repo


class Sprite(NamedTuple):
    """A running loop, the agent that serves it, and where both are."""

    repo: Repo
    loop: LoopFiles
    agent: Agent


class Sprites:
    """Makes sprites below a directory; their agents end together."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._agents: list[Agent] = []

    def make(
        self,
        loop_id: str,
        data: bytes = b"",
        *,
        prepare: Callable[[LoopFiles], None] = lambda _: None,
        under: Wrapper | None = None,
    ) -> Sprite:
        """A sprite with one loop, which this process runs. prepare: writes to the loop's files before the
        agent does. under: see start_agent."""
        repo = Repo(self._root / f"sprite-{loop_id}")
        loop = running_loop(repo, loop_id, data)
        prepare(loop)
        return Sprite(repo, loop, self.serve(repo.root, under=under))

    def serve(self, repo: Path, *flags: str, under: Wrapper | None = None) -> Agent:
        """One more agent, on a repository that is there."""
        errors = self._root / f"agent-of-a-sprite-{len(self._agents)}.txt"
        self._agents.append(start_agent(repo, errors, *flags, under=under))
        return self._agents[-1]

    def copy(self, repo: Path, *flags: str) -> Agent:
        """An agent on a copy of a sprite's disk, which has the id of the sprite."""
        target = self._root / f"copy-{len(self._agents)}"
        shutil.copytree(repo, target)
        return self.serve(target, *flags)

    def close(self) -> None:
        """Leave nothing behind."""
        for agent in self._agents:
            agent.end()
