"""What a person sees: everything that matters, and nothing that drives the terminal."""

import io
from collections.abc import Callable
from typing import Any

import pytest

from manager import render, render_trace
from tests.contract import cases

HOSTILE = "\x1b]0;owned\x07\x1b[2J[red]bold[/red]\r\u202e"


def text(make: Callable[[Any], Any], document: Any) -> str:
    return render.to_text(make, document, io.StringIO())


def last_document(name: str, command: str) -> Any:
    import json

    steps = [step for step in cases.load(name).steps if step.command == command and step.expected]
    expected = steps[-1].expected
    assert expected is not None
    return json.loads(expected.stdout)


def test_status_tells_state_health_and_trace() -> None:
    shown = text(render.status, last_document("status-document", "status"))
    for fact in ("alpha", "running", "healthy", "success", "shared", "balanced", "cancel"):
        assert fact in shown


def test_status_tells_the_last_intent_the_alerts_and_their_traces() -> None:
    document = {
        "control": {"lastIntent": "approve", "lastStatus": "ambiguous", "lastRequestedBy": "ops"},
        "alerts": {
            "dispatch": {"status": "partial", "dispatchedCount": 3, "failedCount": 1},
            "lastDelivery": {"escalationCategory": "health_critical", "status": "dispatched"},
        },
        "traceLinkage": {"reconcileTraceId": "p", "controlTraceId": "c", "alertTraceId": "a"},
    }
    shown = text(render.status, document)
    for fact in ("approve  ambiguous  by ops", "partial  sent 3  failed 1  last health_critical  dispatched"):
        assert fact in shown
    for fact in ("trace of pass  p", "of control     c", "of alert       a"):
        assert fact in shown


def test_trace_tells_steps_and_what_is_missing() -> None:
    steps = [
        {
            "kind": "intent",
            "offsetSeconds": 0,
            "steps": [{"kind": HOSTILE, "offsetSeconds": 1.5, "detail": HOSTILE}],
        }
    ]
    shown = text(render_trace.trace, {"traceId": HOSTILE, "steps": steps, "leftOutSteps": 7})
    for fact in ("+0.000 s  intent", "+1.500 s", "leftOutSteps 7"):
        assert fact in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    "odd", [None, 5, [], {"traces": 1}, {"traces": [None, {"loops": 5}]}, {"steps": [5, {}]}]
)
def test_odd_trace_documents_do_no_harm(odd: Any) -> None:
    text(render_trace.trace, odd)
    text(render_trace.recent_traces, odd)


def test_list_of_traces_breaks_no_word_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = [
        {
            "traceId": "f" * 36,
            "lastAt": "2026-01-31T12:00:05.123Z",
            "status": status,
            "loops": ["nightly"] * 2,
        }
        for status in ("executed_unconfirmed", "success")
    ]
    shown = text(render_trace.recent_traces, {"traces": rows})
    lines = [line.rstrip() for line in shown.splitlines()]
    assert len(lines) == 3
    for line, status in zip(lines[1:], ("executed_unconfirmed", "success"), strict=True):
        assert len(line) <= 80
        assert line.split()[:4] == ["f" * 36, "01-31", "12:00:05", status]


def test_health_tells_each_reason_with_the_next_step() -> None:
    shown = text(render.health, last_document("health-everything-at-once", "health"))
    assert "runtime_heartbeat_stale  degraded  heartbeatLagSeconds 180 (threshold 120)" in shown
    assert "runtime's process" in shown


def test_snapshot_tells_status_and_artifacts() -> None:
    shown = text(render.snapshot, last_document("snapshot-running", "loop-run-snapshot"))
    for fact in ("running", "events.jsonl", "run-summary.json"):
        assert fact in shown


def test_state_tells_divergence() -> None:
    shown = text(render.state, last_document("project-approval-conflict", "project-state"))
    for fact in ("awaiting_approval", "approvalCompletionConflict"):
        assert fact in shown


def test_event_is_one_line() -> None:
    event = {"timestamp": "t", "name": "tests_end", "status": "ok", "payload": {"ok": True}}
    line = render.event_line({"sequence": {"value": 3}, "event": event})
    assert line.split() == ["3", "t", "tests_end", "ok", '{"ok":true}']


def test_tree_shows_every_member() -> None:
    shown = text(render.tree, {"a": {"b": [1, {"c": None}], "d": {}}})
    for fact in ("a", "b", "0  1", "c  -", "d  {}"):
        assert fact in shown


@pytest.mark.parametrize("make", [render.tree, render.status, render.state, render.health, render.snapshot])
@pytest.mark.parametrize(
    "document", [None, [], "text", 5, {}, {"reasons": 1, "artifacts": 2, "divergence": 3}]
)
def test_odd_documents_are_shown_too(make: Callable[[Any], Any], document: Any) -> None:
    assert text(make, document)


def test_control_sequences_and_markup_of_a_document_stay_harmless() -> None:
    documents: list[tuple[Callable[[Any], Any], Any]] = [
        (render.tree, {HOSTILE: HOSTILE, "loopId": HOSTILE}),
        (render.status, {"source": {"loopId": HOSTILE}, "lifecycle": {"state": HOSTILE}}),
        (render.snapshot, {"artifacts": {HOSTILE: {"path": HOSTILE}}}),
        (render.health, {"reasons": [{"code": HOSTILE}]}),
        (render.event_line, {"event": {"name": HOSTILE, "message": HOSTILE}}),
    ]
    for make, document in documents:
        shown = text(make, document)
        assert not set(shown) & set("\x1b\x07\r\u202e"), make
        assert "[red]" in "".join(shown.split()), make


def test_shown_keeps_what_is_printable_and_escapes_the_rest() -> None:
    assert render.shown("naïve 'x' \\ 漢") == "naïve 'x' \\ 漢"
    assert render.shown("a\nb\x1b") == "a\\nb\\x1b"
    assert render.shown(None) == "-"
    assert render.shown({"a": [True, 1.5]}) == '{"a":[true,1.5]}'
