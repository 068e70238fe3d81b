"""What all services read from the metadata of a call."""

from typing import Any

from spritemesh.ids import validate_trace_id
from spritemesh.names import TRACE_ID_HEADER
from spritemesh.traceparent import TRACEPARENT_HEADER, trace_id_of


def trace_id_of_call(requested: str, context: Any) -> str | None:
    """The trace id of a request: its field, else `x-trace-id`, else that of a W3C `traceparent`.

    None without any. A malformed `traceparent` counts as none, as its specification wants. Raises OpsError
    `invalid_trace_id`.
    """
    if not requested:
        found = {TRACE_ID_HEADER: "", TRACEPARENT_HEADER: ""}
        for key, value in context.invocation_metadata() or ():
            if key in found and isinstance(value, str):
                found[key] = value.strip()
        requested = found[TRACE_ID_HEADER] or trace_id_of(found[TRACEPARENT_HEADER])
    return validate_trace_id(requested, field="trace_id") if requested else None
