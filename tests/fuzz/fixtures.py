"""An agent to fuzz: real, with loops in every state, a runtime that answers at once, and far bounds."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.harness.agents import Agent, start_agent
from tests.harness.loops import Repo, event, events
from tests.harness.traces import TraceFile, spans

# It stands in corpora, so it may not change.
TOKEN = "token-of-the-tests"
# A fuzzer asks thousands of times a second; what the bounds do has tests of its own.
_LIMITS = (
    *("--limit", "failures-per-minute=1000000"),
    *("--limit", "control-per-minute=1000000"),
)
# Of words that an agent logs when it meets a defect.
_DEFECTS = ("Traceback", "agent_fault", "internal_error", "Task exception was never retrieved")
_MAX_RSS_BYTES = 512 * 1024 * 1024
_LOOK_EVERY = 200


class FuzzedAgent:
    """The agent, and whether it is still well."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._process = psutil.Process(agent.process.pid)
        self._read = 0
        self._asked = 0

    def check(self) -> None:
        """That it lives and logged no defect since the last look; now and then, that it does not grow."""
        assert self.agent.process.poll() is None, f"the agent ended: {self.agent.said()[-2000:]}"
        errors = self.agent.errors
        if errors.stat().st_size > self._read:
            with errors.open("rb") as file:
                file.seek(self._read)
                said = file.read().decode("utf-8", "replace")
                self._read = file.tell()
            assert not any(word in said for word in _DEFECTS), said[-4000:]
        self._asked += 1
        if self._asked % _LOOK_EVERY == 0:
            assert self._process.memory_info().rss < _MAX_RSS_BYTES, "the agent grows"


@contextmanager
def fuzzed_agent(directory: Path) -> Iterator[FuzzedAgent]:
    """A running agent over gRPC and HTTP with the loops alpha (idle), bad, pending and empty."""
    repo = Repo(directory / "repo")
    repo.put("state.json", {"active": False})
    repo.loop("alpha", events(1, 5))
    repo.loop("bad", event(1) + b"{\n")
    repo.loop("pending", events(1, 3)).put("approval.json", {"status": "pending"})
    repo.loop("empty")
    traces = TraceFile(repo.root / "trace.jsonl")
    traces.append(spans(1, 5) + b"{\n")
    traces.move_aside(spans(6, 9))
    runtime = directory / "runtime"
    # A cancel of what does not run is confirmed at once; a decision fails: nothing waits for an effect.
    runtime.write_text('#!/bin/sh\n[ "$1" = cancel ]\n')
    runtime.chmod(0o755)
    flags = ("--http", "127.0.0.1:0", "--runtime-command", str(runtime), *_LIMITS)
    agent = start_agent(repo.root, directory / "agent.txt", *flags, token=("--token", TOKEN))
    try:
        yield FuzzedAgent(agent)
        agent.signal()
        assert agent.wait() == 0
    finally:
        agent.end()
