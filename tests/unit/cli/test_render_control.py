"""What a person sees of a control intent."""

import io
from typing import Any

import pytest

from manager import render, render_control
from spritemesh.reasons import REASONS

ROW = {
    "loopId": "alpha",
    "intent": "cancel",
    "status": "confirmed",
    "exitCode": 0,
    "replayed": True,
    "idempotencyKey": "key-1",
    "commandOutput": "\n".join(f"line {number}" for number in range(1, 31)),
    "effect": {"event": "loop_complete", "line": 12},
    "reason": None,
}


def text(document: Any) -> str:
    return render.to_text(render_control.control, document, io.StringIO())


def test_outcome_effect_and_the_end_of_the_output_are_shown() -> None:
    shown = text(ROW)
    for fact in ("cancel alpha", "confirmed", "replayed true", "event=loop_complete", "line=12", "key-1"):
        assert fact in shown
    assert ("line 20\n" in shown, "line 21\n" in shown, "line 30\n" in shown) == (False, True, True)


def test_reason_is_shown_with_its_next_step() -> None:
    row = REASONS["runtime_timeout"]
    shown = " ".join(text({**ROW, "reason": "runtime_timeout"}).split())
    assert row.meaning in shown
    assert row.next_step in shown


@pytest.mark.parametrize("document", [None, [], "text", {}, {"effect": 1, "commandOutput": 2, "reason": []}])
def test_odd_documents_are_shown_too(document: Any) -> None:
    assert text(document)


def test_control_sequences_of_a_sandbox_stay_harmless() -> None:
    shown = text({**ROW, "commandOutput": "a\x1b[31m\nb[red]", "effect": {"event": "\x07"}})
    assert not set(shown) & set("\x1b\x07")
    assert "[red]" in shown
