"""Lines of a trace file to messages: what is a trace event travels as it was written."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from spritemesh import jsontext
from superloop.ops.v1 import telemetry_pb2

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

# Twice of what our tracer writes at most.
MAX_LINE_BYTES = 64 * 1024
# A line this short needs no look at how deep it is: each level takes two bytes.
_LONG_BYTES = 2 * jsontext.MAX_DEPTH
# A longer line that has to be parsed as a whole may take milliseconds.
_HEAVY_BYTES = 4 * 1024


class _Header(msgspec.Struct, gc=False):
    trace_id: str


_decode = msgspec.json.Decoder(_Header).decode


def fill_lines(
    found: "RepeatedCompositeFieldContainer[telemetry_pb2.Line]",
    first_number: int,
    lines: Sequence[bytes],
    *,
    patient: bool = True,
) -> tuple[int, str | None]:
    """Fill `found` from consecutive lines without their newlines, the first of which has that number.

    Blank lines are passed. Returns how many lines were taken and "", or how many come before the first that
    is no trace event and the reason code why it is none. With `patient` False, or how many come before the
    first that would take long, and None.
    """
    for number, line in enumerate(lines, first_number):
        try:
            is_plain = (
                len(line) <= MAX_LINE_BYTES
                and bool(_decode(line).trace_id)
                and not (len(line) > _LONG_BYTES and jsontext.may_be_deeper(line))
            )
        except (msgspec.MsgspecError, ValueError, RecursionError):
            is_plain = False
        if not is_plain:
            if not line.strip():
                continue
            if not patient and _HEAVY_BYTES < len(line) <= MAX_LINE_BYTES:
                return number - first_number, None
            if reason := _refusal(line):
                return number - first_number, reason
        added = found.add()
        added.number = number
        try:
            # Bytes are taken as they are, once they have been checked to be UTF-8.
            added.record.json = line  # type: ignore[assignment]
        except ValueError:
            del found[-1]
            return number - first_number, "invalid_json_line"
    return len(lines), ""


def _refusal(line: bytes) -> str:
    """Why a line that is not blank is no trace event; "" when it is one."""
    if len(line) > MAX_LINE_BYTES:
        return "line_too_long"
    try:
        value = jsontext.parse(line)
    except jsontext.JSONError:
        return "invalid_json_line"
    if not isinstance(value, dict):
        return "line_not_object"
    trace_id = value.get("trace_id")
    return "" if trace_id and isinstance(trace_id, str) else "missing_trace_id"
