"""W3C Trace Context, level 1: the header `traceparent` (https://www.w3.org/TR/trace-context-1/).

    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
                 version, trace id, parent id, flags

Of a header we take the trace id. What we send names a new parent, since we keep no spans.
"""

import os

from spritemesh.names import TRACE_ID_HEADER

TRACEPARENT_HEADER = "traceparent"
TRACEPARENT_VARIABLE = "TRACEPARENT"

_HEX_DIGITS = frozenset("0123456789abcdef")
_UUID_PARTS = [8, 4, 4, 4, 12]
_SAMPLED = "01"


def trace_id_of(header: str) -> str:
    """The trace id of a `traceparent`, 32 lower-case hexadecimal digits; "" when it is malformed.

    A version above 00 may carry more after its flags; version ff, upper case and ids of zeros are invalid.
    """
    parts = header.strip().split("-", 4)
    if len(parts) < 4 or [len(part) for part in parts[:4]] != [2, 32, 16, 2]:
        return ""
    version, trace_id, parent_id, flags = parts[:4]
    if not _HEX_DIGITS.issuperset(version + trace_id + parent_id + flags):
        return ""
    if version == "ff" or (version == "00" and len(parts) > 4):
        return ""
    if not trace_id.strip("0") or not parent_id.strip("0"):
        return ""
    return trace_id


def traceparent_for(trace_id: str) -> str | None:
    """A `traceparent` that carries `trace_id`, with a new parent id and the flag "sampled".

    None unless the id is a UUID or 32 hexadecimal digits, in either case not all zeros: other ids, which v1
    allows, have no place in this header.
    """
    digits = hex_form(trace_id)
    if not digits:
        return None
    parent_id = os.urandom(8).hex()
    # One in 2**64 would be invalid.
    return f"00-{digits}-{parent_id if parent_id.strip('0') else parent_id[:-1] + '1'}-{_SAMPLED}"


def trace_headers(trace_id: str | None) -> tuple[tuple[str, str], ...]:
    """The headers that forward a trace id: `x-trace-id`, and `traceparent` where the id has a place in it.

    None for an id that no header can hold, of which v1 has some; the request's own field carries those.
    """
    if not trace_id or not trace_id.isascii():
        return ()
    header = traceparent_for(trace_id)
    own = (TRACE_ID_HEADER, trace_id)
    return (own, (TRACEPARENT_HEADER, header)) if header else (own,)


def other_spelling(trace_id: str) -> str:
    """A UUID as W3C writes it, 32 hexadecimal digits as a UUID; "" for every other id."""
    digits = hex_form(trace_id)
    if "-" in trace_id or not digits:
        return digits
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def hex_form(trace_id: str) -> str:
    """`trace_id` as W3C writes it: of a UUID or 32 hexadecimal digits the lower-case digits, else ""."""
    parts = trace_id.split("-")
    if len(parts) > 1 and [len(part) for part in parts] != _UUID_PARTS:
        return ""
    digits = "".join(parts).lower()
    if len(digits) != 32 or not _HEX_DIGITS.issuperset(digits) or not digits.strip("0"):
        return ""
    return digits
