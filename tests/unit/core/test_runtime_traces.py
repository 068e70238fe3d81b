"""manager.core.runtime_traces: what of a WatchTraces stream counts, and what is no such stream."""

import hashlib
from typing import Any

import pytest

from manager.core.cursor import Place
from manager.core.runtime_traces import MAX_FILES, TraceIntake
from spritemesh.errors import OpsError
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import telemetry_pb2

Message = telemetry_pb2.WatchTracesResponse
FIRST = b"1" * 32


def digest(line: int) -> bytes:
    return hashlib.sha256(str(line).encode()).digest()


def message(**members: Any) -> Message:
    return Message(**members)


def opened(*names: str) -> Message:
    start = [telemetry_pb2.FilePlace(file=name) for name in names]
    return Message(opened=telemetry_pb2.TraceOpened(follow=True, start=start))


def batch(first: int, last: int, *, without: int = 0, file: str = "t", **members: Any) -> Message:
    lines: list[Any] = [
        telemetry_pb2.Line(number=number, record=pb.JsonObject(json=f'{{"trace_id":"{number}"}}'))
        for number in range(first, last + 1)
        if number != without
    ]
    given = {"end_digest": digest(last), "first_line_digest": FIRST, "lines": lines} | members
    found = telemetry_pb2.LineBatch(first_line=first, last_line=last, **given)
    return Message(file=file, batch=found)


def numbers(lines: list[bytes]) -> list[int]:
    return [int(line[len('{"trace_id":"') : -len('"}\n')]) for line in lines]


def taken(intake: TraceIntake, *messages: Message) -> list[int]:
    return numbers([line for message in messages for line in intake.accept(message)])


def test_lines_come_once_whatever_comes_again() -> None:
    intake = TraceIntake({})
    found = taken(intake, opened(), batch(1, 3, without=2), batch(2, 5), batch(4, 5), batch(6, 6))
    assert found == [1, 3, 4, 5, 6]
    assert intake.places == {"t": Place(6, digest(6), FIRST)}
    (place,) = intake.resume()
    assert (place.file, place.position.line, place.position.digest) == ("t", 6, digest(6))
    # That stream is expected now.
    with pytest.raises(OpsError, match="began with batch"):
        intake.accept(batch(7, 7))


def test_next_file_of_a_name_begins_with_its_first_line() -> None:
    intake = TraceIntake({})
    found = taken(intake, opened(), batch(1, 3), batch(1, 2, first_line_digest=b"2" * 32))
    assert found == [1, 2, 3, 1, 2]
    assert intake.places["t"] == Place(2, digest(2), b"2" * 32)


def test_next_file_may_begin_with_the_same_line_and_be_as_long() -> None:
    intake = TraceIntake({})
    assert taken(intake, opened(), batch(1, 3), batch(1, 3, end_digest=b"2" * 32), batch(4, 4)) == [
        *(1, 2, 3),
        *(1, 2, 3, 4),
    ]


def test_stream_that_ends_behind_a_log_reset_is_opened_again_at_the_old_place() -> None:
    intake = TraceIntake({"t": Place(5, digest(5), FIRST)})
    assert taken(intake, opened(), message(file="t", log_reset={})) == []
    (place,) = intake.resume()
    assert (place.position.line, place.position.digest) == (5, digest(5))


def test_log_reset_reads_that_file_from_its_beginning() -> None:
    intake = TraceIntake({"t": Place(5, digest(5), FIRST), "u": Place(2, digest(2), FIRST)})
    assert taken(intake, opened(), message(file="t", log_reset={}), batch(1, 1)) == [1]
    assert (intake.places["t"].line, intake.places["u"].line, intake.resets) == (1, 2, 1)


def test_goodbye_is_told() -> None:
    intake = TraceIntake({})
    assert taken(intake, opened(), message(goodbye={"reason": "drained_to_head"})) == []
    assert intake.ended == "drained_to_head"


NONSENSE = {
    "gap": batch(4, 5),
    "bookmark beyond": message(bookmark={"places": [{"file": "t", "position": {"line": 3}}]}),
    "unknown kind": Message(),
    "no name": batch(3, 3, file=""),
    "long name": batch(3, 3, file="n" * 5000),
    "no name that a file can have": batch(3, 3, file="t\0"),
    "no digest": batch(3, 3, end_digest=b""),
    "two digests": batch(2, 2, end_digest=b"x" * 32),
    "number out of range": batch(3, 3, lines=[{"number": 9, "record": {"json": "{}"}}]),
    "two lines in one": batch(3, 3, lines=[{"number": 3, "record": {"json": "{}\n{}"}}]),
    "no text": batch(3, 3, lines=[{"number": 3, "record": {"json": ""}}]),
    "reset to elsewhere": message(file="t", log_reset={"resume": {"line": 1}}),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_what_cannot_be_is_refused_and_changes_no_place(name: str) -> None:
    intake = TraceIntake({"t": Place(2, digest(2), FIRST)})
    intake.accept(opened("t"))
    with pytest.raises(OpsError) as failure:
        intake.accept(NONSENSE[name])
    lacks = name in {"gap", "bookmark beyond"}
    assert failure.value.reason == ("stream_broken" if lacks else "service_response_invalid")
    assert intake.places["t"] == Place(2, digest(2), FIRST)


def test_names_of_files_are_bounded_and_those_that_are_gone_make_room() -> None:
    intake = TraceIntake({f"f{number}": Place(1, digest(1), FIRST) for number in range(MAX_FILES)})
    intake.accept(opened("f0"))
    with pytest.raises(OpsError, match="more than 64 files"):
        intake.accept(batch(1, 1, file="new"))
    intake.resume()
    assert taken(intake, opened("f0", "new"), batch(1, 1, file="new")) == [1]
    assert set(intake.places) == {"f0", "new"}
