"""What a span writes, and what never reaches the program that it is in."""

import asyncio
import gc
import re
from pathlib import Path
from typing import Any
from weakref import ref

import pytest

from spritemesh.tracing.tracers import Tracer
from tests.harness.tracing import Traced, read_lines, traced


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


class Pretender:
    __class__ = str  # type: ignore[assignment]


class BrokenText(str):
    __slots__ = ()

    def isprintable(self) -> bool:
        raise RuntimeError("no")


NASTY: list[Any] = [
    Broken(), Pretender(), BrokenText("text"), b"\xff" * 10**6, list(range(10**6)), {"a": Broken()}, "\ud800",
    10**5000, float("nan"), object, ..., {1, 2}, "x" * 10**6, {b"key": 1},
]  # fmt: skip


def off() -> Tracer:
    tracer = Tracer()
    tracer.configure(enabled=False)
    return tracer


def test_a_line_has_the_facts_of_the_issue_in_their_order(on: Traced) -> None:
    with on.tracer.span("altitude", "transition", "planner.py", {"goal": "ship"}) as ctx:
        ctx.set_output("L2", from_level="L3")
    (line,) = on.lines()
    assert list(line) == [
        "trace_id", "parent_id", "timestamp", "hrm_layer", "operation", "component", "input_summary",
        "output_summary", "duration_ms", "status", "metadata",
    ]  # fmt: skip
    assert re.fullmatch(r"alt_\d+_[0-9a-f]{16}", line.pop("trace_id"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert 0 <= line.pop("duration_ms") < 1000
    assert line == {
        "parent_id": None, "hrm_layer": "altitude", "operation": "transition", "component": "planner.py",
        "input_summary": "{'goal': 'ship'}", "output_summary": "L2", "status": "success",
        "metadata": {"from_level": "L3"},
    }  # fmt: skip


def test_the_context_tells_its_id_and_whether_tracing_is_on(on: Traced) -> None:
    with on.tracer.span("mem", "read") as ctx:
        assert ctx
        assert ctx.trace_id.startswith("mem_")
    with off().span("mem", "read") as ctx:
        assert not ctx
        assert not ctx.trace_id
        ctx.set_output("nothing", at=1)
        ctx.block("nothing")
        ctx.fail("nothing")
        assert not ctx.record()


@pytest.mark.parametrize(
    "error", [ValueError("no such level"), KeyboardInterrupt(), asyncio.CancelledError(), SystemExit(3)]
)
def test_what_a_block_raises_is_told_and_raised_again(on: Traced, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, on.tracer.span("rsn", "route"):
        raise error
    assert caught.value is error
    (line,) = on.lines()
    assert line["status"] == "error"
    assert line["metadata"] == {"error_class": type(error).__name__, "error_message": str(error)}


def test_an_error_that_cannot_be_told_is_raised_as_it_is(on: Traced) -> None:
    class Unspeakable(Exception):
        __str__ = __repr__ = Broken.__repr__

    with pytest.raises(Unspeakable), on.tracer.span("rsn", "route"):
        raise Unspeakable
    assert on.lines()[0]["metadata"]["error_message"] == "<Unspeakable that cannot be told>"


def test_a_program_that_ends_well_is_no_error(on: Traced) -> None:
    with pytest.raises(SystemExit), on.tracer.span("sys", "main"):
        raise SystemExit(0)
    assert on.lines()[0]["status"] == "success"


def test_a_blocked_span_tells_why_and_a_failed_one_too(on: Traced) -> None:
    with on.tracer.span("foc", "gate_check") as ctx:
        ctx.block("not allowed")
    with on.tracer.span("foc", "gate_check") as ctx:
        ctx.fail("timed out")
    assert [(line["status"], line["metadata"]) for line in on.lines()] == [
        ("blocked", {"reason": "not allowed"}),
        ("error", {"reason": "timed out"}),
    ]


def test_a_layer_that_there_is_not_is_refused_while_tracing_is_on_and_only_then(on: Traced) -> None:
    for layer in ("alitude", "", None, ["alt"], 3, "ALT"):
        with pytest.raises(ValueError, match=r"allowed are altitude \(alt\), focus"):
            on.tracer.span(layer, "plan")
        with pytest.raises(ValueError, match="unknown layer"):
            on.tracer.event(layer, "plan")
        with off().span(layer, "plan"):
            assert not off().event(layer, "plan")


def test_an_event_is_one_line_under_the_current_span(on: Traced) -> None:
    with on.tracer.span("alt", "plan") as ctx:
        made = on.tracer.event(
            "mem",
            "read",
            "store.py",
            "key",
            "value",
            status="blocked",
            duration_ms=1.23456,
            metadata={"a": 1},
        )
        parent = ctx.trace_id
    line = on.lines()[0]
    assert line["trace_id"] == made
    assert line["parent_id"] == parent
    assert (line["input_summary"], line["output_summary"]) == ("key", "value")
    assert (line["status"], line["duration_ms"], line["metadata"]) == ("blocked", 1.235, {"a": 1})


def test_words_that_are_no_status_and_durations_that_are_none_are_kept_apart(on: Traced) -> None:
    on.tracer.event("mem", "read", status="meh", duration_ms=float("nan"))
    (line,) = on.lines()
    assert (line["status"], line["duration_ms"]) == ("success", 0.0)
    assert line["metadata"] == {"status": "meh", "duration_ms": "nan"}


@pytest.mark.parametrize("value", NASTY, ids=range(len(NASTY)))
def test_no_value_of_any_argument_reaches_the_program(on: Traced, value: Any) -> None:
    tracer = on.tracer
    with tracer.span("alt", value, value, value, metadata=value) as ctx:
        ctx.set_output(value, member=value, nested=[{"in": value}, (value,)])
        ctx.block(value)
    with tracer.span("alt", "x", metadata={value: value} if value.__hash__ else None):
        tracer.event("mem", value, value, value, value, status=value, duration_ms=value, metadata=value)
    with tracer.adopted(value, value):
        tracer.event("mem", "in")
    lines = on.lines()
    assert len(lines) == 4
    for line in lines:
        assert len(line["input_summary"]) <= 100
        assert len(line["output_summary"]) <= 100
    assert max(map(len, on.path.read_bytes().splitlines())) < 32 * 1024


def test_what_is_changed_after_a_span_ended_changes_nothing(on: Traced) -> None:
    given, found = {"a": [1]}, ["x"]
    with on.tracer.span("alt", "plan", metadata=given) as ctx:
        ctx.set_output("y", found=found)
    found.append("z")
    given["a"].append(2)
    ctx.set_output("late", late=1)
    assert on.lines()[0]["metadata"] == {"a": [1], "found": ["x"]}
    assert given == {"a": [1, 2]}


def test_a_span_that_is_used_again_is_another_and_within_itself_the_same(on: Traced) -> None:
    span = on.tracer.span("alt", "plan", input_data="in")
    for _ in range(2):
        with span as ctx, span:
            ctx.set_output("out")
            on.tracer.event("mem", "read")
    lines = on.lines()
    plans = [line for line in lines if line["operation"] == "plan"]
    assert len({line["trace_id"] for line in plans}) == len(plans) == 2
    assert [line["input_summary"] for line in plans] == ["in", "in"]
    assert [line["parent_id"] for line in lines[::2]] == [line["trace_id"] for line in plans]
    span.__exit__(None, None, None)
    assert len(on.lines()) == 4
    assert not on.tracer.current_id()


def test_levels_choose_by_status(tmp_path: Any) -> None:
    expected = {
        "debug": {"success", "blocked", "error"},
        "info": {"success", "blocked", "error"},
        "warning": {"blocked", "error"},
        "error": {"error"},
    }
    for level, statuses in expected.items():
        with traced(tmp_path / level, level=level) as tracing:
            for status in ("success", "blocked", "error"):
                tracing.tracer.event("alt", "plan", status=status)
            lines = tracing.lines()
            assert {line["status"] for line in lines} == statuses
            assert all(("pid" in line["metadata"]) == (level == "debug") for line in lines)


def test_a_program_that_goes_too_deep_leaves_no_span_behind(on: Traced) -> None:
    def dive() -> None:
        with on.tracer.span("alt", "dive", "x.py", {"deep": [1]}):
            dive()

    with pytest.raises(RecursionError):
        dive()
    assert not on.tracer.current_id()
    on.tracer.event("alt", "after")
    assert on.lines()[-1]["parent_id"] is None


async def test_the_asynchronous_form_does_the_same(on: Traced) -> None:
    async def work() -> None:
        async with on.tracer.span("alt", "outer") as ctx:
            assert ctx
            async with on.tracer.span("alt", "inner"):
                await asyncio.sleep(0)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await work()
    async with off().span("alt", "outer") as ctx:
        assert not ctx
    assert on.parents() == {"inner": "outer", "outer": None}
    assert on.by_operation()["outer"]["status"] == "error"


def test_a_span_that_is_open_when_tracing_goes_elsewhere_is_told_there_and_counted_when_it_ends(
    tmp_path: Path,
) -> None:
    with traced(tmp_path / "before.jsonl") as on:
        with on.tracer.span("alt", "moved"):
            on.tracer.event("mem", "before")
            on.tracer.configure(enabled=True, output=tmp_path / "after.jsonl")
        assert [line["operation"] for line in on.lines()] == ["before"]
        assert [line["operation"] for line in read_lines(tmp_path / "after.jsonl")] == ["moved"]
        with on.tracer.span("alt", "lost"):
            on.tracer.close()
        assert on.tracer.dropped == 1


def test_a_span_that_is_kept_by_what_it_keeps_is_freed_while_tracing_is_off() -> None:
    tracer = Tracer()
    tracer.configure(enabled=False)

    class Agent:
        def __init__(self) -> None:
            self.turn = tracer.span("alt", "plan", "agent.py", self)

    agent = ref(Agent())
    gc.collect()
    assert agent() is None


class Ending:
    """What is told ends the program, or somebody interrupts that."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __repr__(self) -> str:
        raise self.error


class EndingError(Exception):
    def __str__(self) -> str:
        raise self.args[0]


def test_a_program_that_is_interrupted_where_a_span_begins_or_ends_leaves_none_behind(on: Traced) -> None:
    with pytest.raises(KeyboardInterrupt), on.tracer.span("alt", "begins", "x.py", Ending(KeyboardInterrupt)):
        pytest.fail("it was entered")
    assert not on.tracer.current_id()
    with pytest.raises(KeyboardInterrupt), on.tracer.span("alt", "ends"):
        raise EndingError(KeyboardInterrupt)
    assert not on.tracer.current_id()


def test_what_a_value_raises_while_it_is_told_ends_nothing(on: Traced) -> None:
    with on.tracer.span("alt", "plan", "x.py", Ending(SystemExit)) as ctx:
        ctx.set_output(Ending(asyncio.CancelledError))
    with pytest.raises(EndingError), on.tracer.span("alt", "fails"):
        raise EndingError(SystemExit)
    told = on.by_operation()
    assert told["plan"]["input_summary"] == "<Ending that cannot be told>"
    assert told["fails"]["metadata"]["error_class"] == "EndingError"
