"""`control`, the same in the repository and through an agent: rows, replays, refusals, lost connections."""

import hashlib
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from manager.transport import delivery
from spritemesh import traceindex
from spritemesh.values import get
from superloop.ops.v1 import control_pb2 as pb
from tests.harness.agents import Agent, StartAgent
from tests.harness.control import Audit, Runtime, audit_of, client_of, wait_until_noted
from tests.harness.loops import LoopFiles, Repo, event
from tests.harness.manager import Ran, Running, run
from tests.harness.waiting import wait_for

QUICK = ("--retry-backoff-seconds", "0")
LOOK_ONCE = ("--timeout-seconds", "0")
HOLDS = ("--intent", "cancel", "--no-confirm")


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(tmp_path / "runtime")


@pytest.fixture
def loop(repo: Repo) -> LoopFiles:
    """A loop that runs."""
    repo.put("state.json", {"active": True, "current_loop_id": "alpha"})
    return repo.loop(data=event(1, "iteration_start"))


class Way(NamedTuple):
    """One way to control the loop. keeps: the repository with the rows of the manager."""

    words: tuple[str, ...]
    variables: dict[str, str]
    keeps: Repo

    def control(self, *words: str) -> Ran:
        return run("control", *self.words, "--loop", "alpha", *words, **self.variables)

    def audit(self) -> Audit:
        return audit_of(self.keeps)


OpenWay = Callable[..., Way]
looks_once = pytest.mark.parametrize("way", ["local", "grpc"], indirect=True)


@pytest.fixture(params=["local", "grpc", "http"])
def way(request: pytest.FixtureRequest, loop: LoopFiles, runtime: Runtime, repo: Repo) -> Way:
    if request.param == "local":
        return Way(("--repo", str(repo.root)), {"SUPERLOOP_BIN": str(runtime.path)}, repo)
    open_way: OpenWay = request.getfixturevalue("through")
    start: StartAgent = request.getfixturevalue("start")
    agent = start(*runtime.flags, "--http", "127.0.0.1:0")
    return open_way(agent) if request.param == "grpc" else open_way(agent.http_url, agent.token)


@pytest.fixture
def through(tmp_path: Path) -> OpenWay:
    """Opens ways through an agent, or to an address; the manager's rows are kept apart from the agent's."""

    def open_way(agent: Agent | str, token: str = "") -> Way:
        url = agent if isinstance(agent, str) else agent.url
        token = token or ("any" if isinstance(agent, str) else agent.token)
        words = ("--transport", "sprite_service", "--service-base-url", url, "--service-token", token)
        return Way(("--repo", str(managers.root), *words), {}, managers)

    managers = Repo(tmp_path / "manager")
    return open_way


def cancels(repo: Repo) -> str:
    """What a runtime does when it cancels."""
    return f"rm -f '{repo.root}/.superloop/state.json'"


def answer_of(row: dict[str, Any]) -> Any:
    """The row of the side where the runtime ran."""
    return json.loads(row["commandOutput"])["result"] if row["transport"] == "sprite_service" else row


def wait_for_approval(loop: LoopFiles) -> None:
    loop.put("approval.json", {"status": "pending", "run_id": "run-1", "iteration": 1, "candidate": {}})


# --- what is done and written --------------------------------------------------------------------------


def test_confirmed_intent_is_printed_and_audited(way: Way, repo: Repo, runtime: Runtime) -> None:
    runtime.does(cancels(repo), "echo done")
    ran = way.control(
        "--intent", "cancel", "--idempotency-key", "key-1", "--trace-id", "trace-1", "--by", "op"
    )
    assert (ran.code, ran.err) == (0, "")
    [row] = ran.documents
    assert (row["status"], row["confirmed"], row["exitCode"]) == ("confirmed", True, 0)
    assert (row["idempotencyKey"], row["traceId"], row["requestedBy"]) == ("key-1", "trace-1", "op")
    told = answer_of(row)
    assert (told["commandOutput"], told["confirm"]["reason"]) == ("done", "inactive_not_running")
    audit = way.audit()
    assert audit.intents == [row]
    assert audit.of("key-1") == ["confirmed"] * 3
    assert audit.invocations[0]["execution"]["replayed"] is False
    assert runtime.calls == [f"cancel --repo {repo.root}"]


# Through HTTP the times of the search cannot be set (contract D.3): it would take 30 s.
@looks_once
def test_effect_that_does_not_come_is_ambiguous(way: Way) -> None:
    ran = way.control("--intent", "cancel", *LOOK_ONCE)
    assert (ran.code, ran.err) == (2, "")
    assert ran.documents[0]["status"] == "ambiguous"


def test_command_that_fails_is_an_outcome(way: Way, runtime: Runtime) -> None:
    runtime.does("echo 'cannot do that' >&2", "exit 9")
    ran = way.control("--intent", "cancel")
    assert (ran.code, ran.err) == (1, "")
    told = answer_of(ran.documents[0])
    assert (told["status"], told["exitCode"], told["commandOutput"]) == (
        "failed_command",
        9,
        "cannot do that",
    )


def test_same_key_runs_once_and_tells_the_same_again(way: Way, repo: Repo, runtime: Runtime) -> None:
    runtime.does(cancels(repo))
    words = ("--intent", "cancel", "--idempotency-key", "key-1")
    first, second = way.control(*words), way.control(*words)
    assert (first.code, second.code, len(runtime.calls)) == (0, 0, 1)
    told, again = (answer_of(ran.documents[0]) for ran in (first, second))
    assert {**told, "timestamp": ""} == {**again, "timestamp": ""}
    audit = way.audit()
    assert [row["execution"]["replayed"] for row in audit.invocations] == [False, True]
    assert audit.intents == [*first.documents, *second.documents]


def test_key_is_made_when_none_is_given(way: Way, runtime: Runtime) -> None:
    first, second = way.control(*HOLDS), way.control(*HOLDS)
    keys = {ran.documents[0]["idempotencyKey"] for ran in (first, second)}
    assert (len(keys), len(runtime.calls)) == (2, 2)
    assert all(key.startswith("cancel-") for key in keys)


def test_operator_is_the_user_unless_told_otherwise(way: Way) -> None:
    named = way._replace(variables={**way.variables, "USER": "ana"})
    assert named.control(*HOLDS).documents[0]["requestedBy"] == "ana"
    assert named.control(*HOLDS, "--by", "").documents[0]["requestedBy"] == ""
    nobody = way._replace(variables={**way.variables, "USER": ""})
    assert nobody.control(*HOLDS).documents[0]["requestedBy"] == "unknown"


def test_trace_id_reaches_the_runtime_from_flag_or_environment(way: Way, runtime: Runtime) -> None:
    runtime.does('echo "$OPS_MANAGER_TRACE_ID"')
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    outer = way._replace(variables={**way.variables, "TRACEPARENT": parent})
    ran = outer.control(*HOLDS)
    assert ran.documents[0]["traceId"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert answer_of(ran.documents[0])["commandOutput"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    inner = outer._replace(variables={**outer.variables, "OPS_MANAGER_TRACE_ID": "own"})
    assert inner.control(*HOLDS).documents[0]["traceId"] == "own"
    assert inner.control(*HOLDS, "--trace-id", "flag").documents[0]["traceId"] == "flag"
    for intent in ("approve", "reject"):
        ran = way.control("--intent", intent, "--no-confirm", "--trace-id", f"to {intent}")
        assert answer_of(ran.documents[0])["commandOutput"] == f"to {intent}"


def test_intent_is_found_by_its_trace_id(way: Way) -> None:
    way.control(*HOLDS, "--trace-id", "trace-1", "--idempotency-key", "key-1")
    entries = traceindex.find(str(way.keeps.root), "trace-1").entries
    [intent] = [entry for entry in entries if entry.kind == "intent"]
    assert (intent.loop_id, intent.status) == ("alpha", "executed_unconfirmed")
    assert (way.keeps.root / intent.file).is_file()
    assert get(intent.detail, "idempotencyKey") == "key-1"


def test_person_reads_what_confirmed_it(way: Way, repo: Repo, runtime: Runtime) -> None:
    runtime.does(cancels(repo), "echo done")
    ran = way.control("--intent", "cancel", "--output", "table")
    assert (ran.code, ran.err) == (0, "")
    for words in ("cancel alpha", "confirmed", "done", "cancel-"):
        assert words in ran.out
    # v1's answer over HTTP has no member for the effect.
    over_http = any(word.startswith("http:") for word in way.words)
    assert (".superloop/state.json" in ran.out) is not over_http


@looks_once
def test_person_reads_why_it_is_ambiguous_and_what_to_do(way: Way) -> None:
    ran = way.control("--intent", "cancel", *LOOK_ONCE, "--output", "table")
    assert ran.code == 2
    assert "control_ambiguous" in ran.out
    assert "Look at the loop before doing it again" in " ".join(ran.out.split())


# --- what is refused -----------------------------------------------------------------------------------


def refused(way: Way, runtime: Runtime, reason: str, *words: str) -> None:
    """Nothing is run or printed, and the audit says why."""
    calls, before = len(runtime.calls), way.audit()
    ran = way.control(*words)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: ")
    assert ran.err.endswith(f"[{reason}]\n")
    audit = way.audit()
    assert (len(runtime.calls), audit.intents, audit.control) == (calls, before.intents, before.control)
    [row] = audit.invocations[len(before.invocations) :]
    assert (row["outcome"]["status"], row["outcome"]["reasonCode"]) == ("refused", reason)


def test_key_of_another_request_is_refused(way: Way, runtime: Runtime) -> None:
    way.control(*HOLDS, "--idempotency-key", "key-1")
    refused(way, runtime, "idempotency_key_conflict", *HOLDS, "--idempotency-key", "key-1", "--note", "other")


def test_run_that_the_operator_did_not_see_is_left_alone(way: Way, runtime: Runtime) -> None:
    refused(way, runtime, "target_changed", *HOLDS, "--expect-run-id", "another")


def test_approval_that_the_operator_did_not_see_is_not_decided(
    way: Way, loop: LoopFiles, runtime: Runtime
) -> None:
    wait_for_approval(loop)
    refused(way, runtime, "target_changed", "--intent", "approve", "--expect-approval", "another")
    seen = run("loop-run-snapshot", *way.words[:2], "--loop", "alpha", "--output", "table")
    if way.words[2:]:
        seen = run(
            "loop-run-snapshot", *way.words[:2], *way.words[4:], "--loop", "alpha", "--output", "table"
        )
    [approval] = [line.split()[2] for line in seen.out.splitlines() if line.startswith("pending ")]
    ran = way.control("--intent", "approve", "--no-confirm", "--expect-approval", approval)
    assert (ran.code, ran.err) == (0, "")


def test_decision_is_told_again_though_what_it_named_is_gone_by_then(
    way: Way, loop: LoopFiles, runtime: Runtime
) -> None:
    loop.put("approval.json", {"status": "pending"})
    seen = hashlib.sha256((loop.directory / "approval.json").read_bytes()).hexdigest()
    words = ("--intent", "approve", "--no-confirm", "--expect-approval", seen, "--idempotency-key", "once")
    assert way.control(*words).code == 0
    (loop.directory / "approval.json").unlink()
    assert way.control(*words).code == 0
    assert way.audit().invocations[-1]["execution"]["replayed"] is True
    assert len(runtime.calls) == 1


def test_loop_that_does_not_run_is_not_cancelled_while_another_does(
    way: Way, repo: Repo, runtime: Runtime
) -> None:
    repo.put("state.json", {"active": True, "current_loop_id": "beta"})
    refused(way, runtime, "other_loop_active", *HOLDS)


def test_nothing_runs_when_the_audit_cannot_be_written(way: Way, runtime: Runtime) -> None:
    (way.keeps.root / ".superloop" / "ops-manager" / "alpha" / "intents.jsonl").mkdir(parents=True)
    ran = way.control(*HOLDS)
    assert (ran.code, ran.out, runtime.calls) == (1, "", [])
    assert ran.err.endswith("[audit_unavailable]\n")


# --- programs and agents that are not there ------------------------------------------------------------


def test_runtime_that_is_not_there_has_its_reason_and_gives_its_key_back(way: Way, runtime: Runtime) -> None:
    hidden = runtime.path.with_name("hidden")
    runtime.path.rename(hidden)
    words = (*HOLDS, "--idempotency-key", "key-1")
    ran = way.control(*words)
    assert ran.code == 1
    assert ran.err == ""
    answer = answer_of(ran.documents[0])
    assert answer["exitCode"] == 127
    assert answer["commandOutput"].endswith("[runtime_not_found]")
    hidden.rename(runtime.path)
    again = way.control(*words)
    assert (again.code, len(runtime.calls)) == (0, 1)


def nobody_there() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"grpc://127.0.0.1:{server.getsockname()[1]}"


def test_agent_that_is_not_there_is_the_failure_of_v1_with_its_reason(through: OpenWay) -> None:
    way = through(nobody_there())
    ran = way.control("--intent", "cancel", "--idempotency-key", "key-1", *QUICK)
    assert ran.code == 1
    assert ran.err.endswith("[agent_unreachable]\n")
    [row] = ran.documents
    assert (row["status"], row["exitCode"], row["commandOutput"]) == ("failed_command", 1, "{}")
    assert way.audit().of("key-1") == ["failed_command"] * 3


def test_wrong_token_is_the_failure_of_v1_with_its_reason(
    loop: LoopFiles, through: OpenWay, start: StartAgent, runtime: Runtime
) -> None:
    way = through(start(*runtime.flags), token="wrong")
    ran = way.control("--intent", "cancel", "--idempotency-key", "key-1")
    assert (ran.code, runtime.calls) == (1, [])
    assert ran.err.endswith("[token_wrong]\n")
    assert way.audit().of("key-1") == ["failed_command"] * 3


def test_runtime_that_takes_longer_than_a_request_is_waited_for(
    way: Way, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repetition joins it."""
    monkeypatch.setattr(delivery, "COMMAND_SECONDS", 0.3)
    runtime.does("sleep 0.8")
    ran = way.control(*HOLDS, *QUICK, "--retry-attempts", "30", "--idempotency-key", "key-1")
    assert (ran.code, ran.err, len(runtime.calls)) == (0, "", 1)
    assert way.audit().of("key-1") == ["executed_unconfirmed"] * 3


# --- lost connections ----------------------------------------------------------------------------------


def running(way: Way, *words: str) -> Running:
    return Running("control", *way.words, "--loop", "alpha", *words)


def test_agent_that_dies_in_mid_call_and_comes_back_is_asked_with_the_same_key(
    repo: Repo, loop: LoopFiles, through: OpenWay, start: StartAgent, runtime: Runtime
) -> None:
    runtime.does(runtime.waits())
    first = start(*runtime.flags)
    way = through(first)
    command = running(way, *HOLDS, "--idempotency-key", "key-1", "--retry-attempts", "9")
    try:
        runtime.wait_until_it_runs()
        wait_until_noted(repo, "key-1")
        first.signal(signal.SIGKILL)
        first.wait()
        second = start(*runtime.flags, grpc_at=first.address)
        with client_of(second) as client:
            client.wait_for_state("key-1", pb.INVOCATION_STATE_STARTED)
        runtime.go()  # the command outlived the agent
        ran = command.end()
    finally:
        runtime.go()
        command.close()
    assert ran.code == 2
    assert ran.err.endswith("[control_interrupted]\n")
    [row] = ran.documents
    assert (row["status"], answer_of(row)["status"]) == ("ambiguous", "ambiguous")
    assert len(runtime.calls) == 1
    assert way.audit().of("key-1") == ["ambiguous"] * 3


def test_agent_that_dies_in_mid_call_for_good_leaves_doubt_and_names_the_key(
    loop: LoopFiles, through: OpenWay, start: StartAgent, runtime: Runtime
) -> None:
    runtime.does(runtime.waits())
    agent = start(*runtime.flags)
    way = through(agent)
    command = running(way, *HOLDS, "--idempotency-key", "key-1", *QUICK)
    try:
        runtime.wait_until_it_runs()
        agent.signal(signal.SIGKILL)
        ran = command.end()
    finally:
        runtime.go()
        command.close()
    assert ran.code == 2
    assert ran.err.endswith("--idempotency-key key-1 [agent_unreachable]\n")
    [row] = way.audit().invocations
    assert (row["outcome"]["status"], row["execution"]["status"]) == ("ambiguous", "unknown")
    assert row["execution"]["reasonCode"] == "agent_unreachable"


def test_operator_who_does_not_wait_leaves_a_row_of_doubt(
    loop: LoopFiles, through: OpenWay, start: StartAgent, runtime: Runtime
) -> None:
    runtime.does(runtime.waits())
    way = through(start(*runtime.flags))
    command = running(way, *HOLDS, "--idempotency-key", "key-1")
    try:
        runtime.wait_until_it_runs()
        ran = command.end(signal.SIGINT)
    finally:
        runtime.go()
        command.close()
    assert ran.code == 130
    assert way.audit().of("key-1") == ["ambiguous"] * 3
    # The agent goes on, and the key tells of it.
    again = wait_for(lambda: way.control(*HOLDS, "--idempotency-key", "key-1"))
    assert (again.code, len(runtime.calls)) == (0, 1)


def test_unix_socket_is_a_way_as_any_other(
    socket_path: Path, loop: LoopFiles, through: OpenWay, start: StartAgent, runtime: Runtime
) -> None:
    agent = start(*runtime.flags, grpc_at=f"unix://{socket_path}")
    ran = through(agent).control(*HOLDS)
    assert ran.code == 0
    assert ran.documents[0]["command"] == f"POST {agent.url}/ops/control"
