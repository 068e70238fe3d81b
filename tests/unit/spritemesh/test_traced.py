"""Steps of our own programs: what they say of errors, and what they take from a peer's headers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spritemesh import traced
from spritemesh.errors import OpsError
from spritemesh.tracing import tracer

PARENT = "sys_1705180800_a3f2"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where steps are written."""
    monkeypatch.setenv("DOPEJAR_TRACE", "1")
    monkeypatch.delenv("DOPEJAR_TRACE_PARENT", raising=False)
    monkeypatch.delenv("OPS_MANAGER_TRACE_ID", raising=False)
    path = tmp_path / "trace.jsonl"
    tracer.configure(enabled=True, output=path)
    traced.start(flag=False)
    yield path
    tracer.close()
    traced.start(flag=False)


def told(trace: Path) -> dict[str, Any]:
    """The one line."""
    assert tracer.flush()
    (line,) = trace.read_text().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("invalid_request", "blocked"),
        ("agent_draining", "blocked"),
        ("too_many_controls", "blocked"),
        ("token_wrong", "blocked"),
        ("loop_not_found", "error"),
        ("agent_unreachable", "error"),
        ("internal_error", "error"),
        ("invocation_not_found", "success"),
    ],
)
def test_step_that_an_error_leaves_says_whether_it_was_refused(trace: Path, reason: str, status: str) -> None:
    with pytest.raises(OpsError), traced.step("control", "control.py", "approve alpha"):
        raise OpsError(reason, "said")
    line = told(trace)
    assert (line["status"], line["output_summary"]) == (status, reason)
    assert line["metadata"].get("reason", reason) == reason


def test_step_tells_no_facts_that_are_empty(trace: Path) -> None:
    with traced.step("control", "control.py", "approve alpha", loop_id="alpha", note=None, by="") as step:
        step.tell("confirmed", attempts=0, codes=[], replayed=False)
    assert told(trace)["metadata"] == {"loop_id": "alpha", "attempts": 0, "replayed": False}


@pytest.mark.parametrize(
    ("headers", "parent_id", "trace_id"),
    [
        ([("x-trace-parent", PARENT), ("x-trace-id", "op-1")], PARENT, "op-1"),
        ([("x-trace-parent", PARENT.encode()), ("x-trace-id", b"op-1")], PARENT, "op-1"),
        ([("traceparent", f"00-{TRACE_ID}-00f067aa0ba902b7-01")], None, TRACE_ID),
        ([("x-trace-parent", "../../etc"), ("x-trace-id", "x" * 129)], None, None),
        ([("x-trace-parent", "sys_1_\x1b[31m"), ("x-trace-id", "a\nb")], None, None),
        ([], None, None),
    ],
)
def test_request_hangs_from_what_its_headers_name_if_that_can_be(
    trace: Path, headers: traced.Headers, parent_id: str | None, trace_id: str | None
) -> None:
    with traced.request("rpc", "gate.py", "GetSnapshot", headers):
        pass
    line = told(trace)
    assert (line["parent_id"], line["metadata"].get("ops_trace_id")) == (parent_id, trace_id)


def test_nothing_is_traced_that_nobody_asked_for() -> None:
    traced.start(flag=False, heed=False)
    assert traced.step("control", "control.py", "approve alpha") is traced.OFF
    assert traced.request("rpc", "gate.py", "GetSnapshot", []) is traced.OFF
    assert (traced.parent_headers(), traced.parent_id()) == ((), "")


@pytest.mark.parametrize("said", [{}, {"DOPEJAR_TRACE_FILE": "mine.jsonl"}])
def test_program_with_a_repository_traces_there_unless_somebody_said_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, str]
) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    monkeypatch.chdir(tmp_path)
    for name, value in {"DOPEJAR_TRACE": "1", **said}.items():
        monkeypatch.setenv(name, value)
    tracer.configure(output="" if said else "before.jsonl")
    traced.start(flag=False, directory=str(repo))
    traced.event("start", "sprite-agent", "serve")
    tracer.close()
    monkeypatch.delenv("DOPEJAR_TRACE")
    traced.start(flag=False)
    written = [path for path in tmp_path.rglob("*.jsonl") if path.stat().st_size]
    assert written == [tmp_path / "mine.jsonl" if said else repo / "trace.jsonl"]
