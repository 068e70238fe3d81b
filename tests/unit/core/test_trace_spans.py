"""manager.core.trace_spans: below which step a span stands, and what of spans is shown."""

from typing import Any

import pytest

from manager.core.trace import trace_document
from manager.core.trace_spans import MAX_DEPTH, Span, Spans, below, span_of
from spritemesh import jsontext
from spritemesh.traceindex import Entry

AT = 1_700_000_000.0


def step(kind: str, at: float, seconds: float | None = None, loop_id: str = "alpha") -> Entry:
    return Entry("t", AT + at, loop_id, kind, "", seconds, detail={"told": True})


def span(trace_id: str, at: float, seconds: float = 0.001, *, parent: str = "", loop_id: str = "") -> Span:
    return Span(trace_id, parent, AT + at, seconds, "success", loop_id, "f", "t", {"operation": trace_id})


def shape(steps: list[Any]) -> list[Any]:
    """Of each step its kind and loop, or of a span its id, with what is below."""
    return [
        [
            found["detail"]["operation"] if found["kind"] == "span" else f"{found['kind']} {found['loopId']}",
            *shape(found.get("steps", [])),
        ]
        for found in steps
    ]


def above(steps: list[Any], name: str, kind: str = "") -> str:
    """Kind of the step that a span stands below."""
    found = [kind for step in steps if step["detail"].get("operation") == name]
    return "".join(found + [above(step.get("steps", []), name, step["kind"]) for step in steps])


def document(entries: list[Entry], *spans: Span) -> dict[str, Any]:
    shown, left_out = below(spans, "t")
    return trace_document("t", "/r", entries, spans=Spans(shown, left_out))


# --- below which step ---------------------------------------------------------------------------------

REQUEST = [step("intent", 0, 5), step("invocation", 0.1, 4), step("runtime", 0.2, 2)]


@pytest.mark.parametrize(
    ("at", "kind"), [(0.05, "intent"), (0.15, "invocation"), (0.2, "runtime"), (3, "invocation")]
)
def test_span_stands_below_the_step_that_was_running_when_it_began(at: float, kind: str) -> None:
    assert above(document(REQUEST, span("s", at))["steps"], "s") == kind


def test_work_of_the_agent_stands_below_the_invocation_and_not_below_the_runtime() -> None:
    rpc = span("rpc", 0.3)
    rpc.detail["layer"] = "system"
    assert above(document(REQUEST, rpc)["steps"], "rpc") == "invocation"
    assert above(document(REQUEST[2:], rpc)["steps"], "rpc") == "runtime"


def test_span_that_caused_the_steps_stands_beside_them_and_moves_no_time() -> None:
    found = document(REQUEST, span("command", -1, 7))
    assert shape(found["steps"])[1] == ["command"]
    assert [step["offsetSeconds"] for step in found["steps"]] == [0, -1]
    assert (found["startedAt"], found["durationSeconds"]) == ("2023-11-14T22:13:20.000Z", 5)


def test_span_of_a_clock_that_is_slow_stands_below_the_nearest_step() -> None:
    (intent,) = document(REQUEST, span("s", -1))["steps"]
    assert shape(intent["steps"]) == [["invocation alpha", ["runtime alpha", ["s"]]]]
    assert shape(document(REQUEST, span("s", -5))["steps"])[1] == ["s"]


def test_span_of_several_loops_goes_by_its_time() -> None:
    steps = [step("runtime", 0, 1), step("runtime", 2, 1, "beta")]
    found = document(steps, span("first", 0.5), span("second", 2.5), span("own", 2.6, loop_id="alpha"))
    assert shape(found["steps"]) == [["runtime alpha", ["first"], ["own"]], ["runtime beta", ["second"]]]


# --- what is shown ------------------------------------------------------------------------------------


def test_deep_chain_is_cut_and_fits_into_a_document() -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    line = {
        "trace_id": "s0",
        "timestamp": "2023-11-14T22:13:20Z",
        "metadata": {"ops_trace_id": "t", "deep": deep},
    }
    first = span_of(line, loop_id="alpha", file="f")
    assert first is not None
    assert "metadata" not in first.detail
    chain = [span(f"s{number}", number, parent=f"s{number - 1}") for number in range(1, 400)]
    found = document([], first, *chain)
    assert (found["spanCount"], found["leftOutSpans"]) == (MAX_DEPTH, 400 - MAX_DEPTH)
    jsontext.parse(jsontext.encode(found), max_depth=jsontext.MAX_DOCUMENT_DEPTH)


def test_spans_of_the_same_moment_stay_in_the_order_of_the_file() -> None:
    names = [f"s{number}" for number in range(50)]
    shown, _ = below([span(name, 0) for name in names], "t")
    assert [found.trace_id for found in shown] == names


def test_long_texts_are_cut() -> None:
    names = ("trace_id", "parent_id", "hrm_layer", "operation", "input_summary", "status")
    line = {"timestamp": "2023-11-14T22:13:20Z", **dict.fromkeys(names, "x" * 60_000)}
    found = span_of(line, loop_id="", file="f")
    assert found is not None
    assert len(jsontext.encode(found.detail) + found.status.encode()) < 2000
