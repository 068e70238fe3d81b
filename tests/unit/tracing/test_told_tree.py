"""The tree as people see it while it happens."""

import re
import threading
from pathlib import Path

import pytest

from tests.harness.tracing import traced


def told(text: str) -> list[str]:
    """Lines without their durations."""
    return re.sub(r" \([0-9.]+m?s\)", "", text).splitlines()


def test_children_stand_under_their_parents_whatever_thread_they_are_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with traced(tmp_path / "trace.jsonl", console=True) as tracing:
        tracer = tracing.tracer
        with tracer.span("alt", "plan", metadata={"altitude": "L3", "intent": "ship it"}):
            with tracer.span("foc", "gate_check") as ctx:
                ctx.block("not now")

            def work() -> None:
                with tracer.span("mem", "write", input_data="color") as ctx:
                    tracer.event("lrn", "pattern_match")
                    ctx.set_output("kept", namespace="facts", key="color", tokens_saved=45)

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        with tracer.adopted("alt_1705180800_a3f2"):
            tracer.event("sys", "handle", input_data="GetSnapshot")
    assert told(capsys.readouterr().err) == [
        "[alt] plan: ship it",
        "└─ [foc] gate_check ■ blocked: not now",
        "└─ [mem] write: color",
        "   └─ [lrn] pattern_match → success",
        "└─ [mem] write: facts/color → success [saved 45 tokens]",
        "[alt] plan: ship it → success",
        "[sys] handle: GetSnapshot → success",
    ]


def test_where_only_failures_are_told_they_stand_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with traced(tmp_path / "trace.jsonl", console=True, level="error") as tracing:
        tracer = tracing.tracer
        with tracer.span("alt", "plan"):
            tracer.event("mem", "read")
            tracer.event("mem", "write", status="error")
    assert told(capsys.readouterr().err) == ["[mem] write ✗ error"]
