"""From an operator's decision to the spans of the runtime that obeys it: real programs, over gRPC."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness.agents import ROOT, TOKEN, Agent, StartAgent, environment
from tests.harness.loops import LoopFiles, Repo, event
from tests.harness.manager import command, run
from tests.harness.traced_runtime import OPERATIONS, await_approval, make_runtime
from tests.harness.waiting import wait_for

Span = dict[str, Any]
APPROVE = ("control", "--loop", "alpha", "--intent", "approve", "--trace-id", "op-1", "--by", "ana")


@pytest.fixture
def loop(repo: Repo) -> LoopFiles:
    """A loop that waits for an approval."""
    loop = repo.loop(data=event(1, "iteration_start"))
    await_approval(loop)
    return loop


@pytest.fixture
def operator(tmp_path: Path) -> Path:
    """The operator's own repository."""
    return Repo(tmp_path / "operator").root


def service(agent: Agent, operator: Path, url: str = "") -> tuple[str, ...]:
    return (
        *("--repo", str(operator), "--transport", "sprite_service"),
        *("--service-base-url", url or agent.url, "--service-token", TOKEN),
    )


def spans_in(path: Path) -> list[Span]:
    """All lines of a trace file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def find(document: Any, wanted: Callable[[Any], bool]) -> list[Any]:
    """All objects of a document, however deep, that are wanted."""
    members: list[Any] = []
    if isinstance(document, dict):
        members = list(document.values())
    elif isinstance(document, list):
        members = document
    deeper = [found for member in members for found in find(member, wanted)]
    return [document, *deeper] if isinstance(document, dict) and wanted(document) else deeper


def test_approving_over_grpc_shows_the_spans_of_the_runtime_under_the_intent(
    start: StartAgent, loop: LoopFiles, operator: Path, tmp_path: Path
) -> None:
    runtime = make_runtime(tmp_path / "runtime", loop)
    agent = start("--runtime-command", str(runtime))
    approved = run(*APPROVE, *service(agent, operator))
    assert (approved.code, approved.documents[0]["status"]) == (0, "confirmed"), approved.err
    assert run("reconcile", "--loop", "alpha", *service(agent, operator)).code == 0

    found = run("trace", "op-1", "--repo", str(operator))
    assert found.code == 0, found.err
    (tree,) = found.documents
    intents = find(tree, lambda node: node.get("kind") == "intent")
    assert len(intents) == 1, found.out
    spans = find(intents[0], lambda node: node.get("kind") == "span")
    operations = Counter(span["detail"]["operation"] for span in spans)
    assert operations == OPERATIONS, found.out


@pytest.mark.parametrize("edge", ["grpc", "http"])
def test_request_through_threads_tasks_and_two_processes_is_one_tree(
    start: StartAgent, loop: LoopFiles, operator: Path, tmp_path: Path, edge: str
) -> None:
    runtime, trace = make_runtime(tmp_path / "runtime", loop), tmp_path / "trace.jsonl"
    variables = {"DOPEJAR_TRACE": "1", "DOPEJAR_TRACE_FILE": str(trace)}
    words = ["env", *(f"{name}={value}" for name, value in variables.items())]
    flags = ("--runtime-command", str(runtime), "--http", "127.0.0.1:0")
    agent = start(*flags, under=lambda given: [*words, *given])
    done = subprocess.run(
        command(*APPROVE, *service(agent, operator, agent.url if edge == "grpc" else agent.http_url)),
        capture_output=True,
        env=environment() | variables,
        cwd=ROOT,
        check=True,
    )
    assert json.loads(done.stdout)["status"] == "confirmed"
    assert done.stderr == b""
    asked = {"grpc": "ApprovePending", "http": "/ops/control"}[edge]
    wait_for(lambda: asked in trace.read_text(), what="the agent's last span of the request")

    spans = {span["trace_id"]: span for span in spans_in(trace)}
    assert TOKEN not in trace.read_text()
    (gate,) = (span for span in spans.values() if span["operation"] == "gate_check")
    assert way_up(spans, gate) == [
        *("gate_check", "runtime", "execute"),  # the runtime's own, and the agent's
        *("rpc", "deliver", "control", "command"),
    ]
    tree = below(spans, way_to_root(spans, gate)[-1])
    assert not Counter(OPERATIONS) - Counter(span["operation"] for span in tree)
    # Whatever else the agent traced is its own life.
    others = [span for span in spans.values() if span not in tree]
    assert [span["operation"] for span in others] == ["start"]
    leaf = next(span for span in tree if span["operation"] == "pattern_match")
    assert viewed(trace, leaf["trace_id"]) == {span["trace_id"] for span in tree}


def way_to_root(spans: dict[str, Span], span: Span) -> list[Span]:
    way = [span]
    while way[-1]["parent_id"] is not None:
        way.append(spans[way[-1]["parent_id"]])
    return way


def way_up(spans: dict[str, Span], span: Span) -> list[str]:
    """The operations from a span to its root."""
    return [found["operation"] for found in way_to_root(spans, span)]


def below(spans: dict[str, Span], root: Span) -> list[Span]:
    return [span for span in spans.values() if way_to_root(spans, span)[-1] is root]


def viewed(trace: Path, trace_id: str) -> set[str]:
    """The ids that the viewer shows of the tree of one."""
    words = ("--file", str(trace), "--trace-id", trace_id, "--output", "json")
    done = subprocess.run(
        [sys.executable, "-m", "spritemesh.tracing.viewer", *words],
        capture_output=True,
        env=environment(),
        cwd=ROOT,
        check=True,
    )
    return {span["event"]["trace_id"] for span in json.loads(done.stdout)["spans"]}
