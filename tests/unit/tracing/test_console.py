"""spritemesh.tracing.writing.console: a tree that people read as it happens."""

import re
from collections.abc import Mapping

import pytest

from spritemesh.tracing.layers import layer_of
from spritemesh.tracing.writing.console import Console, duration


def ended(
    hrm: str,
    operation: str,
    metadata: Mapping[str, object],
    *,
    status: str = "success",
    milliseconds: float = 5.0,
    given: str = "",
    depth: int = 0,
    has_colours: bool = False,
) -> str:
    """The one line that is shown."""
    lines: list[str] = []
    shown = Console(lines.append, has_colours=has_colours)
    shown.ended(layer_of(hrm), operation, given, status, milliseconds, metadata, depth)
    (line,) = lines
    return line


def test_point_is_told_as_the_catalog_has_it() -> None:
    levels = {"from_level": "L3", "to_level": "L2", "reason": "too abstract"}
    assert ended("altitude", "transition", levels) == "[alt] transition: L3→L2 → success (5ms)"


def test_notes_stand_in_brackets_at_the_end() -> None:
    facts: dict[str, object] = {"namespace": "facts", "key": "color", "tokens_saved": 45}
    assert ended("mem", "write", facts) == "[mem] write: facts/color → success (5ms) [saved 45 tokens]"
    assert ended("mem", "write", facts | {"tokens_saved": 0}) == "[mem] write: facts/color → success (5ms)"
    assert ended("mem", "write", {"key": "color"}) == "[mem] write: color → success (5ms)"


def test_errors_and_blocks_are_seen_at_a_glance() -> None:
    error = {"error_class": "ValueError", "error_message": "no such thing"}
    assert ended("rsn", "classify", error, status="error", given="hm") == (
        "[rsn] classify: hm ✗ error ValueError: no such thing (5ms)"
    )
    assert ended("rsn", "classify", {}, status="error") == "[rsn] classify ✗ error (5ms)"
    assert ended("foc", "consent_check", {"operation": "push", "reason": "no right"}, status="blocked") == (
        "[foc] consent_check: push ■ blocked: no right (5ms)"
    )
    assert ended("foc", "other", {}, status="blocked") == "[foc] other ■ blocked (5ms)"


def test_what_is_no_point_is_told_by_what_went_in() -> None:
    assert ended("sys", "serve", {"key": 1}, given="request 7") == "[sys] serve: request 7 → success (5ms)"
    assert ended("sys", "serve", {}) == "[sys] serve → success (5ms)"


def test_so_is_a_point_whose_facts_are_missing() -> None:
    assert ended("alt", "transition", {}, given="up") == "[alt] transition: up → success (5ms)"
    assert ended("alt", "transition", {"from_level": "L3"}) == "[alt] transition: L3 → success (5ms)"
    assert ended("foc", "route", {"bundle": "b"}) == "[foc] route: b → success (5ms)"


def test_several_things_are_told_with_commas() -> None:
    patterns = {"from_patterns": ["P1", "P2"], "to_pattern": "P9"}
    assert ended("lrn", "generalize", patterns) == "[lrn] generalize: P1, P2→P9 → success (5ms)"


def test_events_have_no_duration() -> None:
    assert ended("lrn", "pattern_add", {"pattern_code": "P1"}, milliseconds=0) == (
        "[lrn] pattern_add: P1 → success"
    )


def test_children_hang_under_the_line_that_opened_their_parent() -> None:
    lines: list[str] = []
    shown = Console(lines.append, has_colours=False)
    altitude, memory = layer_of("alt"), layer_of("mem")
    shown.began(altitude, "plan", "", {"intent": "ship it"}, 0)
    shown.began(memory, "read", "color", {}, 1)
    shown.ended(memory, "look", "", "success", 0.25, {}, 2)
    shown.ended(memory, "read", "color", "success", 3.4, {}, 1)
    shown.ended(altitude, "plan", "", "success", 12.3, {"intent": "ship it"}, 0)
    assert lines == [
        "[alt] plan: ship it",
        "└─ [mem] read: color",
        "   └─ [mem] look → success (0.25ms)",
        "└─ [mem] read: color → success (3.4ms)",
        "[alt] plan: ship it → success (12ms)",
    ]


def test_one_line_stays_one_and_no_terminal_is_given_orders() -> None:
    line = ended("mem", "read", {"namespace": "a\nb", "key": "\x1b[31mred" + "x" * 500})
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) < 150


def test_braces_in_facts_are_no_templates() -> None:
    assert (
        ended("mem", "read", {"namespace": "{key}", "key": "{0}"}) == "[mem] read: {key}/{0} → success (5ms)"
    )


def test_colours_tell_layer_and_outcome_apart() -> None:
    plain = ended("mem", "read", {"key": "k"})
    coloured = {
        status: ended("mem", "read", {"key": "k"}, status=status, has_colours=True)
        for status in ("success", "error", "blocked")
    }
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured["success"]) == plain
    assert len({line.split("k")[1] for line in coloured.values()}) == 3


@pytest.mark.parametrize(
    ("milliseconds", "told"),
    [(0.009, "0.009ms"), (0.354, "0.35ms"), (5.04, "5ms"), (12.6, "13ms"), (999.4, "999ms"), (1234, "1.23s"),
     (65_432, "65.4s"), (3_600_000, "3600s")],
)  # fmt: skip
def test_durations_have_as_many_digits_as_tell_something(milliseconds: float, told: str) -> None:
    assert duration(milliseconds) == told
