"""Lines of trace files as readers take them: those of any writer, with all that can be wrong with one.

Only `trace_id` has to be there. Other members may be missing or null, come in any order, and more may be
there than are known here.
"""

from datetime import UTC, datetime
from math import inf, isfinite
from typing import Any

import msgspec

from spritemesh import jsontext
from spritemesh.errors import kind_of
from spritemesh.tracing.layers import BY_WORD

STATUSES = ("success", "error", "blocked")
# So much of a damaged line is shown, and so many of them.
_SHOWN_BYTES = 120
_SHOWN_LINES = 10
_REMEMBERED_LINES = 100_000


class Facts(msgspec.Struct, gc=False):
    """What selections, trees and statistics look at. timestamp: when it began, ISO 8601. duration_ms:
    milliseconds."""

    trace_id: str
    parent_id: str | None = None
    timestamp: str | None = None
    hrm_layer: str | None = None
    operation: str | None = None
    component: str | None = None
    input_summary: str | None = None
    output_summary: str | None = None
    duration_ms: float | None = None
    status: str | None = None


class Malformed(ValueError):
    """A line is no event; the text tells why."""


_decoder = msgspec.json.Decoder(Facts)


def facts_of(line: bytes) -> Facts:
    """The facts of a line. Raises Malformed."""
    try:
        if not line.isascii():
            line.decode()
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _slowly(line)


def facts_of_lines(data: bytes, start: int, stop: int) -> list[Facts] | None:
    """The facts of the whole lines data[start:stop], at half the cost of each alone; None when they have to
    be looked at one by one.

    As many values as lines means one a line, unless some lines hold two values and others half a one, as no
    writer's do; `is_one_a_line` is sure, and costs as much again.
    """
    count = data.count(b"\n", start, stop)
    if not (data.startswith(b"{", start) and data.endswith(b"}\n", start, stop)):
        return None
    lines = memoryview(data)[start:stop]
    try:
        if not data.isascii():
            str(lines, "utf-8")
        found = _decoder.decode_lines(lines)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return found if len(found) == count else None


def is_one_a_line(found: list[Facts], data: bytes, start: int, stop: int) -> bool:
    """Whether each of the lines in which facts_of_lines found these has one: all begin with `{` and end with
    `}`, and no value can go on over such a line end."""
    return data.count(b"}\n{", start, stop) == len(found) - 1


class Damaged(msgspec.Struct):
    """A malformed line. position: in the files. problem: what is wrong with it. text: how it begins."""

    position: int
    problem: str
    text: str


class Damage:
    """Counts malformed lines, and keeps the first ones met to show."""

    def __init__(self) -> None:
        self.shown: list[Damaged] = []
        self._seen: set[int] = set()
        self._more = 0

    @property
    def count(self) -> int:
        return len(self._seen) + self._more

    def note(self, position: int, problem: str, line: bytes) -> None:
        """One more; one that a search passes again counts once, up to a hundred thousand of them."""
        if position in self._seen:
            return
        if len(self._seen) < _REMEMBERED_LINES:
            self._seen.add(position)
        else:
            self._more += 1
        if len(self.shown) < _SHOWN_LINES:
            text = line[:_SHOWN_BYTES].decode("utf-8", "replace")
            self.shown.append(Damaged(position, problem, text))


def document(line: bytes) -> dict[str, Any]:
    """All members of an event, unknown ones too. Raises Malformed."""
    facts_of(line)
    return _document(line)


def seconds_of(stamp: str | None) -> float | None:
    """Unix seconds of an ISO 8601 time; None when it is none. Without an offset it counts as UTC."""
    try:
        at = datetime.fromisoformat(stamp or "")
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def layer_name(hrm_layer: str | None) -> str:
    """The full name of a layer, which some writers give by its prefix."""
    layer = BY_WORD.get(hrm_layer or "")
    return layer.name if layer else hrm_layer or ""


def _slowly(line: bytes) -> Facts:
    """As facts_of, for what msgspec refuses: half characters, as Python's writers escape undecodable names,
    or damage."""
    found = _document(line)
    if "trace_id" not in found:
        raise Malformed("has no trace_id")
    for name in Facts.__struct_fields__:
        value = found.get(name)
        wanted = {"number", "null"} if name == "duration_ms" else {"string", "null"}
        if kind_of(value) not in (wanted if name != "trace_id" else {"string"}):
            raise Malformed(f"has {kind_of(value)} as {name}")
    members = {name: found[name] for name in Facts.__struct_fields__ if name in found}
    try:
        milliseconds = members.pop("duration_ms", None)
        duration_ms = None if milliseconds is None else float(milliseconds)
    except OverflowError:
        duration_ms = inf
    if duration_ms is not None and not isfinite(duration_ms):
        raise Malformed("has a duration_ms beyond all measure")
    return Facts(**members, duration_ms=duration_ms)


def _document(line: bytes) -> dict[str, Any]:
    try:
        line.decode()
    except UnicodeDecodeError:
        raise Malformed("is not UTF-8") from None
    if b"\0" in line:
        raise Malformed("holds NUL bytes")
    try:
        value = jsontext.parse(line)
    except jsontext.JSONError as error:
        deep = "nested" in str(error)
        raise Malformed("is nested too deeply" if deep else "is not valid JSON") from None
    if not isinstance(value, dict):
        raise Malformed(f"is {kind_of(value)} and no object")
    return value
