"""What there is while tracing is on: the writer of lines, the console, and what lines say of the process."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from spritemesh.tracing import identity
from spritemesh.tracing.layers import Layer
from spritemesh.tracing.metadata import ITEMS, TEXT_CHARS, bounded, is_simple
from spritemesh.tracing.settings import LEVELS

if TYPE_CHECKING:
    from spritemesh.tracing.writing.console import Console
    from spritemesh.tracing.writing.writer import Writer

# A line has at most so many bytes.
LINE_BYTES = 32 * 1024
# An operation or component.
LABEL_CHARS = 200
# Characters of a text and number of members in metadata, until a line fits; the last always does.
_SMALLER = ((TEXT_CHARS, ITEMS), (500, 100), (50, 20))

_encode: Callable[[object], bytes] = msgspec.json.Encoder().encode


class Recorder:
    """Writes lines. Shared by all threads; nothing here waits or raises.

    level: one of LEVELS. parent_id: what roots hang from, "" for nothing. ops_trace_id: what they carry, ""
    for none. console: None when it is off.
    """

    __slots__ = ("console", "level", "ops_trace_id", "parent_id", "successor", "wanted", "writer")

    def __init__(
        self,
        writer: "Writer",
        *,
        level: str,
        parent_id: str = "",
        ops_trace_id: str = "",
        console: "Console | None" = None,
    ) -> None:
        self.writer = writer
        self.level = level
        self.wanted = LEVELS[level]
        self.parent_id = parent_id
        self.ops_trace_id = ops_trace_id
        self.console = console
        # Once this one is closed: what takes the lines of spans that are still open; None for nothing.
        self.successor: Callable[[], Recorder | None] | None = None

    def part(self) -> "Recorder":
        """Another one for new spans; those of this one write nothing from now on."""
        other = Recorder(
            self.writer,
            level=self.level,
            parent_id=self.parent_id,
            ops_trace_id=self.ops_trace_id,
            console=self.console,
        )
        self.wanted = frozenset()
        return other

    def write(
        self,
        trace_id: str,
        parent_id: str,
        timestamp: str,
        layer: Layer,
        operation: str,
        component: str,
        input_summary: str,
        output_summary: str,
        duration_ms: float,
        status: str,
        metadata: dict[str, object],
        depth: int,
    ) -> None:
        """One line. timestamp: as `stamp` makes it. depth: on the console."""
        if self.level == "debug":
            metadata = metadata | _whereabouts()
        event: dict[str, object] = {
            "trace_id": trace_id,
            "parent_id": parent_id or None,
            "timestamp": timestamp,
            "hrm_layer": layer.name,
            "operation": operation,
            "component": component,
            "input_summary": input_summary,
            "output_summary": output_summary,
            "duration_ms": duration_ms,
            "status": status,
            "metadata": metadata,
        }
        line = b""
        try:
            if is_simple(metadata):
                line = _encode(event)
        except Exception:
            line = b""
        if not line or len(line) >= LINE_BYTES:
            line = _made_to_fit(event, metadata)
        self.writer.put(line + b"\n")
        if self.console is not None:
            self.console.ended(layer, operation, input_summary, status, duration_ms, metadata, depth)


def stamp(seconds: float) -> str:
    """Unix seconds as `2026-11-21T19:37:32.123456Z`."""
    number = int(seconds)
    second = identity.latest
    if second.number != number:
        second = identity.began(number)
    return f"{second.date}{int((seconds - number) * 1e6):06d}Z"


def _made_to_fit(event: dict[str, object], metadata: dict[str, object]) -> bytes:
    """The line of an event whose metadata is not simple, or that is too long."""
    line = b""
    for texts, items in _SMALLER:
        try:
            event["metadata"] = bounded(metadata, texts=texts, items=items)  # type: ignore[arg-type]
            line = _encode(event)
        except Exception:
            # Another thread changes it all the time.
            event["metadata"] = {}
            line = _encode(event)
        if len(line) < LINE_BYTES:
            break
    return line


def _whereabouts() -> dict[str, object]:
    from threading import current_thread

    return {"pid": os.getpid(), "thread": current_thread().name}
