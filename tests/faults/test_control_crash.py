"""The agent is killed at each step of a control request's life: at most one execution, a true answer after.

Where a step can be held (by a lock that it needs, or by the command itself), the agent is killed exactly
there; the windows between are met by kills at stepped delays.
"""

import fcntl
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spritemesh.control import Confirmation, ControlRequest
from superloop.ops.v1 import control_pb2 as pb
from tests.harness.agents import Agent, StartAgent
from tests.harness.control import (
    SKIP,
    Client,
    Runtime,
    audit_directory,
    audit_of,
    client_of,
    request,
    wait_until_noted,
)
from tests.harness.loops import LoopFiles, Repo, event
from tests.harness.refusals import refusal
from tests.harness.waiting import wait_for

CONFIRMED = pb.CONTROL_STATUS_CONFIRMED
UNCONFIRMED = pb.CONTROL_STATUS_EXECUTED_UNCONFIRMED
AMBIGUOUS = pb.CONTROL_STATUS_AMBIGUOUS
FINISHED = pb.INVOCATION_STATE_FINISHED
KEY = "key"


@pytest.fixture
def runtime(tmp_path: Path, loop: LoopFiles) -> Runtime:
    loop.append(event(1))
    return Runtime(tmp_path / "runtime")


@contextmanager
def write_lock(repo: Repo) -> Iterator[None]:
    """Keep everybody from writing to the ledger."""
    path = repo.root / ".superloop" / "sprite-agent" / "ledger.db"
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


@contextmanager
def append_lock(path: Path) -> Iterator[None]:
    """Keep everybody from appending to a file of the audit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def kill(agent: Agent) -> None:
    agent.signal(signal.SIGKILL)
    agent.wait()


def asked_again(agent: Agent, asked: ControlRequest) -> pb.ControlOutcome:
    """The answer to the same request; the agent must say the same of its key, and when asked again."""
    with client_of(agent) as client:
        outcome = client.ask(asked)
        found = client.invocation(asked.idempotency_key)
        again = client.ask(asked)
    assert found.state == FINISHED
    assert again.replayed
    for other in (found.outcome, again):
        other.replayed = outcome.replayed
        assert other == outcome
    return outcome


def wait_for_audit(repo: Repo, status: str, key: str = KEY) -> None:
    """Wait until all three files tell of the key; each must do so once."""
    wait_for(lambda: len(audit_of(repo).of(key)) >= 3, what=f"the audit of {key}")
    assert audit_of(repo).of(key) == [status] * 3


def used_ledger(client: Client) -> None:
    """Make the ledger; with it, all of the way has been gone once."""
    assert client.ask(request(key="before")).exit_code == 0


def test_killed_before_the_record_has_executed_nothing(
    repo: Repo, runtime: Runtime, start: StartAgent
) -> None:
    agent = start(*runtime.flags)
    asked = request(key=KEY)
    with client_of(agent) as client:
        used_ledger(client)
        runtime.does("")
        with write_lock(repo):
            under_way = client.future(asked)
            # It holds the loop's lock by then, and cannot get further.
            locks = repo.root / ".superloop" / "sprite-agent" / "locks"
            wait_for(lambda: any(map(_is_locked, locks.iterdir())), what="the loop to be locked")
            kill(agent)
        assert under_way.exception() is not None
    assert runtime.calls == []

    outcome = asked_again(start(*runtime.flags), asked)
    assert (outcome.status, outcome.replayed) == (UNCONFIRMED, False)
    assert len(runtime.calls) == 1
    wait_for_audit(repo, "executed_unconfirmed")


@pytest.mark.parametrize("ends_first", [False, True], ids=["while it runs", "before its end is recorded"])
def test_killed_while_the_command_runs_never_runs_it_again(
    repo: Repo, runtime: Runtime, start: StartAgent, ends_first: bool
) -> None:
    ended = runtime.file("ended")
    agent = start(*runtime.flags)
    asked = request(key=KEY, confirmation=Confirmation(), trace_id="t-first")
    with client_of(agent) as client:
        used_ledger(client)
        runtime.does(runtime.waits(), f": > '{ended}'")
        under_way = client.future(asked)
        runtime.wait_until_it_runs()
        if ends_first:
            with write_lock(repo):
                runtime.go()
                wait_for(ended.exists, what="the command to end")
                kill(agent)
        else:
            wait_until_noted(repo, KEY)
            kill(agent)
        assert under_way.exception() is not None

    agent = start(*runtime.flags)
    if not ends_first:
        with client_of(agent) as client:
            told = client.invocation(KEY)
            assert (told.state, told.outcome.reason) == (pb.INVOCATION_STATE_STARTED, "")
            # Not two commands at a time on one loop.
            assert refusal(lambda: client.ask(request())).reason == "control_in_progress"
            assert audit_of(repo).of(KEY) == []
            runtime.go()  # the command outlived the agent
    # Nobody has to ask for the truth to be told.
    wait_for_audit(repo, "ambiguous")
    outcome = asked_again(agent, asked._replace(trace_id="t-second"))
    assert (outcome.status, outcome.reason) == (AMBIGUOUS, "control_interrupted")
    assert (outcome.replayed, outcome.trace_id) == (True, "t-first")
    assert not outcome.HasField("exit_code")
    wait_for(ended.exists, what="the command to end")
    assert len(runtime.calls) == 1
    wait_for_audit(repo, "ambiguous")


@pytest.mark.parametrize(
    ("active", "status", "told"),
    [(False, CONFIRMED, "confirmed"), (True, AMBIGUOUS, "ambiguous")],
    ids=["effect came", "no effect"],
)
def test_killed_while_confirming_looks_once_more(
    repo: Repo, runtime: Runtime, start: StartAgent, active: bool, status: int, told: str
) -> None:
    repo.put("state.json", {"active": True, "current_loop_id": "alpha"})
    agent = start(*runtime.flags)
    asked = request(key=KEY, confirmation=Confirmation(timeout_seconds=600))
    with client_of(agent) as client:
        under_way = client.future(asked)
        client.wait_for_state(KEY, pb.INVOCATION_STATE_CONFIRMING)
        kill(agent)
        assert under_way.exception() is not None
    repo.put("state.json", {"active": active, "current_loop_id": "alpha"})

    agent = start(*runtime.flags)
    wait_for_audit(repo, told)
    outcome = asked_again(agent, asked)
    assert (outcome.status, outcome.exit_code, outcome.replayed) == (status, 0, True)
    if status == CONFIRMED:
        assert (outcome.effect.state.before, outcome.effect.state.after) == ("true", "false")
    assert len(runtime.calls) == 1
    wait_for_audit(repo, told)


@pytest.mark.parametrize("name", ["intents.jsonl", "control.jsonl", "control-invocations.jsonl"])
def test_killed_before_the_audit_is_whole_completes_it(
    repo: Repo, runtime: Runtime, start: StartAgent, name: str
) -> None:
    """The outcome is recorded; some of its rows may be."""
    agent = start(*runtime.flags)
    asked = request(key=KEY, note="once")
    ops = audit_directory(repo)
    path = ops / name if name == "intents.jsonl" else ops / "telemetry" / name
    with client_of(agent) as client:
        with append_lock(path):
            under_way = client.future(asked)
            client.wait_for_state(KEY, FINISHED)
            if name != "intents.jsonl":
                wait_for(lambda: audit_of(repo).of(KEY), what="the first row")
            kill(agent)
        assert under_way.exception() is not None
    assert len(audit_of(repo).of(KEY)) < 3

    agent = start(*runtime.flags)
    wait_for_audit(repo, "executed_unconfirmed")
    outcome = asked_again(agent, asked)
    assert (outcome.status, outcome.replayed) == (UNCONFIRMED, True)
    assert len(runtime.calls) == 1
    wait_for_audit(repo, "executed_unconfirmed")


def test_killed_at_any_moment_executes_at_most_once_and_tells_the_truth(
    repo: Repo, runtime: Runtime, start: StartAgent
) -> None:
    """Kills at delays over the time that a request takes; each agent also answers for its predecessor."""
    words = {UNCONFIRMED: "executed_unconfirmed", AMBIGUOUS: "ambiguous"}
    # Nothing done yet, and all done: both must have been met, and what lies between is met on the way.
    ends = {(UNCONFIRMED, False), (UNCONFIRMED, True)}
    seen: set[tuple[int, bool]] = set()
    agent = start(*runtime.flags)
    for step in range(60):
        if step >= 16 and ends <= seen:
            break
        asked = request(key=f"key-{step}", note=f"step {step}", confirmation=SKIP)
        with client_of(agent) as client:
            client.ask(request(key=f"warm-{step}"))
            began = time.monotonic()
            client.ask(request(key=f"measured-{step}"))
            took = time.monotonic() - began
            runtime.does("")
            under_way = client.future(asked)
            time.sleep(took * (step % 8) / 5 * (1 + step // 16))
            kill(agent)
            answered = under_way.exception() is None

        agent = start(*runtime.flags)
        outcome = asked_again(agent, asked)
        assert len(runtime.calls) <= 1
        seen.add((outcome.status, outcome.replayed))
        if answered:
            assert outcome.replayed
        if outcome.status == UNCONFIRMED:
            assert len(runtime.calls) == 1
        else:
            assert (outcome.status, outcome.reason) == (AMBIGUOUS, "control_interrupted")
            assert outcome.replayed
        wait_for_audit(repo, words[outcome.status], asked.idempotency_key)
    assert ends <= seen


def test_agent_is_ready_though_much_is_left_to_settle(
    repo: Repo, runtime: Runtime, start: StartAgent
) -> None:
    """An agent that settles what another left serves meanwhile."""
    runtime.does(runtime.waits())
    for number in range(20):
        repo.loop(f"loop-{number}", event(1))
    agent = start(*runtime.flags)
    with client_of(agent) as client:
        calls = [client.future(request(key=f"key-{n}", loop_id=f"loop-{n}")) for n in range(20)]
        wait_for(lambda: len(runtime.calls) == 20, what="the commands to run")
        kill(agent)
        assert all(call.exception() is not None for call in calls)
    runtime.go()
    agent = start(*runtime.flags)
    with client_of(agent) as client:
        for number in range(20):
            client.wait_for_state(f"key-{number}", FINISHED)
            outcome = client.invocation(f"key-{number}").outcome
            assert (outcome.status, outcome.reason) == (AMBIGUOUS, "control_interrupted")


def _is_locked(path: Path) -> bool:
    """Whether somebody holds a lock on a file, without taking it."""
    inode = path.stat().st_ino
    return any(
        line.split()[-3].endswith(f":{inode}") for line in Path("/proc/locks").read_text().splitlines()
    )
