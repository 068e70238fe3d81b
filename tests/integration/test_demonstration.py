"""`make run`: a fleet that is shown, commands to try that work, and nothing left behind."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.harness.agents import ROOT, environment
from tests.harness.loops import Repo, events
from tests.harness.terminal import OnTerminal
from tests.harness.waiting import wait_for

pytestmark = pytest.mark.timeout(90)

_SECONDS = 30.0
COMMAND = [sys.executable, "-m", "manager.demo"]


class Demonstration:
    """A running one. out: its standard output."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(),
        )
        assert self.process.stdout is not None
        self.out = self.process.stdout

    def line(self) -> str:
        """Its next line."""
        line = self.out.readline()
        assert line, self.process.stderr and self.process.stderr.read()
        return line.rstrip("\n")

    def started(self) -> tuple[list[str], list[psutil.Process]]:
        """Once it tells what to try: the commands, and the processes that it started."""
        assert "demo-failing" in self.line()
        commands = list(iter(self.line, ""))
        return [line.strip() for line in commands], psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(_SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGINT)
        self.process.communicate()


@pytest.fixture
def demonstration() -> Iterator[Demonstration]:
    running = Demonstration()
    yield running
    running.close()


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        check=False,
        timeout=_SECONDS,
    )


def paste(command: str, *more: str) -> Any:
    """Run a command that was told; its document."""
    words = " ".join((command.removesuffix(" --output table"), *more))
    done = subprocess.run(
        ["sh", "-c", words], capture_output=True, text=True, cwd="/", env=environment(), check=True
    )
    return json.loads(done.stdout)


def wait_until_gone(directory: Path, processes: list[psutil.Process]) -> None:
    def are_gone() -> bool:
        return not directory.exists() and not any(
            process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes
        )

    wait_for(are_gone, seconds=_SECONDS, what=f"the end of {processes} and {directory}")


def directory_of(commands: list[str]) -> Path:
    words = commands[0].split()
    return Path(words[words.index("--repo") + 1]).parent


def test_fleet_is_shown_its_commands_work_and_even_a_kill_leaves_nothing(
    demonstration: Demonstration,
) -> None:
    commands, processes = demonstration.started()
    shown: list[str] = []
    while "critical (runtime_process_dead)" not in "".join(shown):
        shown = [demonstration.line() for _ in range(3)]
    assert [line.split()[:3] for line in shown] == [
        ["demo", "up/alive/alive", "running,"],
        ["demo-approval", "up/alive/alive", "awaiting_approval,"],
        ["demo-failing", "up/alive/dead", "running,"],
    ]
    watch, approve, trace = commands

    fleet = paste(watch)
    summary = {name: fleet["summary"][name] for name in ("loops", "up", "critical", "awaitingApproval")}
    assert summary == {"loops": 3, "up": 3, "critical": 1, "awaitingApproval": 1}
    assert paste(approve)["status"] == "confirmed"
    assert "control" in json.dumps(paste(trace))
    # What the runtime that obeyed traced is there once the manager has read it.
    wait_for(
        lambda: "sprite_agent.demo" in json.dumps(paste(trace)),
        seconds=_SECONDS,
        what="the spans of the runtime under the approval",
    )
    wait_for(
        lambda: paste(watch)["loops"][1]["state"] == "complete",
        seconds=_SECONDS,
        what="the end of the approved loop",
    )

    assert demonstration.end(signal.SIGKILL) == -signal.SIGKILL
    wait_until_gone(directory_of(commands), processes)


def test_interrupt_ends_everything_in_order(demonstration: Demonstration) -> None:
    commands, processes = demonstration.started()
    assert demonstration.end(signal.SIGINT) == 0
    wait_until_gone(directory_of(commands), processes)
    assert demonstration.out.read().splitlines()[-1] == "stopped"


def test_terminal_shows_the_table_below_the_commands_and_the_status_at_the_end() -> None:
    terminal = OnTerminal([*COMMAND, "--duration", "3", "--loop", "mine"], {})
    try:
        assert terminal.wait() == 0
        wait_for(lambda: terminal.drawn.endswith("}\r\n"))
        drawn = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", terminal.drawn)
        assert drawn.index("ops-manager fleet status") < drawn.index("3 loops: 3 up")
        status = json.loads(drawn.splitlines()[-1])
        assert (status["source"]["loopId"], status["health"]["status"]) == ("mine", "healthy")
    finally:
        terminal.close()


def test_given_loop_is_only_read_and_success_means_healthy(repo: Repo) -> None:
    repo.loop("alpha", events(1, 20))
    before = sorted(repo.root.rglob("*"))
    done = run("--repo", str(repo.root), "--duration", "1")
    status = json.loads(done.stdout.splitlines()[-1])
    assert status["source"]["loopId"] == "alpha"
    assert status["cursor"]["eventLineOffset"] == 20
    assert status["health"]["status"] != "healthy"
    assert done.returncode == 1
    assert sorted(repo.root.rglob("*")) == before


def test_heartbeat_of_a_given_loop_is_removed_again(repo: Repo) -> None:
    loop = repo.loop("alpha", events(1, 2))
    repo.running(os.getpid())
    done = run("--repo", str(repo.root), "--loop", "alpha", "--duration", "1")
    assert json.loads(done.stdout.splitlines()[-1])["visibility"]["heartbeat"]["freshnessStatus"] == "fresh"
    assert not loop.heartbeat.exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--repo", "REPO"], "--loop is required; loops of REPO: alpha, beta"),
        (["--repo", "REPO", "--loop", "gamma"], "loop_not_found"),
        (["--repo", "REPO", "--loop", "../x"], "invalid_loop_id"),
        (["--repo", "REPO/none"], "repo_not_found"),
        (["--loop", "demo-failing"], "--loop demo-failing is another demo loop"),
        (["--duration", "0"], "--duration must be at least 1"),
    ],
)
def test_what_cannot_be_shown_is_refused(repo: Repo, words: list[str], reason: str) -> None:
    for name in ("alpha", "beta"):
        repo.loop(name)
    done = run(*(word.replace("REPO", str(repo.root)) for word in words))
    assert done.returncode == 1
    assert reason.replace("REPO", str(repo.root)) in done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
