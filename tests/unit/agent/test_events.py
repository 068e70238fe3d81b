"""One line to one event: both ways of reading it agree, and no line breaks a stream."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprite_agent.runtime.events import MAX_LINE_BYTES, _fill_slowly, fill_event, fill_events
from superloop.ops.v1 import envelope_pb2 as pb
from tests.harness.loops import event

# A reader accepts messages of 4 MiB; a batch holds at most so many bytes of other lines.
LARGEST_MESSAGE = 4 * 1024 * 1024
BATCH_BYTES = 64 * 1024


def read(line: bytes, number: int = 7) -> tuple[str, pb.LoopRunEvent]:
    found = pb.LoopRunEvent()
    return fill_event(found, number, line), found


def with_member(text: str) -> bytes:
    return ('{"timestamp":"t","event":"e",' + text + "}").encode("utf-8", "surrogateescape")


def both_agree(line: bytes) -> None:
    quick, slow = pb.LoopRunEvent(), pb.LoopRunEvent()
    reasons = fill_event(quick, 3, line), _fill_slowly(slow, 3, line)
    assert reasons[0] == reasons[1]
    if not reasons[0]:
        assert quick == slow


def test_plain_line_is_lifted_and_kept_as_written() -> None:
    line = event(4, "role_start", status="ok", message="hm", run_id="r")[:-1]
    reason, found = read(line)
    assert reason == ""
    assert (found.line, found.name, found.timestamp) == (7, "role_start", "2026-02-22T03:45:00Z")
    assert (found.run_id, found.iteration, found.role) == ("r", 4, "implementer")
    assert (found.status, found.message, found.raw) == ("ok", "hm", line.decode())


def test_absent_and_empty_texts_are_unset() -> None:
    _, found = read(b'{"timestamp":"t","type":"e","role":"","status":null}')
    assert (found.name, found.run_id, found.iteration) == ("e", "unknown", 0)
    assert not any(found.HasField(name) for name in ("role", "status", "message", "payload"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{broken", "invalid_json_line"),
        (b'{"timestamp":"t","event":"e"} {}', "invalid_json_line"),
        (b'{"timestamp":"t","event":"e","data":"\x01"}', "invalid_json_line"),
        (b'{"timestamp":"t","event":"e"}\0', "invalid_json_line"),
        (b'\xef\xbb\xbf{"timestamp":"t","event":"e"}', "invalid_json_line"),
        (b"[]", "line_not_object"),
        (b"null", "line_not_object"),
        (b'"text"', "line_not_object"),
        (b"{}", "missing_event_name"),
        (b'{"timestamp":"t","event":"","type":"e"}', "missing_event_name"),
        (b'{"event":"e"}', "missing_event_timestamp"),
        (b'{"event":"e","timestamp":false}', "missing_event_timestamp"),
        (b'{"timestamp":"t","event":"\\u0000\\n"}', "missing_event_name"),
    ],
)
def test_line_that_is_no_event_is_told_why(line: bytes, reason: str) -> None:
    assert read(line)[0] == reason


def test_line_is_too_long_from_the_first_byte_over_the_limit() -> None:
    frame = len(with_member('"message":""'))
    longest = with_member('"message":"' + "x" * (MAX_LINE_BYTES - frame) + '"')
    assert (len(longest), read(longest)[0]) == (MAX_LINE_BYTES, "")
    assert read(longest + b" ")[0] == "line_too_long"


@pytest.mark.parametrize("levels", [257, 1000, 5000, 500_000])
@pytest.mark.parametrize("member", ["data", "message"])
def test_line_nested_too_deeply_is_refused_and_breaks_nothing(levels: int, member: str) -> None:
    line = with_member(f'"{member}":' + "[" * levels + "]" * levels)
    assert read(line)[0] == "invalid_json_line"


def test_line_nested_as_deeply_as_v1_reads_is_an_event() -> None:
    assert read(with_member('"data":' + "[" * 255 + "]" * 255))[0] == ""


def test_brackets_inside_of_texts_are_no_nesting() -> None:
    line = with_member('"data":"' + "[{" * 600 + '","more":[' + "{}," * 400 + "{}]")
    assert read(line)[0] == ""


@pytest.mark.parametrize(
    "line",
    [
        with_member('"message":"' + "\udcff" * 1_000_000 + '"'),
        with_member('"message":' + "[" * 200 + "1," * 100_000 + "1" + "]" * 200),
        with_member('"role":' + "[" * 250 + "]" * 250),
        with_member('"message":' + '{"a":' * 200 + "1" + "}" * 200),
    ],
    ids=["repaired text", "wide at depth", "small but deep", "object at depth"],
)
def test_event_never_outgrows_what_a_reader_accepts(line: bytes) -> None:
    reason, found = read(line)
    if not reason:
        # As many of these as share a batch, and one more of the largest size, must fit one message.
        assert found.ByteSize() * max(1, BATCH_BYTES // len(line)) < LARGEST_MESSAGE - 3 * MAX_LINE_BYTES
    assert reason in {"", "line_too_long"}


def test_moderate_objects_are_lifted_as_indented_text() -> None:
    _, found = read(b'{"timestamp":"t","event":"e","message":{"a":[1,2]},"role":3,"status":true}')
    assert found.message == '{\n  "a": [\n    1,\n    2\n  ]\n}'
    assert (found.role, found.status) == ("3", "true")


# --- both ways agree -----------------------------------------------------------------------------------

_chars = st.characters(codec=None, exclude_categories=[])
_scalar = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(_chars, max_size=8), st.integers(-3, 3)
)
_value = st.recursive(
    _scalar,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
_name = st.sampled_from(
    ["event", "type", "timestamp", "run_id", "iteration", "role", "status", "message", "data", "x"]
)
_members = st.lists(st.tuples(_name, st.one_of(_value, st.sampled_from(["e", "t", "a\n", "\0", "\r"]))))


@settings(max_examples=250, deadline=None)
@given(members=_members, complete=st.booleans(), plain=st.booleans())
def test_quick_and_slow_reading_agree_on_any_object(
    members: list[tuple[str, object]], complete: bool, plain: bool
) -> None:
    # Written by hand, since a name may occur twice.
    if complete:
        members = [("event", "e"), ("timestamp", "t"), *members]
    pairs = (f"{json.dumps(name)}:{json.dumps(value, ensure_ascii=plain)}" for name, value in members)
    both_agree(("{" + ",".join(pairs) + "}").encode("utf-8", "surrogatepass"))


@settings(max_examples=200, deadline=None)
@given(
    noise=st.binary(max_size=6),
    at=st.integers(0, 200),
    cut=st.integers(0, 3),
)
def test_quick_and_slow_reading_agree_on_damaged_lines(noise: bytes, at: int, cut: int) -> None:
    line = event(1, message="a\\b", data={"x": [1.5, None, "é"]})[:-1]
    both_agree(line[:at] + noise.replace(b"\n", b"") + line[at + cut :])


_odd_lines = st.sampled_from(
    [
        b"",
        b" \t\r",
        b"{",
        b"}",
        b"{}",
        b"{}{}",
        b'{"a":[{}',
        b'{"timestamp":"t","event":"e"}',
        b'{"timestamp":"t","event":"e"} ',
        b' {"timestamp":"t","event":"e"}',
        b'{"timestamp":"t","event":"e"}{"timestamp":"t","event":"e"}',
        b'{"timestamp":"t","event":"e","message":"\xff"}',
        b'{"timestamp":"t","event":"e","message":"a\\n"}',
        b'{"timestamp":"t","event":"e","iteration":1.5}',
        b'{"timestamp":"t","event":"e","data":' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"timestamp":"t","event":"",',
        b'"event":"f"}',
    ]
)
_any_line = st.one_of(_odd_lines, st.integers(1, 5).map(lambda number: event(number)[:-1]))


@settings(max_examples=300, deadline=None)
@given(lines=st.lists(_any_line, min_size=1, max_size=8))
def test_many_lines_are_read_as_each_of_them_would_be(lines: list[bytes]) -> None:
    batch = pb.EventBatch()
    taken, reason = fill_events(batch.events, 11, lines)
    expected = pb.EventBatch()
    for number, line in enumerate(lines, 11):
        if not line.strip():
            continue
        refused = fill_event(found := pb.LoopRunEvent(), number, line)
        if refused:
            assert (taken, reason) == (number - 11, refused)
            break
        expected.events.append(found)
    else:
        assert (taken, reason) == (len(lines), "")
    assert batch == expected
