"""Our own programs trace themselves: what they tell, where, and that nobody notices who did not ask."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spritemesh.tracing import tracer
from tests.harness.agents import ROOT, TOKEN, StartAgent, environment
from tests.harness.control import Runtime
from tests.harness.live_fleet import Fleet, entry
from tests.harness.loops import LoopFiles, Repo, events
from tests.harness.manager import Ran, run
from tests.harness.waiting import wait_for

Span = dict[str, Any]


@pytest.fixture
def loop(repo: Repo) -> LoopFiles:
    """A loop that runs."""
    repo.put("state.json", {"active": True, "current_loop_id": "alpha"})
    return repo.loop(data=events(1, 3))


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Path]:
    """Where commands that run in this process trace to."""
    path = tmp_path / "here.jsonl"
    tracer.configure(enabled=True, output=path)
    yield path
    tracer.close()


def traced(path: Path, *words: str, **variables: str) -> tuple[Ran, list[Span]]:
    """Run a command in this process, and read what it traced."""
    path.write_text("")
    ran = run(*words, DOPEJAR_TRACE="1", **variables)
    assert tracer.flush()
    return ran, spans_in(path)


def spans_in(path: Path) -> list[Span]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def command_in(directory: Path, *words: str, **variables: str) -> Ran:
    """Run a command as a process of its own there."""
    directory.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "manager", *words],
        capture_output=True,
        text=True,
        env={**environment(), "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}", **variables},
        cwd=directory,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def shape(spans: list[Span]) -> dict[str, str]:
    """Operation -> operation of its parent, "" for a root."""
    names = {span["trace_id"]: span["operation"] for span in spans}
    return {span["operation"]: names.get(span["parent_id"], "") for span in spans}


def only(spans: list[Span], operation: str) -> Span:
    (span,) = (span for span in spans if span["operation"] == operation)
    return span


@pytest.mark.parametrize("before", [True, False])
def test_flag_shows_the_tree_on_standard_error_and_changes_nothing_else(
    loop: LoopFiles, repo: Repo, tmp_path: Path, before: bool
) -> None:
    words = ("threshold-profile", "--output", "json")
    traced_words = ("--trace", *words) if before else (*words, "--trace")
    told = command_in(tmp_path / "there", *traced_words)
    assert (told.code, told.out) == run(*words)[:2]
    assert "[sys] command: threshold-profile" in told.err
    spans = spans_in(tmp_path / "there" / "trace.jsonl")
    assert shape(spans) == {"command": ""}
    assert only(spans, "command")["component"] == "ops-manager"


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_error_stays_the_last_line_below_the_tree(tmp_path: Path, command: str) -> None:
    """Of a command that ends by it, and of one that says it and goes on to its end."""
    words = ("--repo", str(tmp_path), "--loop", "alpha", "--service-base-url", "http://127.0.0.1:1")
    told = command_in(tmp_path / "there", "--trace", command, *words[: 4 if command == "status" else 6])
    assert told.code == 1
    *_, above, last = told.err.splitlines()
    assert above.startswith(f"[sys] command: {command}")
    assert last.startswith("error: ")


def test_variable_alone_traces_in_silence(loop: LoopFiles, repo: Repo, tmp_path: Path) -> None:
    words = ("reconcile", "--repo", str(repo.root), "--loop", "alpha", "--trace-id", "op-1")
    told = command_in(tmp_path / "there", *words, DOPEJAR_TRACE="1")
    assert (told.code, told.err) == (0, "")
    spans = spans_in(tmp_path / "there" / "trace.jsonl")
    assert shape(spans) == {
        "command": "",
        "reconcile": "command",
        "alerts": "command",
        "fetch": "reconcile",
        "observe": "reconcile",
        "commit": "reconcile",
    }
    assert {span["hrm_layer"] for span in spans} == {"system"}
    assert {span["status"] for span in spans} == {"success"}
    assert only(spans, "fetch")["output_summary"] == "3 events"
    assert only(spans, "reconcile")["metadata"]["ops_trace_id"] == "op-1"


def test_untraced_command_leaves_no_file_and_loads_no_tracer(
    loop: LoopFiles, repo: Repo, tmp_path: Path
) -> None:
    directory = tmp_path / "there"
    directory.mkdir()
    script = (
        "import sys; from manager.cli import main; main(sys.argv[1:]);"
        "print([name for name in sys.modules if name.startswith('spritemesh.tracing')])"
    )
    words = ("reconcile", "--repo", str(repo.root), "--loop", "alpha")
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True,
        text=True,
        env={**environment(), "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"},
        cwd=directory,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert not list(directory.iterdir())


def test_help_of_every_program_tells_the_flag() -> None:
    assert "--trace" in run("reconcile", "--help").out


def test_refusal_is_blocked_and_names_its_reason(loop: LoopFiles, repo: Repo, trace: Path) -> None:
    words = ("control", "--repo", str(repo.root), "--loop", "alpha", "--intent", "approve")
    ran, spans = traced(trace, *words, "--require-pending", "--runtime-command", "/bin/true")
    assert ran.code == 1
    assert shape(spans) == {"command": "", "control": "command", "execute": "control"}
    for span in spans:
        assert (span["status"], span["metadata"]["reason"]) == ("blocked", "nothing_pending")


def test_failure_is_an_error_and_names_its_reason(loop: LoopFiles, repo: Repo, trace: Path) -> None:
    loop.append(b"no event\n")
    ran, spans = traced(trace, "reconcile", "--repo", str(repo.root), "--loop", "alpha")
    assert ran.code == 1
    told = {span["operation"]: (span["status"], span["metadata"].get("reason")) for span in spans}
    assert told["fetch"] == ("error", "invalid_json_line")
    assert told["reconcile"] == ("error", "snapshot_unavailable")


def test_control_tells_its_steps_and_neither_note_nor_output(
    loop: LoopFiles, repo: Repo, trace: Path, tmp_path: Path
) -> None:
    runtime = Runtime(tmp_path / "runtime")
    runtime.does("echo said in confidence; exit 3")
    words = ("control", "--repo", str(repo.root), "--loop", "alpha", "--intent", "cancel")
    more = ("--note", "why in confidence", "--runtime-command", str(runtime.path))
    ran, spans = traced(trace, *words, *more)
    assert ran.code == 1
    assert shape(spans) == {
        "command": "",
        "control": "command",
        "execute": "control",
        "record": "execute",
        "runtime": "execute",
    }
    step = only(spans, "runtime")
    assert (step["status"], step["output_summary"]) == ("error", "exit code 3")
    assert only(spans, "control")["metadata"]["reason"] == "control_failed_command"
    assert "in confidence" not in trace.read_text()


def test_manager_tells_of_sessions_that_come_and_go(
    loop: LoopFiles, start: StartAgent, tmp_path: Path
) -> None:
    trace = tmp_path / "manager.jsonl"
    words = ["env", "DOPEJAR_TRACE=1", f"DOPEJAR_TRACE_FILE={trace}"]
    agent, fleet = start(), Fleet(tmp_path / "manager")
    try:
        fleet.register(entry("alpha", agent.url))
        manager = fleet.start(under=lambda given: [*words, *given])
        manager.wait_for_line("alpha", 3)
        agent.signal(signal.SIGKILL)

        def lost() -> list[Span]:
            return [span for span in spans_in(trace) if span["operation"] == "lost"]

        (span,) = wait_for(lost, what="the end of the session to be told")
        assert (span["status"], span["metadata"]["loop_id"]) == ("error", "alpha")
        assert span["metadata"]["reason"] in {"agent_unreachable", "stream_broken"}
        assert manager.stop() == 0
        told = [found["operation"] for found in spans_in(trace)]
        assert [name for name in told if name != "alerts"] == ["start", "connect", "lost", "stop"]
        assert TOKEN not in trace.read_text()
    finally:
        fleet.close()
