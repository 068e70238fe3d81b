"""Order of snapshots and events (contract G.5, remedies L3 and L12)."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.core.sequence import LogChange, Memory, Numbers, evaluate_sequence, next_memory, telemetry_row
from spritemesh.jsontext import JSON


def sequence(
    previous: JSON = None,
    memory: Memory | None = None,
    *,
    snapshot: int | None,
    event_values: Sequence[int | None] = (),
    **given_: Any,
) -> dict[str, JSON]:
    facts: dict[str, Any] = {
        "numbers": Numbers.of(event_values),
        "now": 0,
        "loop_id": "alpha",
        "trace_id": "t",
        "transport": "local",
    }
    return evaluate_sequence(previous, memory or Memory(), snapshot_value=snapshot, **(facts | given_))


@pytest.mark.parametrize(
    ("facts", "violations"),
    [
        ({"snapshot": None}, ["snapshot_sequence_missing"]),
        ({"snapshot": 4}, ["snapshot_sequence_regression"]),
        ({"snapshot": 6, "event_values": [6, None]}, ["event_sequence_missing"]),
        ({"snapshot": 9, "event_values": [8, 7]}, ["event_sequence_non_monotonic"]),
        (
            {"snapshot": 9, "event_values": [8, None, 7]},
            ["event_sequence_missing", "event_sequence_non_monotonic"],
        ),
        ({"snapshot": 5, "event_values": [4]}, ["event_sequence_regression"]),
        ({"snapshot": 5, "event_values": [5, 5]}, []),
    ],
    ids=["no-snapshot", "snapshot-back", "no-value", "disorder", "both", "events-back", "equal-is-fine"],
)
def test_each_rule_finds_its_violation(facts: dict[str, Any], violations: list[str]) -> None:
    previous = sequence(snapshot=5, event_values=[5])
    document = sequence(previous, **facts)
    assert document["violations"] == violations
    assert document["status"] == ("ordering_drift_detected" if violations else "ok")
    assert ("reasonCode" in document) == bool(violations)


def test_first_pass_compares_with_nothing() -> None:
    document = sequence(snapshot=3, event_values=[1, 2, 3])
    assert document["violations"] == []
    assert document["snapshot"]["previous"] is None


@pytest.mark.parametrize("value", ["5", 5.5, -1, True, None])
def test_previous_value_that_is_no_whole_number_counts_as_none(value: JSON) -> None:
    previous = {"snapshot": {"current": value}, "events": {"last": value}}
    assert sequence(previous, snapshot=1, event_values=[1])["violations"] == []


def test_regression_after_an_idle_pass_is_noticed() -> None:
    first = sequence(snapshot=5, event_values=[4, 5])
    memory = next_memory(Memory(), first)
    idle = sequence(first, memory, snapshot=5)
    memory = next_memory(memory, idle)
    document = sequence(idle, memory, snapshot=5, event_values=[3])
    assert idle["events"]["previousLast"] == 5
    assert document["events"]["previousLast"] is None
    assert document["violations"] == ["event_sequence_regression"]
    assert not document["events"]["monotonicAcrossBatches"]


def test_requested_replay_is_no_drift() -> None:
    previous = sequence(snapshot=5, event_values=[5])
    document = sequence(previous, snapshot=5, event_values=[1, 2, 3, 4, 5], replay=True)
    assert document["violations"] == []
    assert document["events"]["previousLast"] == 5


def test_replaced_log_is_no_drift_and_told_last() -> None:
    previous = sequence(snapshot=5, event_values=[5])
    change = LogChange("log_replaced", 5, 2)
    document = sequence(previous, snapshot=2, event_values=[1, 2], change=change)
    assert document["violations"] == []
    assert list(document)[-1] == "log"
    assert document["log"] == {"verdict": "log_replaced", "previousLine": 5, "line": 2}


def test_rewritten_log_is_drift_by_itself() -> None:
    previous = sequence(snapshot=5, event_values=[5])
    change = LogChange("log_rewritten", 5, 6)
    document = sequence(previous, snapshot=6, event_values=[1, 2, 3, 4, 5, 6], change=change)
    assert document["violations"] == ["log_rewritten"]
    assert document["transition"]["transitionedToDrift"]


def test_truncated_log_is_a_regression_without_any_event() -> None:
    previous = sequence(snapshot=5, event_values=[5])
    document = sequence(previous, snapshot=2, change=LogChange("log_truncated", 5, 2))
    assert document["violations"] == ["event_sequence_regression", "snapshot_sequence_regression"]
    assert document["events"]["regressed"]


def test_drift_recovers_once() -> None:
    drifting = sequence(snapshot=None)
    recovered = sequence(drifting, snapshot=5)
    assert recovered["transition"] == {
        "previousDriftActive": True,
        "transitionedToDrift": False,
        "recoveredFromDrift": True,
    }


def test_telemetry_row_has_the_contract_order() -> None:
    row = telemetry_row(sequence(snapshot=None, change=LogChange("log_rewritten", 5, 6)))
    assert list(row) == [
        "timestamp",
        "loopId",
        "traceId",
        "transport",
        "category",
        "status",
        "reasonCode",
        "driftActive",
        "violations",
        "snapshot",
        "events",
        "transition",
        "log",
    ]


@given(st.lists(st.integers(0, 5), max_size=12))
def test_contiguous_passes_never_drift(sizes: list[int]) -> None:
    line, document, memory = 0, None, Memory()
    for size in sizes:
        values = list(range(line + 1, line + size + 1))
        line += size
        document = sequence(document, memory, snapshot=line, event_values=values)
        memory = next_memory(memory, document)
        assert not document["driftActive"]
        assert memory.snapshot_value == line


@given(st.lists(st.integers(0, 30), max_size=10), st.lists(st.none() | st.integers(0, 30), max_size=6))
def test_any_step_back_is_noticed_however_many_idle_passes_lie_between(
    snapshots: list[int], values: list[int | None]
) -> None:
    document, memory = None, Memory()
    highest_known: int | None = None
    for snapshot in snapshots:
        document = sequence(document, memory, snapshot=snapshot, event_values=values)
        memory = next_memory(memory, document)
        went_back = highest_known is not None and snapshot < highest_known
        assert ("snapshot_sequence_regression" in document["violations"]) == went_back
        assert document["violations"] == sorted(set(document["violations"]))
        highest_known = snapshot


@pytest.mark.parametrize("verdict", ["log_replaced", "log_rewritten"])
def test_memory_of_a_log_ends_with_it_when_the_new_one_is_still_empty(verdict: str) -> None:
    change = LogChange(verdict, 5, 0)
    rotated = sequence(sequence(snapshot=5, event_values=[4, 5]), Memory(5, 5), snapshot=0, change=change)
    memory = next_memory(Memory(5, 5), rotated)
    assert memory == Memory(0, None)
    assert sequence(rotated, memory, snapshot=1, event_values=[1])["violations"] == []


values = st.lists(st.none() | st.integers(0, 9), max_size=12)


@given(values, st.lists(st.integers(0, 12), max_size=4))
def test_summing_up_in_parts_gives_the_same_as_at_once(events: list[int | None], cuts: list[int]) -> None:
    whole = Numbers()
    start = 0
    for cut in [*sorted(cuts), len(events)]:
        whole = whole.then(Numbers.of(events[start:cut]))
        start = max(start, cut)
    assert whole == Numbers.of(events)


def test_document_of_a_crash_that_is_newer_than_the_cursor_is_no_drift() -> None:
    newer = sequence(snapshot=9, event_values=[8, 9])
    assert sequence(newer, Memory(5, 5), snapshot=7, event_values=[6, 7])["violations"] == []


def test_document_older_than_the_cursor_hides_no_step_back() -> None:
    older = sequence(snapshot=2, event_values=[1, 2])
    found = sequence(older, Memory(9, 9), snapshot=9, event_values=[5])
    assert found["violations"] == ["event_sequence_regression"]


def test_truncated_log_that_is_read_again_from_its_beginning_is_one_drift() -> None:
    change = LogChange("log_truncated", 9, 4)
    told = sequence(sequence(snapshot=9, event_values=[9]), Memory(9, 9), snapshot=None, change=change)
    assert "event_sequence_regression" in told["violations"]
    memory = next_memory(Memory(9, 9), told)
    assert sequence(told, memory, snapshot=4, event_values=[1, 2, 3, 4])["violations"] == []


@pytest.mark.parametrize(
    ("verdicts", "violations"),
    [
        (["log_replaced", "log_replaced"], []),
        (["log_truncated", "log_replaced"], ["event_sequence_regression"]),
        (["log_replaced", "log_truncated"], ["event_sequence_regression"]),
        (["log_rewritten", "log_truncated"], ["event_sequence_regression", "log_rewritten"]),
    ],
)
def test_changes_that_came_together_are_all_told(verdicts: list[str], violations: list[str]) -> None:
    change = None
    for verdict in verdicts:
        change = LogChange(verdict, 5, 2).after(change)
    found = sequence(snapshot=None, change=change, snapshot_came=False)
    assert found["violations"] == violations
    assert [*found["log"]["earlier"], found["log"]["verdict"]] == verdicts


def test_any_number_of_changes_is_told_in_a_few_words() -> None:
    change = LogChange("log_truncated", 5, 2)
    for _ in range(50):
        change = LogChange("log_replaced", 5, 2).after(change)
    assert change.verdicts == ("log_truncated", "log_replaced", "log_replaced")


def test_snapshot_that_is_not_due_yet_leaves_the_one_before() -> None:
    before = sequence(snapshot=5, event_values=[5])
    found = sequence(before, Memory(5, 5), snapshot=None, event_values=[6], snapshot_came=False)
    assert (found["violations"], found["snapshot"]["current"]) == ([], 5)
    change = LogChange("log_replaced", 5, 1)
    found = sequence(before, Memory(5, 5), snapshot=None, change=change, snapshot_came=False)
    assert (found["violations"], found["snapshot"].get("current")) == ([], None)
