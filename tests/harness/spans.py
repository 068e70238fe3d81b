"""Lines of trace files as the runtime's tracer leaves them."""

import json
import os
from pathlib import Path
from typing import Any

from spritemesh.times import format_utc_milliseconds

BEGAN = 1_705_180_800.0


def span(number: int, *, parent: int | None = None, at: float = BEGAN, **members: Any) -> bytes:
    """The line of a span with its newline. number: its own, which makes its id; parent: that of another.
    members replace or add to the usual ones."""
    line: dict[str, Any] = {
        "trace_id": span_id(number),
        "parent_id": None if parent is None else span_id(parent),
        "timestamp": format_utc_milliseconds(at + number / 1000),
        "hrm_layer": "reasoning",
        "operation": "route",
        "component": "router.py",
        "input_summary": f"input {number}",
        "output_summary": "",
        "duration_ms": 1.5,
        "status": "success",
        "metadata": {},
    }
    return json.dumps(line | members, separators=(",", ":")).encode() + b"\n"


def spans(first: int, last: int) -> bytes:
    """The lines of the spans with these numbers."""
    return b"".join(span(number) for number in range(first, last + 1))


def span_id(number: int) -> str:
    """The id of the span of that number."""
    return f"rsn_{int(BEGAN)}_{number:016x}"


def append(path: Path, data: bytes) -> None:
    """Append in one write, as the tracer does."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, data)
    finally:
        os.close(handle)
