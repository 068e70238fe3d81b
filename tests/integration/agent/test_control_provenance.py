"""Who connected stands in every record of a control request, whichever way it came."""

import json
from pathlib import Path
from typing import Any

import pytest

from manager.audit_check import check
from sprite_agent.connected import connected_document, local_user
from sprite_agent.provenance import token_id
from spritemesh import traceindex
from spritemesh.audit import audit_files
from tests.harness.agents import TOKEN, Agent, StartAgent
from tests.harness.control import Runtime, audit_directory, client_of, refusals_of, request
from tests.harness.http import WITH_TOKEN, ask, post
from tests.harness.loops import LoopFiles, Repo, event
from tests.harness.manager import run


@pytest.fixture
def agent(start: StartAgent, repo: Repo, loop: LoopFiles, runtime: Runtime) -> Agent:
    """With both edges, and a loop whose runtime does nothing."""
    loop.append(event(1))
    return start("--http", "127.0.0.1:0", *runtime.flags)


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(tmp_path / "runtime")


def chained(repo: Repo) -> list[dict[str, Any]]:
    """The rows of the chain, which is whole."""
    paths = audit_files(str(audit_directory(repo))).chained
    found = check(paths)
    assert (found.fault, found.notes) == (None, [])
    with open(paths.chain, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def is_ours(connected: dict[str, Any], edge: str) -> bool:
    """Whether it tells of this test, with the agent's token, through an edge; and of nothing else."""
    host, _, port = connected["address"].rpartition(":")
    assert (host, port.isdigit()) == ("127.0.0.1", True)
    return connected == {"edge": edge, "tokenId": token_id(TOKEN), "address": connected["address"]}


def test_each_edge_says_who_connected(agent: Agent, repo: Repo) -> None:
    with client_of(agent) as client:
        outcome = client.ask(request(key="key", trace_id="t-grpc"))
        told = outcome.provenance
        assert (told.edge, told.token_id, told.key_id, list(told.identities)) == (
            "grpc",
            token_id(TOKEN),
            "",
            [],
        )
        # Asked again, and asked for, it is that of the execution.
        again = client.ask(request(key="key", trace_id="other"))
        assert (again.replayed, again.provenance) == (True, told)
        assert client.invocation("key").outcome.provenance == told
    body = {"loopId": "alpha", "intent": "cancel", "by": "ana", "noConfirm": True, "traceId": "t-http"}
    assert ask(str(agent.ready["http"]), post("/ops/control", body, WITH_TOKEN)).status == 200
    rows = chained(repo)
    assert [is_ours(row["connected"], edge) for row, edge in zip(rows, ("grpc", "http"), strict=True)]
    assert rows[0]["connected"]["address"] == told.address
    assert [(row["requestedBy"], row["traceId"]) for row in rows] == [("op", "t-grpc"), ("ana", "t-http")]
    for edge, trace_id in (("grpc", "t-grpc"), ("http", "t-http")):
        [intent] = [
            step for step in traceindex.find(str(repo.root), trace_id).entries if step.kind == "intent"
        ]
        assert is_ours(intent.detail["connected"], edge)
    shown = run("trace", "t-grpc", "--repo", str(repo.root), "--output", "table").out
    assert told.address in " ".join(shown.split())


def test_a_manager_records_its_user_and_whom_the_agent_saw(agent: Agent, tmp_path: Path) -> None:
    keeps = Repo(tmp_path / "manager")
    service = ("--transport", "sprite_service", "--service-base-url", agent.url, "--service-token", TOKEN)
    words = ("--repo", str(keeps.root), "--loop", "alpha", "--intent", "cancel", "--no-confirm")
    ran = run("control", *words, *service, "--trace-id", "t", "--output", "table")
    assert ran.code == 0, ran.err
    assert "connected grpc 127.0.0.1:" in " ".join(ran.out.split())
    [row] = chained(keeps)
    user = connected_document(local_user())
    assert row["connected"] == user
    steps = {step.kind: step.detail for step in traceindex.find(str(keeps.root), "t").entries}
    assert steps["intent"]["connected"] == user
    assert is_ours(steps["invocation"]["connected"], "grpc")


def test_refusals_say_who_connected(agent: Agent, repo: Repo) -> None:
    """With the loop where there is one, else in refusals.jsonl; v1's own rows stay as they are."""
    for members in (
        {"intent": "cancel", "expectedRunId": "other"},
        {"loopId": "nowhere"},
        {"intent": "dance"},
    ):
        body = {"loopId": "alpha", "intent": "cancel", "by": "ana", "noConfirm": True} | members
        ask(str(agent.ready["http"]), post("/ops/control", body, WITH_TOKEN))
    for row in refusals_of(repo):
        assert row["transport"] == "http"
        assert is_ours({"edge": "http", **row["connected"]}, "http")
    assert len(refusals_of(repo)) == 2
    with open(audit_files(str(audit_directory(repo))).invocations, encoding="utf-8") as file:
        assert "connected" not in file.read()
    assert all(is_ours(row["connected"], "http") for row in chained(repo))
    assert TOKEN not in "".join(path.read_text() for path in repo.root.rglob("*.jsonl"))
