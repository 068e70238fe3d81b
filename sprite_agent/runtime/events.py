"""One line of the log to one event message (contract C.2, C.3).

The hot path of the whole project: a typed decode lifts only the fields that v1 needs (0.4 us a line),
and the line itself travels as text. Lines with values of unusual kind take the slow way, which spells
the v1 rules out; both give the same message.
"""

import msgspec

from spritemesh import jsontext
from spritemesh.bridge.parts import number_fields
from spritemesh.jsontext import JSON
from spritemesh.values import first, num, nz, text
from superloop.ops.v1 import envelope_pb2 as pb

# A message with such a line, its lifted fields included, stays below gRPC's default limit of 4 MiB.
MAX_LINE_BYTES = 1024 * 1024
# Repaired UTF-8 and values turned into text may take more room than the line did. Beyond these bounds a
# batch of such events would be refused by every reader, for ever.
_MAX_EVENT_BYTES = 5 * 512 * 1024
_MAX_GROWTH = 4
_GROWTH_ALLOWANCE_BYTES = 1024
# A line this short needs no look at how deep it is: each level takes two bytes.
_LONG_BYTES = 2 * jsontext.MAX_DEPTH
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


_decode_header = msgspec.json.Decoder(_Header, strict=True).decode


def fill_event(event: pb.LoopRunEvent, number: int, line: bytes) -> str:
    """Fill `event` from the line of that number; "" when it is one, else the reason code why not.

    What a refused line leaves in `event` has no meaning. The line must not be blank.
    """
    if len(line) > _LONG_BYTES:
        if len(line) > MAX_LINE_BYTES:
            return "line_too_long"
        if jsontext.may_be_deeper(line):
            return _fill_slowly(event, number, line)
    try:
        header = _decode_header(line)
        name = header.event if header.event is not None else header.type
        timestamp = header.timestamp
        if name and timestamp and not (b"\\" in line and _is_cut(header)):
            event.line = number
            event.timestamp = timestamp
            event.name = name
            event.run_id = "unknown" if header.run_id is None else header.run_id
            if header.iteration:
                event.iteration = header.iteration
            if header.role:
                event.role = header.role
            if header.status:
                event.status = header.status
            if header.message:
                event.message = header.message
            # Bytes are taken as they are, once they have been checked to be UTF-8.
            event.raw = line  # type: ignore[assignment]
            return ""
    except (msgspec.MsgspecError, ValueError):
        event.Clear()
    return _fill_slowly(event, number, line)


def _is_cut(header: _Header) -> bool:
    """Whether v1 would cut a lifted text: only an escape can hide a newline or NUL."""
    return any(
        isinstance(value, str) and (value.endswith("\n") or "\0" in value)
        for value in msgspec.structs.astuple(header)
    )


def _fill_slowly(event: pb.LoopRunEvent, number: int, line: bytes) -> str:
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
