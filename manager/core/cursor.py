"""Where the manager stands in a log: cursor.json and the proof beside it (contract C.1, C.4, L3).

The document keeps v1's members. One more, `position`, holds what v1 does not know: the digest that makes
the place verifiable, and the values that sequence checks must not forget (L12). A v1 tool that moves the
cursor drops or outdates `position`; it then counts as not there.
"""

from typing import NamedTuple

from manager.core.sequence import Memory
from spritemesh.errors import OpsError, kind_of
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc
from spritemesh.values import digits, drop, first, get, whole

_DIGEST_BYTES = 32
# What a line number in a message can hold.
_LAST_LINE = 2**63 - 1


class Place(NamedTuple):
    """A place in a log. line: complete lines before it. digest: SHA-256 over them, first_line_digest: over
    the first of them; empty when not known."""

    line: int = 0
    digest: bytes = b""
    first_line_digest: bytes = b""


class Cursor(NamedTuple):
    """offset: v1's eventLineOffset. place: where reading goes on, at or after `offset` by blank lines."""

    offset: int = 0
    place: Place = Place()
    memory: Memory = Memory()


def read_cursor(document: JSON, path: str) -> Cursor:
    """The cursor of a document; the beginning when it is None, that is, when there is no file.

    Raises OpsError `cursor_invalid`, naming `path`.
    """
    if document is None:
        return Cursor()
    if not isinstance(document, dict):
        raise OpsError("cursor_invalid", f"cursor {path} holds {kind_of(document)} instead of an object")
    offset = digits(first(document.get("eventLineOffset"), 0))
    if offset is None or offset > _LAST_LINE:
        raise OpsError("cursor_invalid", f"cursor {path}: eventLineOffset is no line number")
    position = document.get("position")
    line = whole(get(position, "line"))
    if whole(get(position, "offset")) != offset or line is None or line < offset:
        return Cursor(offset, Place(offset))
    if line > _LAST_LINE:
        raise OpsError("cursor_invalid", f"cursor {path}: position.line is no line number")
    place = read_place(position, line=line)
    memory = Memory(_value(get(position, "lastSnapshotValue")), _value(get(position, "lastEventValue")))
    if not place.digest:
        return Cursor(offset, Place(offset), memory)
    return Cursor(offset, place, memory)


def cursor_document(
    cursor: Cursor, *, now: float, repo_path: str, loop_id: str, line_count: int
) -> dict[str, JSON]:
    """The document cursor.json. line_count: complete lines of the log."""
    return {
        "schemaVersion": "v1",
        "repoPath": repo_path,
        "loopId": loop_id,
        "eventsFile": f".superloop/loops/{loop_id}/events.jsonl",
        "eventLineOffset": cursor.offset,
        "eventLineCount": line_count,
        "updatedAt": format_utc(now),
        "position": drop(
            {
                "offset": cursor.offset,
                **place_document(cursor.place),
                "lastSnapshotValue": cursor.memory.snapshot_value,
                "lastEventValue": cursor.memory.event_value,
            }
        ),
    }


def read_place(document: JSON, *, line: int) -> Place:
    """The place whose digests an object tells; what is no digest counts as not known."""
    return Place(line, _digest(get(document, "logDigest")), _digest(get(document, "firstLineDigest")))


def place_document(place: Place) -> dict[str, JSON]:
    """A place as documents spell it."""
    return drop(
        {
            "line": place.line,
            "logDigest": place.digest.hex() or None,
            "firstLineDigest": place.first_line_digest.hex() or None,
        }
    )


def _value(value: JSON) -> int | None:
    """A sequence value; None for anything else, which then is no longer remembered."""
    number = whole(value)
    return None if number is None or number > _LAST_LINE else number


def _digest(value: JSON) -> bytes:
    """32 bytes from their hexadecimal text; empty for anything else."""
    if not isinstance(value, str):
        return b""
    try:
        digest = bytes.fromhex(value)
    except ValueError:
        return b""
    # White space may stand between the digits: the number of characters says nothing.
    return digest if len(digest) == _DIGEST_BYTES else b""
