"""The cursor and the proof beside it (contract C.1, C.4, remedy L3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.core.cursor import Cursor, Place, cursor_document, read_cursor
from manager.core.sequence import Memory
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON


def document(cursor: Cursor) -> dict[str, JSON]:
    return cursor_document(cursor, now=0, repo_path="/repo", loop_id="alpha", line_count=9)


def test_no_file_is_the_beginning() -> None:
    assert read_cursor(None, "c") == Cursor()


def test_document_adds_one_key_to_those_of_v1() -> None:
    assert list(document(Cursor())) == [
        "schemaVersion",
        "repoPath",
        "loopId",
        "eventsFile",
        "eventLineOffset",
        "eventLineCount",
        "updatedAt",
        "position",
    ]


@pytest.mark.parametrize(("value", "offset"), [(3, 3), ("4", 4), (None, 0), (False, 0), (3.0, 3)])
def test_v1_cursor_is_read_without_a_proof(value: JSON, offset: int) -> None:
    assert read_cursor({"eventLineOffset": value}, "c") == Cursor(offset, Place(offset))


@pytest.mark.parametrize("value", [-1, 1.5, "", "x", True, [], 10**30])
def test_offset_that_is_no_line_number_is_refused_and_the_file_named(value: JSON) -> None:
    with pytest.raises(OpsError, match=r"/x/cursor\.json") as caught:
        read_cursor({"eventLineOffset": value}, "/x/cursor.json")
    assert caught.value.reason == "cursor_invalid"


@pytest.mark.parametrize("value", [[], "x", 5, True])
def test_cursor_that_is_no_object_is_refused(value: JSON) -> None:
    with pytest.raises(OpsError, match="object"):
        read_cursor(value, "c")


def test_position_is_ignored_once_somebody_else_moved_the_cursor() -> None:
    written = document(Cursor(4, Place(5, b"d" * 32, b"f" * 32), Memory(5, 4)))
    assert read_cursor(written | {"eventLineOffset": 2}, "c") == Cursor(2, Place(2))


@pytest.mark.parametrize("digest", ["zz" * 32, "ab", 5, None])
def test_damaged_digest_proves_nothing(digest: JSON) -> None:
    written = document(Cursor(4, Place(5, b"d" * 32, b"f" * 32), Memory(5, 4)))
    written["position"]["logDigest"] = digest
    assert read_cursor(written, "c") == Cursor(4, Place(4), Memory(5, 4))


digests = st.binary(min_size=32, max_size=32)
values = st.none() | st.integers(0, 2**40)


@given(st.integers(0, 2**40), st.integers(0, 9), digests, digests, values, values)
def test_what_is_written_is_read_back(
    offset: int, blank: int, digest: bytes, first: bytes, snapshot: int | None, event: int | None
) -> None:
    cursor = Cursor(offset, Place(offset + blank, digest, first), Memory(snapshot, event))
    assert read_cursor(document(cursor), "c") == cursor


@pytest.mark.parametrize("line", [1e30, 2**63, 2**64])
def test_position_beyond_any_line_number_is_refused_and_the_file_named(line: JSON) -> None:
    written = document(Cursor(4, Place(5, b"d" * 32, b"f" * 32), Memory(5, 4)))
    written["position"]["line"] = line
    with pytest.raises(OpsError, match=r"/x/cursor\.json") as caught:
        read_cursor(written, "/x/cursor.json")
    assert caught.value.reason == "cursor_invalid"


def test_values_beyond_any_line_number_are_not_remembered() -> None:
    written = document(Cursor(4, Place(5, b"d" * 32), Memory(5, 4)))
    written["position"] |= {"lastSnapshotValue": 1e30, "lastEventValue": 2**63}
    assert read_cursor(written, "c").memory == Memory()


def test_digest_filled_up_with_spaces_proves_nothing() -> None:
    written = document(Cursor(4, Place(5, b"d" * 32), Memory(5, 4)))
    written["position"]["logDigest"] = ("ab " * 21) + " "
    assert read_cursor(written, "c").place == Place(4)
