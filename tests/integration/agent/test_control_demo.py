"""Control of a demo loop through the runtime's own command lines, as an operator would."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spritemesh.control import Confirmation
from superloop.ops.v1 import control_pb2 as pb
from superloop.ops.v1 import envelope_pb2, sprite_pb2
from tests.harness.agents import BEARER, Agent, StartAgent, environment
from tests.harness.control import client_of, request
from tests.harness.loops import Repo
from tests.harness.streams import place
from tests.harness.waiting import wait_for

RUNTIME = os.path.join(os.path.dirname(sys.executable), "superloop-demo")
CONFIRMED = pb.CONTROL_STATUS_CONFIRMED
CONFIRM = Confirmation(timeout_seconds=10)
pytestmark = pytest.mark.skipif(not os.path.exists(RUNTIME), reason="the programs are not installed")

Demo = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def demo(repo: Repo) -> Iterator[Demo]:
    """Starts demo loops of the repository."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*flags: str) -> "subprocess.Popen[bytes]":
        words = [sys.executable, "-m", "sprite_agent", "demo-loop", "--repo", str(repo.root), *flags]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, env=environment())
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def snapshot(agent: Agent) -> envelope_pb2.LoopRunSnapshot:
    with agent.stub() as stub:
        return stub.GetSnapshot(sprite_pb2.GetSnapshotRequest(loop_id="demo"), metadata=BEARER).snapshot


def wait_for_status(agent: Agent, status: str) -> envelope_pb2.LoopRunSnapshot:
    """The snapshot, once the loop is there and has this status."""
    with agent.stub() as stub:
        wait_for(
            lambda: any(
                loop.loop_id == "demo" and loop.status == status
                for loop in stub.ListLoops(sprite_pb2.ListLoopsRequest(), metadata=BEARER).loops
            ),
            what=f"the demo loop to be {status}",
        )
    return snapshot(agent)


def test_approved_loop_completes(repo: Repo, demo: Demo, start: StartAgent) -> None:
    process = demo("--pace", "0.01", "--iterations", "1", "--scenario", "approval")
    agent = start("--runtime-command", RUNTIME)
    seen = wait_for_status(agent, "awaiting_approval")
    asked = request(
        "approve",
        loop_id="demo",
        requested_by="ana",
        note="-- fine; $(reboot)",
        confirmation=CONFIRM,
        expected_run_id=seen.run.run_id,
        expected_approval_id=seen.pending_approval_id,
    )
    with client_of(agent) as client:
        found = client.ask(asked)
    assert (found.status, found.exit_code) == (CONFIRMED, 0), found
    assert found.confirmation.reason == "completion_observed"
    assert process.wait(10) == 0
    log = Path(repo.root, ".superloop/loops/demo/events.jsonl").read_bytes()
    assert b'"note":"-- fine; $(reboot)"' in log
    # Whichever was there first: the loop writes its summary, and then its last event.
    if found.effect.HasField("event"):
        assert found.effect.event.name == "loop_complete"
        assert found.effect.event.position.line == place(log).line
    else:
        assert (found.effect.state.member, found.effect.state.after) == ("completion_ok", "true")


def test_running_loop_is_cancelled(demo: Demo, start: StartAgent) -> None:
    process = demo("--pace", "0.05", "--iterations", "0")
    agent = start("--runtime-command", RUNTIME)
    seen = wait_for_status(agent, "running")
    asked = request("cancel", loop_id="demo", confirmation=CONFIRM, expected_run_id=seen.run.run_id)
    with client_of(agent) as client:
        found = client.ask(asked)
    assert (found.status, found.confirmation.reason) == (CONFIRMED, "inactive_not_running"), found
    assert found.effect.state.before == "true"
    assert process.wait(10) != 0


def test_rejected_loop_asks_again_and_the_old_approval_is_another_target(
    demo: Demo, start: StartAgent
) -> None:
    demo("--pace", "0.01", "--iterations", "1", "--scenario", "approval")
    agent = start("--runtime-command", RUNTIME)
    seen = wait_for_status(agent, "awaiting_approval")
    asked = request(
        "reject", loop_id="demo", confirmation=CONFIRM, expected_approval_id=seen.pending_approval_id
    )
    with client_of(agent) as client:
        found = client.ask(asked)
        assert (found.status, found.confirmation.reason) == (CONFIRMED, "rejection_observed"), found
        wait_for(
            lambda: snapshot(agent).pending_approval_id not in {"", seen.pending_approval_id},
            what="the loop to ask again",
        )
        # A retry of the same decision is a replay, and does not reject the next one.
        assert client.ask(asked).replayed
