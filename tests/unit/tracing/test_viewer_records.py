"""What is read of a line, and what is said of one that is none."""

import json

import pytest

from spritemesh.tracing.reading.records import (
    Damage,
    Malformed,
    document,
    facts_of,
    facts_of_lines,
    is_one_a_line,
    layer_name,
    seconds_of,
)
from tests.harness.tracefiles import event, line

MALFORMED = {
    b'{"trace_id":"alt_1_aaaa"': "is not valid JSON",
    b"[1]": "is array and no object",
    b"7": "is number and no object",
    b'{"parent_id":null}': "has no trace_id",
    b'{"trace_id":7}': "has number as trace_id",
    b'{"trace_id":null}': "has null as trace_id",
    b'{"trace_id":"a","operation":["x"]}': "has array as operation",
    b'{"trace_id":"a","duration_ms":"5"}': "has string as duration_ms",
    b'{"trace_id":"a","duration_ms":true}': "has boolean as duration_ms",
    b'{"trace_id":"a","duration_ms":1e999}': "has a duration_ms beyond all measure",
    b'{"trace_id":"a","duration_ms":NaN}': "is not valid JSON",
    b'{"trace_id":"a"}\0\0\0': "holds NUL bytes",
    b'{"trace_id":"a","metadata":"\xff"}': "is not UTF-8",
    b'{"trace_id":"a"} {"trace_id":"b"}': "is not valid JSON",
    b'{"trace_id":"a","metadata":' + b"[" * 5000 + b"]" * 5000 + b"}": "is nested too deeply",
}


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: text[:40].decode("ascii", "replace"))
def test_malformed_line_is_told_whatever_is_wrong_with_it(text: bytes) -> None:
    with pytest.raises(Malformed, match=MALFORMED[text]):
        facts_of(text)
    lines = line(event("a")) + text + b"\n"
    assert facts_of_lines(lines, 0, len(lines)) is None


@pytest.mark.parametrize(
    "text",
    [
        b'{"trace_id":"a"',
        b'{"trace_id":"a"}{"trace_id":"b"}',
        b'{"trace_id":"a"\n}',
        b'{"trace_id":"a","x":\n{}}',
        b'\n{"trace_id":"a"}',
    ],
)
def test_lines_that_are_not_one_value_each_are_not_read_at_once(text: bytes) -> None:
    lines = line(event("x")) + text + b"\n" + line(event("y"))
    assert facts_of_lines(lines, 0, len(lines)) is None


def test_lines_that_make_up_for_each_other_are_told_from_good_ones() -> None:
    bad = line(event("x")) + b'{"trace_id":"a"}{"trace_id":"b"}\n{"trace_id":"c",\n"x":1}\n'
    good = line(event("x")) * 4
    for lines, is_good in ((bad, False), (good, True)):
        found = facts_of_lines(lines, 0, len(lines))
        assert found is not None
        assert is_one_a_line(found, lines, 0, len(lines)) is is_good


def test_lines_read_at_once_are_what_each_is_alone() -> None:
    lines = [line(event(f"mem_1_{number:04}", metadata={"ä": [{}, "}\n{"]})) for number in range(9)]
    data = b"{}\n" + b"".join(lines) + b"{"
    found = facts_of_lines(data, 3, len(data) - 1)
    assert found == [facts_of(each) for each in lines]


def test_other_writers_are_understood() -> None:
    text = (
        b'{ "status" : null, "more": {"x": 1}, "duration_ms": 3,'
        b' "hrm_layer": "alt", "trace_id" : "alt_1_a3f2" }'
    )
    found = facts_of(text)
    assert (found.trace_id, found.duration_ms, layer_name(found.hrm_layer)) == ("alt_1_a3f2", 3.0, "altitude")
    assert document(text)["more"] == {"x": 1}


def test_half_a_character_is_kept() -> None:
    text = json.dumps(event("a", operation="\udcff", duration_ms=3) | {"\ud800": 1}).encode()
    assert facts_of(text).operation == "\udcff"


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("1970-01-01T00:00:01.500000Z", 1.5),
        ("1970-01-01T00:00:01", 1.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1970-01-02", 86400.0),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_times(stamp: str | None, seconds: float | None) -> None:
    assert seconds_of(stamp) == seconds


def test_damage_counts_each_line_once_and_keeps_the_first() -> None:
    damage = Damage()
    for position in (*range(30), *range(30)):
        damage.note(position, "is bad", b"x" * 1000)
    assert (damage.count, [shown.position for shown in damage.shown]) == (30, list(range(10)))
    assert all(len(shown.text) < 200 for shown in damage.shown)
