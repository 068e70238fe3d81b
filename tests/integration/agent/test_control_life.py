"""Control under crowds, with runtimes that misbehave, and at the agent's end."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from spritemesh.control import Confirmation
from superloop.ops.v1 import control_pb2 as pb
from superloop.ops.v1 import sprite_pb2
from tests.harness.agents import BEARER, Agent, StartAgent
from tests.harness.control import LOOK, Client, Runtime, audit_of, client_of, refusals_of, request
from tests.harness.loops import LoopFiles, Repo, event
from tests.harness.refusals import refusal
from tests.harness.waiting import wait_for
from tests.integration.agent.conftest import Sprite

AMBIGUOUS = pb.CONTROL_STATUS_AMBIGUOUS
FAILED = pb.CONTROL_STATUS_FAILED_COMMAND
# What a drain may take: the grace of what runs, and a little.
BOUND_SECONDS = 9.0

Serve = Callable[..., tuple[Agent, Client]]


@pytest.fixture
def runtime(tmp_path: Path, loop: LoopFiles) -> Runtime:
    loop.append(event(1))
    return Runtime(tmp_path / "runtime")


@pytest.fixture
def serve(start: StartAgent, runtime: Runtime) -> Iterator[Serve]:
    """Starts an agent with the runtime; flags may name another."""
    opened = []

    def serve(*flags: str) -> tuple[Agent, Client]:
        agent = start(*(flags or runtime.flags))
        opened.append(client_of(agent))
        return agent, opened[-1].__enter__()

    yield serve
    for context in opened:
        context.__exit__(None, None, None)


# --- crowds ------------------------------------------------------------------------------------------


def test_same_key_fifty_times_at_once_is_executed_once(sprite: Sprite) -> None:
    sprite.runtime.does("sleep 0.1")
    wanted = sprite.request("cancel", "crowd", confirmation=LOOK)
    calls = [sprite.client.future(wanted._replace(trace_id=f"t-{number}")) for number in range(50)]
    outcomes = [call.result().outcome for call in calls]
    assert len(sprite.runtime.calls) == 1
    assert Counter(found.replayed for found in outcomes) == {False: 1, True: 49}
    for found in outcomes:
        found.replayed = False
    assert all(found == outcomes[0] for found in outcomes)
    assert sprite.audit().of("crowd") == ["confirmed"] * 3


def test_same_key_at_once_from_two_agents_is_executed_once(serve: Serve, runtime: Runtime) -> None:
    """Two agents of one repository share its ledger."""
    runtime.does(runtime.waits())
    clients = [serve()[1], serve()[1]]
    wanted = request("cancel", "shared")
    first = clients[0].future(wanted)
    runtime.wait_until_it_runs()
    second = clients[1].future(wanted)
    assert clients[1].invocation("shared").state == pb.INVOCATION_STATE_STARTED
    runtime.go()
    assert [call.result().outcome.replayed for call in (first, second)] == [False, True]
    assert len(runtime.calls) == 1


def test_key_of_what_runs_stands_for_one_request(sprite: Sprite) -> None:
    sprite.runtime.does(sprite.runtime.waits())
    under_way = sprite.client.future(sprite.request("cancel", "busy"))
    sprite.runtime.wait_until_it_runs()
    found = refusal(lambda: sprite.ask("cancel", "busy", note="another"))
    assert (found.code, found.reason) == (grpc.StatusCode.ALREADY_EXISTS, "idempotency_key_conflict")
    sprite.runtime.go()
    assert under_way.result().outcome.exit_code == 0


def test_reads_are_answered_while_commands_run_and_more_controls_are_refused(
    repo: Repo, serve: Serve, runtime: Runtime
) -> None:
    runtime.does(runtime.waits())
    agent, client = serve()
    for number in range(33):
        repo.loop(f"loop-{number}", event(1))
    calls = [client.future(request(key=f"k-{number}", loop_id=f"loop-{number}")) for number in range(32)]
    wait_for(lambda: len(runtime.calls) == 32, what="32 commands to run")
    found = refusal(lambda: client.ask(request(key="k-32", loop_id="loop-32")))
    assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too_many_controls")
    assert found.retry_seconds
    began = time.monotonic()
    with agent.stub() as stub:
        stub.GetSnapshot(sprite_pb2.GetSnapshotRequest(loop_id="alpha"), metadata=BEARER)
    assert client.invocation("k-7").state == pb.INVOCATION_STATE_STARTED
    noted = refusals_of(repo)[-1]
    assert (noted["reasonCode"], noted["loopId"]) == ("too_many_controls", "loop-32")
    # How long to look is no part of a request.
    joined = client.future(
        request(key="k-7", loop_id="loop-7", confirmation=Confirmation(skip=True, timeout_seconds=1))
    )
    assert time.monotonic() - began < 2
    runtime.go()
    assert [call.result().outcome.exit_code for call in calls] == [0] * 32
    assert joined.result().outcome.replayed
    assert not client.ask(request(key="k-32", loop_id="loop-32")).replayed


# --- runtimes that misbehave -------------------------------------------------------------------------


def test_command_that_hangs_is_ended_and_leaves_it_ambiguous(serve: Serve, runtime: Runtime) -> None:
    runtime.does(f"sleep 60 & echo $! > '{runtime.file('child')}'", "wait")
    _, client = serve(*runtime.flags, "--runtime-timeout", "0.2")
    found = client.ask(request(key="hangs"))
    assert (found.status, found.reason) == (AMBIGUOUS, "runtime_timeout")
    child = Path("/proc", runtime.file("child").read_text().strip(), "stat")
    wait_for(lambda: not child.exists() or child.read_text().split()[2] == "Z", what="its child to end")
    assert client.ask(request(key="hangs")).replayed
    assert len(runtime.calls) == 1


def test_flood_of_output_is_cut(sprite: Sprite) -> None:
    sprite.runtime.does("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done", "echo last >&2")
    found = sprite.ask("cancel")
    assert (found.exit_code, found.output_truncated) == (0, True)
    lines = found.output_tail.splitlines()
    assert len(lines) == 40
    assert lines[-1] in {"last", "line 2999"}


def test_program_that_is_absent_frees_the_key(serve: Serve, runtime: Runtime, tmp_path: Path) -> None:
    program = tmp_path / "later"
    _, client = serve("--runtime-command", str(program))
    found = client.ask(request(key="again"))
    assert (found.status, found.reason, found.exit_code) == (FAILED, "runtime_not_found", 127)
    program.write_text("no program\n")
    found = client.ask(request(key="again"))
    assert (found.status, found.reason, found.exit_code) == (FAILED, "runtime_not_executable", 126)
    program.unlink()
    program.symlink_to(runtime.path)
    found = client.ask(request(key="again"))
    assert (found.exit_code, found.replayed) == (0, False)
    assert client.ask(request(key="again")).replayed


def test_program_is_that_of_the_environment_when_no_flag_names_one(
    serve: Serve, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPERLOOP_BIN", str(runtime.path))
    _, client = serve("--heartbeat-interval", "5")
    assert client.ask(request()).exit_code == 0
    assert len(runtime.calls) == 1


# --- the agent's end ---------------------------------------------------------------------------------


def test_drain_lets_a_command_end(repo: Repo, serve: Serve, runtime: Runtime) -> None:
    runtime.does(runtime.waits(), "echo whole")
    agent, client = serve()
    under_way = client.future(request(key="whole"))
    runtime.wait_until_it_runs()
    agent.signal()
    wait_for(lambda: "draining" in agent.said(), what="the agent to drain")
    found = refusal(lambda: client.ask(request(key="late")))
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "agent_draining")
    runtime.go()
    assert under_way.result().outcome.output_tail == "whole"
    assert agent.wait(BOUND_SECONDS) == 0
    assert audit_of(repo).of("whole") == ["executed_unconfirmed"] * 3


def test_drain_ends_confirmations_and_waits_for_no_command_that_does_not_end(
    repo: Repo, serve: Serve, runtime: Runtime
) -> None:
    repo.put("state.json", {"active": True, "current_loop_id": "alpha"})
    other = repo.loop("other", event(1))
    other.put("approval.json", {"status": "pending"})
    agent, client = serve()
    slow = request(key="slow", confirmation=Confirmation(timeout_seconds=600))
    confirming = client.future(slow, seconds=60)
    client.wait_for_state("slow", pb.INVOCATION_STATE_CONFIRMING)
    runtime.does(runtime.waits())
    endless = request("approve", key="endless", loop_id="other")
    running = client.future(endless, seconds=60)
    runtime.wait_until_it_runs()
    agent.signal()
    began = time.monotonic()
    outcome = confirming.result().outcome
    assert (outcome.status, outcome.reason, outcome.exit_code) == (AMBIGUOUS, "control_ambiguous", 0)
    assert running.exception().code() == grpc.StatusCode.UNAVAILABLE
    assert agent.wait(BOUND_SECONDS) == 0
    assert time.monotonic() - began < BOUND_SECONDS
    assert "Traceback" not in agent.said()

    _, client = serve()
    again = client.ask(slow)
    assert (again.status, again.replayed) == (AMBIGUOUS, True)
    # It still runs, so who repeats it waits.
    joined = client.future(endless)
    assert client.invocation("endless").state == pb.INVOCATION_STATE_STARTED
    runtime.go()
    again = joined.result().outcome
    assert (again.status, again.reason, again.replayed) == (AMBIGUOUS, "control_interrupted", True)
    assert len(runtime.calls) == 1
    assert audit_of(repo).of("slow") == ["ambiguous"] * 3
    assert audit_of(repo, "other").of("endless") == ["ambiguous"] * 3
