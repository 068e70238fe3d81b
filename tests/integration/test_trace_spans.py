"""The runtime's spans, stored by passes, and below the steps that caused them in `ops-manager trace`."""

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from manager.core.runtime_traces import TraceIntake
from manager.core.trace_spans import MAX_SPANS
from manager.store import loop_files
from manager.store.spans import spans_under
from spritemesh import files
from tests.harness.agents import TOKEN, StartAgent
from tests.harness.control import Runtime
from tests.harness.loops import Repo, events
from tests.harness.manager import Ran, command, run
from tests.harness.spans import BEGAN, append, span, span_id, spans


@pytest.fixture
def root(repo: Repo) -> Path:
    """A repository with one loop."""
    repo.loop(data=events(1, 3))
    return repo.root


def reconcile(root: Path, *words: str) -> Ran:
    found = run("reconcile", "--repo", str(root), "--loop", "alpha", "--alerts-enabled", "false", *words)
    assert found.code == 0, found.err
    return found


def stored(root: Path) -> list[str]:
    path = Path(loop_files(str(root), "alpha").runtime_traces)
    return [json.loads(line)["trace_id"] for line in path.read_bytes().splitlines()] if path.exists() else []


def ids(first: int, last: int) -> list[str]:
    return [span_id(number) for number in range(first, last + 1)]


def tree(root: Path, *words: str) -> Any:
    ran = run("trace", *words, "--repo", str(root))
    assert ran.code == 0, ran.err
    return ran.documents[0]


def shape(steps: list[Any]) -> list[Any]:
    """Kind, or of a span its operation, with what is below."""
    names = [step["detail"]["operation"] if step["kind"] == "span" else step["kind"] for step in steps]
    return [
        (name, shape(step["steps"])) if "steps" in step else name
        for name, step in zip(names, steps, strict=True)
    ]


# --- one pass -----------------------------------------------------------------------------------------


def test_pass_without_trace_files_leaves_no_file_of_theirs(root: Path) -> None:
    reconcile(root)
    paths = loop_files(str(root), "alpha")
    assert not Path(paths.runtime_traces).exists()
    assert not Path(paths.traces_cursor).exists()


@pytest.mark.parametrize("transport", ["local", "grpc"])
def test_passes_store_each_line_once(root: Path, start: StartAgent, tmp_path: Path, transport: str) -> None:
    words: tuple[str, ...] = ()
    if transport == "grpc":
        words = ("--transport", "sprite_service", "--service-base-url", start().url, "--service-token", TOKEN)
    # The manager's files stand beside those of the sprite only in a local pass.
    where = root if transport == "local" else tmp_path / "manager"
    where.mkdir(exist_ok=True)
    append(root / "trace.jsonl", spans(1, 700))
    append(root / ".superloop" / "loops" / "alpha" / "trace.jsonl", b"no event\n" + spans(701, 710))
    reconcile(where, *words)
    assert sorted(stored(where)) == ids(1, 710)
    append(root / "trace.jsonl", spans(711, 720))
    assert reconcile(where, *words).err == ""
    reconcile(where, *words)
    assert sorted(stored(where)) == ids(1, 720)


def test_pass_that_cannot_store_traces_says_so_and_succeeds(root: Path) -> None:
    append(root / "trace.jsonl", spans(1, 5))
    path = Path(loop_files(str(root), "alpha").runtime_traces)
    path.mkdir(parents=True)
    failed = reconcile(root)
    assert failed.err.startswith("warning: traces_unavailable: telemetry_unwritable: cannot write ")
    assert failed.documents
    path.rmdir()
    assert reconcile(root).err == ""
    assert stored(root) == ids(1, 5)


def test_pass_tells_of_a_damaged_cursor_and_reads_again(root: Path) -> None:
    append(root / "trace.jsonl", spans(1, 2))
    reconcile(root)
    Path(loop_files(str(root), "alpha").traces_cursor).write_text("{}")
    assert reconcile(root).err.startswith("warning: traces_unavailable: cursor_invalid: ")
    assert (reconcile(root).err, stored(root)) == ("", ids(1, 2) + ids(1, 2))


def test_defect_in_reading_traces_is_told_and_fails_no_pass(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(root / "trace.jsonl", spans(1, 2))
    monkeypatch.setattr(TraceIntake, "accept", lambda *_: 1 / 0)
    assert "internal_error: reading traces met a defect: ZeroDivisionError" in reconcile(root).err


def test_pass_leaves_traces_to_whoever_has_the_loop(root: Path) -> None:
    append(root / "trace.jsonl", spans(1, 5))
    reconcile(root)
    append(root / "trace.jsonl", spans(6, 9))
    from manager.runtime_traces import drain
    from manager.transport.local import LocalTransport

    paths = loop_files(str(root), "alpha")
    with files.locked_directory(paths.ops, wait_seconds=0):
        assert drain(paths, LocalTransport(str(root)), "alpha") is None
    assert stored(root) == ids(1, 5)


# --- the tree -----------------------------------------------------------------------------------------


def test_spans_of_a_runtime_command_stand_below_it(root: Path, tmp_path: Path) -> None:
    trace = root / "trace.jsonl"
    log = root / ".superloop/loops/alpha/events.jsonl"
    child = "rsn_1705180800_0000000000000002"
    lines = (
        # As two processes write them: each line when its span ends.
        '{"trace_id":"%s","parent_id":"alt_1705180800_01","timestamp":"%s","hrm_layer":"memory",'
        '"operation":"read","duration_ms":1,"status":"error","metadata":{"ops_trace_id":"'
        "$OPS_MANAGER_TRACE_ID"
        '","error_class":"KeyError","error_message":"k"}}\\n'
        '{"trace_id":"alt_1705180800_01","parent_id":null,"timestamp":"%s","hrm_layer":"altitude",'
        '"operation":"plan","component":"planner.py","input_summary":"ship it","duration_ms":5,'
        '"status":"success","metadata":{"ops_trace_id":"$OPS_MANAGER_TRACE_ID"}}\\n'
    )
    runtime = Runtime(tmp_path / "runtime")
    runtime.does(
        "now=$(date -u +%Y-%m-%dT%H:%M:%S.%6NZ)\n"
        f"cat >> {shlex.quote(str(trace))} <<END\n"
        + (lines % (child, "$now", "$now")).replace("\\n", "\n")
        + "END\n"
        + """echo '{"event":"loop_complete","timestamp":"2026-02-22T03:46:00Z"}' """
        + f">> {shlex.quote(str(log))}"
    )
    ran = run(
        *("control", "--repo", str(root), "--loop", "alpha", "--trace-id", "t1", "--intent", "cancel"),
        *("--idempotency-key", "k"),
        SUPERLOOP_BIN=str(runtime.path),
    )
    assert ran.code == 0, ran.err
    expected = [
        (
            "intent",
            [("invocation", [("runtime", [("plan", ["read"])]), ("confirmation", ["effect"])])],
        )
    ]
    # From the sprite's own file, and from what a pass has stored.
    found = tree(root, "t1", "--loop", "alpha")
    assert shape(found["steps"]) == expected
    assert (found["stepCount"], found["spanCount"]) == (5, 2)
    reconcile(root)
    trace.unlink()
    assert shape(tree(root, "t1", "--loop", "alpha")["steps"]) == expected
    plan = found["steps"][0]["steps"][0]["steps"][0]["steps"][0]
    assert plan["detail"] == {
        "spanId": "alt_1705180800_01",
        "layer": "altitude",
        "operation": "plan",
        "component": "planner.py",
        "input": "ship it",
    }
    assert (plan["status"], plan["loopId"], plan["durationSeconds"]) == ("success", "alpha", 0.005)
    shown = run("trace", "t1", "--repo", str(root), "--output", "table").out
    assert "[alt] plan: ship it" in shown
    assert "error_class=KeyError" in shown


def test_span_id_shows_its_whole_tree(root: Path) -> None:
    append(root / "trace.jsonl", span(3, parent=2) + span(2, parent=1) + span(9) + span(1))
    found = tree(root, span_id(2))
    assert found["traceId"] == span_id(1)
    (top,) = found["steps"]
    assert top["detail"]["spanId"] == span_id(1)
    assert top["steps"][0]["steps"][0]["detail"]["spanId"] == span_id(3)
    assert found["spanCount"] == 3
    assert run("trace", span_id(4), "--repo", str(root)).code != 0


def test_more_loops_than_files_may_be_open(root: Path) -> None:
    for number in range(1, 41):
        path = Path(loop_files(str(root), f"loop-{number}").runtime_traces)
        path.parent.mkdir(parents=True)
        append(path, span(number, parent=number - 1 if number > 1 else None))
    words = ("trace", span_id(17), "--repo", str(root))
    limited = subprocess.run(
        ["sh", "-c", 'ulimit -n 40; exec "$@"', "sh", *command(*words)], capture_output=True, check=False
    )
    assert (limited.returncode, limited.stderr) == (0, b"")


def test_span_that_several_loops_stored_is_of_none_alone(root: Path) -> None:
    for number in range(20):
        path = Path(loop_files(str(root), f"loop-{number}").runtime_traces)
        path.parent.mkdir(parents=True)
        append(path, span(1, metadata={"ops_trace_id": "t2"}) + span(number + 2, parent=1))
    found = spans_under(str(root), [f"loop-{number}" for number in range(20)], "t2").found
    assert [(one.trace_id, one.loop_id) for one in found] == [
        (span_id(1), ""),
        *((span_id(number + 2), f"loop-{number}") for number in range(20)),
    ]


def test_trace_file_that_cannot_be_read_is_told(root: Path) -> None:
    (root / "trace.jsonl").mkdir()
    refused = run("trace", "t2", "--repo", str(root))
    assert (refused.code, "document_invalid" in refused.err) == (1, True)
    own = root / ".superloop" / "loops" / "alpha" / "trace.jsonl"
    append(own, span(1, metadata={"ops_trace_id": "t2"}))
    found = run("trace", "t2", "--repo", str(root))
    assert (found.code, found.documents[0]["spanCount"]) == (0, 1)
    assert found.err.startswith("warning: traces_unavailable: document_invalid: ")


def test_span_without_a_time_is_no_step(root: Path) -> None:
    append(root / "trace.jsonl", span(1, timestamp=None, metadata={"ops_trace_id": "t2"}) + span(2, parent=1))
    assert "trace_not_found" in run("trace", "t2", "--repo", str(root)).err


def test_of_a_large_tree_the_first_spans_are_shown_and_the_rest_counted(root: Path) -> None:
    count = MAX_SPANS + 200
    lines = b"".join(span(number, parent=1) for number in range(2, count + 1))
    append(root / "trace.jsonl", lines + span(1, metadata={"ops_trace_id": "t2"}, duration_ms=9e3) + b"{\n")
    found = tree(root, "t2")
    assert (found["spanCount"], found["leftOutSpans"]) == (MAX_SPANS, 200)
    assert found["steps"][0]["at"] == "2024-01-13T21:20:00.001Z"
    assert found["durationSeconds"] == 9
    assert BEGAN == 1705180800
