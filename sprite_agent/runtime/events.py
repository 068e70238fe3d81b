"""One line of the log to one event message (contract C.2, C.3).

The hot path of the whole project: a typed decode lifts only the fields that v1 needs (0.4 us a line),
and the line itself travels as text. Lines with values of unusual kind take the slow way, which spells
the v1 rules out; both give the same message.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING

import msgspec

from spritemesh import jsontext
from spritemesh.bridge.parts import number_fields
from spritemesh.jsontext import JSON
from spritemesh.values import first, num, nz, text
from superloop.ops.v1 import envelope_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

# A message with such a line, its lifted fields included, stays below gRPC's default limit of 4 MiB.
MAX_LINE_BYTES = 1024 * 1024
# Repaired UTF-8 and values turned into text may take more room than the line did. Beyond these bounds a
# batch of such events would be refused by every reader, for ever.
_MAX_EVENT_BYTES = 5 * 512 * 1024
_MAX_GROWTH = 4
_GROWTH_ALLOWANCE_BYTES = 1024
# A line this short needs no look at how deep it is: each level takes two bytes.
_LONG_BYTES = 2 * jsontext.MAX_DEPTH
# Reading a line of values that v1 turns into text takes a microsecond for each of its bytes, or two.
_HEAVY_BYTES = 2048
_OPENING, _CLOSING = {ord("{")}, {ord("}")}
_first_byte, _last_byte = itemgetter(0), itemgetter(-1)
_LIFTED = ("event", "type", "timestamp", "run_id", "role", "status", "message")


class _Header(msgspec.Struct, gc=False):
    event: str | None = None
    type: str | None = None
    timestamp: str | None = None
    run_id: str | None = None
    iteration: int | None = None
    role: str | None = None
    status: str | None = None
    message: str | None = None


# What a decoder may raise: no JSON or an unusual value, no UTF-8, nested too deeply.
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
_decode_header_lines = msgspec.json.Decoder(_Header, strict=True).decode_lines


def fill_events(
    events: "RepeatedCompositeFieldContainer[pb.LoopRunEvent]",
    first_number: int,
    lines: Sequence[bytes],
    *,
    patient: bool = True,
) -> tuple[int, str | None]:
    """Fill `events` from consecutive lines without their newlines, the first of which has that number.

    Blank lines are passed. Returns how many lines were taken and "", or how many come before the first that
    is no event and the reason code why it is none. With `patient` False, or how many come before the first
    that would take long, and None.
    """
    block = b"\n".join(lines)
    headers = _decode_headers(lines, block)
    if headers is None:
        return _fill_one_by_one(events, first_number, lines, patient)
    # Asked once a block what would cost a tenth of the rate to ask of every line.
    escapes = b"\\" in block
    long_lines = max(map(len, lines)) > _LONG_BYTES
    add = events.add
    number = first_number
    for line, header in zip(lines, headers, strict=True):
        event = add()
        name = header.type if header.event is None else header.event
        timestamp = header.timestamp
        try:
            if (
                not name
                or not timestamp
                # A number, since `in` first tries to read a bytes operand as one, at seven times the cost.
                or (escapes and 0x5C in line and _is_cut(header))
                or (long_lines and len(line) > _LONG_BYTES and jsontext.may_be_deeper(line))
            ):
                raise ValueError(line)
            event.line = number
            event.timestamp = timestamp
            event.name = name
            run_id = header.run_id
            event.run_id = "unknown" if run_id is None else run_id
            if iteration := header.iteration:
                event.iteration = iteration
            if role := header.role:
                event.role = role
            if status := header.status:
                event.status = status
            if message := header.message:
                event.message = message
            # Bytes are taken as they are, once they have been checked to be UTF-8.
            event.raw = line  # type: ignore[assignment]
        except ValueError:  # not ordinary: an odd value, no UTF-8, a number beyond 64 bits
            event.Clear()
            hurried = not patient and len(line) > _HEAVY_BYTES
            reason = None if hurried else _fill_slowly(event, number, line)
            if reason != "":
                del events[-1]
                return number - first_number, reason
        number += 1
    return len(lines), ""


def fill_event(event: pb.LoopRunEvent, number: int, line: bytes) -> str:
    """Fill `event` from the one line of that number; "" when it is one, else the reason code why not.

    What a refused line leaves in `event` has no meaning. The line must not be blank.
    """
    batch = pb.EventBatch()
    _, reason = fill_events(batch.events, number, (line,))
    if not reason:
        event.CopyFrom(batch.events[0])
    return reason or ""


def _fill_one_by_one(
    events: "RepeatedCompositeFieldContainer[pb.LoopRunEvent]",
    first_number: int,
    lines: Sequence[bytes],
    patient: bool,
) -> tuple[int, str | None]:
    """As fill_events for lines among which something is odd: the ordinary ones still go the quick way."""
    for number, line in enumerate(lines, first_number):
        if not line.strip():
            continue
        reason: str | None
        if len(lines) > 1:
            _, reason = fill_events(events, number, (line,), patient=patient)
        elif not patient and len(line) > _HEAVY_BYTES:
            reason = None
        elif reason := _fill_slowly(events.add(), number, line):
            del events[-1]
        if reason != "":
            return number - first_number, reason
    return len(lines), ""


def _decode_headers(lines: Sequence[bytes], block: bytes) -> list[_Header] | None:
    """The headers of many lines in one call, cheaper than one by one; None when that is not sure.

    The decoder separates values by syntax, not by newlines. But where every line begins with { and ends
    with }, no value can go on behind its line: what followed would have to be , or } or ]. And where there
    are as many values as lines, no line holds two.
    """
    try:
        if set(map(_first_byte, lines)) != _OPENING or set(map(_last_byte, lines)) != _CLOSING:
            return None
        headers = _decode_header_lines(block)
    except IndexError:  # an empty line
        return None
    except _UNREADABLE:
        return None
    return headers if len(headers) == len(lines) else None


def _is_cut(header: _Header) -> bool:
    """Whether v1 would cut a lifted text: only an escape can hide a newline or NUL."""
    for value in (
        header.message,
        header.event,
        header.type,
        header.timestamp,
        header.run_id,
        header.role,
        header.status,
    ):
        if value and (value[-1] == "\n" or "\0" in value):
            return True
    return False


def _fill_slowly(event: pb.LoopRunEvent, number: int, line: bytes) -> str:
    if len(line) > MAX_LINE_BYTES:
        return "line_too_long"
    try:
        value = jsontext.parse(line)
    except jsontext.JSONError:
        return "invalid_json_line"
    if not isinstance(value, dict):
        return "line_not_object"
    if is_wordy(value):
        return "line_too_long"
    name = _member_text(value, "event", "type")
    if not name:
        return "missing_event_name"
    timestamp = _member_text(value, "timestamp")
    if not timestamp:
        return "missing_event_timestamp"
    event.line = number
    event.timestamp = timestamp
    event.name = name
    event.run_id = text_field(first(value.get("run_id"), "unknown"))
    event.iteration, event.iteration_literal = number_fields(num(first(value.get("iteration"), 0)))
    for field in ("role", "status", "message"):
        lifted = nz(_member_text(value, field))
        if lifted is not None:
            setattr(event, field, lifted)
    event.raw = line.decode("utf-8", "replace")
    if event.ByteSize() > min(_MAX_EVENT_BYTES, _MAX_GROWTH * len(line) + _GROWTH_ALLOWANCE_BYTES):
        return "line_too_long"
    return ""


def is_wordy(line: dict[str, JSON]) -> bool:
    """Whether lifting a text out of the line would take far more room than the line does.

    v1 lifts an object as indented text: deep inside, each of its members costs a line of blanks.
    """
    values = [(1, value) for name in _LIFTED if isinstance(value := line.get(name), dict | list)]
    blanks = 0
    while values and blanks <= _MAX_EVENT_BYTES:
        level, value = values.pop()
        blanks += 2 * level * (len(value) + 1)
        members = value.values() if isinstance(value, dict) else value
        values.extend((level + 1, member) for member in members if isinstance(member, dict | list))
    return blanks > _MAX_EVENT_BYTES


def is_event(line: bytes) -> bool:
    """Whether a line, without its newline, is an event."""
    return bool(line.strip()) and not fill_event(pb.LoopRunEvent(), 1, line)


def text_field(value: JSON) -> str:
    """text(value) as a protobuf string can hold it: lone surrogates become U+FFFD."""
    result = text(value)
    try:
        result.encode()
    except UnicodeEncodeError:
        result = result.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return result


def _member_text(line: dict[str, JSON], *names: str) -> str:
    return text_field(first(*(line.get(name) for name in names), ""))
