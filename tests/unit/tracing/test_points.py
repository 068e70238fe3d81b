"""The catalog of trace points, and its typed helpers."""

import inspect

import pytest

from spritemesh.tracing import points
from spritemesh.tracing.catalog import POINTS, is_known
from tests.harness.tracing import Traced
from tools import points as generator

ISSUE = """
altitude: transition from_level, to_level, reason · evaluate altitude, verdict, confidence · plan altitude, intent, plan_summary · execute altitude, action_type
focus: stance_change from_stance, to_stance, gate · gate_check gate_type, decision, reason · lane_switch from_lane, to_lane, reason · consent_check operation, allowed · route signal_type, bundle, agents
reasoning: classify input_type, confidence · route strategy, reason · escalate from_level, to_level, trigger
learning: pattern_match pattern_code, confidence · pattern_add pattern_code, source · pattern_trim pattern_code, reason · generalize from_patterns, to_pattern
memory: read namespace, key, tier · write namespace, key, tier, tokens_saved · promote key, from_tier, to_tier · demote key, from_tier, to_tier
"""  # noqa: E501 - as the issue has them
VALUES = {
    "str": "word", "float": 0.5, "bool": True, "int": 45, "Sequence[str]": ["a", "b"],
}  # fmt: skip


def test_the_catalog_has_the_points_of_the_issue() -> None:
    expected = {}
    for row in ISSUE.strip().splitlines():
        layer, _, rest = row.partition(": ")
        told = (point.split(" ", 1) for point in rest.split(" · "))
        expected[layer] = {name: tuple(fields.split(", ")) for name, fields in told}
    assert {
        layer: {operation: point.fields for operation, point in operations.items()}
        for layer, operations in POINTS.items()
    } == expected


def test_the_helpers_are_what_the_catalog_generates() -> None:
    assert inspect.getsource(points) == generator.written()


def test_each_helper_writes_its_members(on: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "tracer", on.tracer)
    for layer, operations in POINTS.items():
        for operation, point in operations.items():
            helper = getattr(getattr(points, layer), operation)
            given = {name: VALUES[kind] for name, kind in point.given.items()}
            found = {name: VALUES[kind] for name, kind in point.found.items()}
            assert helper(**given, component="x.py", input_data="in").record("out")
            with helper(**given, **found) as ctx:
                assert ctx
            first, second = on.lines()[-2:]
            assert (first["hrm_layer"], first["operation"]) == (layer, operation)
            assert (first["component"], first["input_summary"], first["output_summary"]) == (
                "x.py",
                "in",
                "out",
            )
            assert first["metadata"] == given
            assert second["metadata"] == given | found
            assert point.told.format(**given, **found)
            assert point.note.format(**given, **found) or not point.note


def test_operations_of_programs_are_known_and_others_are_not() -> None:
    assert is_known("memory", "read")
    assert is_known("system", "anything")
    assert not is_known("memory", "forget")
    assert not is_known("elsewhere", "read")
