"""Events of trace files in lines for people.

What a file holds is others' words: nothing of it reaches a terminal but what can be printed.
"""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from spritemesh.errors import one_line
from spritemesh.ids import printable
from spritemesh.jsontext import JSON
from spritemesh.tracing.layers import BY_WORD, Layer
from spritemesh.tracing.reading.reader import LineFiles
from spritemesh.tracing.reading.records import Damage, seconds_of
from spritemesh.tracing.summaries import summary

_DIM, _RESET = "\x1b[90m", "\x1b[0m"
_ID_CHARS = 80


class Teller:
    """Tells events. has_colours: for a terminal that shows them."""

    def __init__(self, *, has_colours: bool) -> None:
        self._has_colours = has_colours
        from spritemesh.tracing.writing.console import Console  # programs are answered without it

        self._told: list[str] = []
        self._console = Console(self._told.append, has_colours=has_colours)

    def line(self, event: Mapping[str, Any]) -> str:
        """An event of a list, with its time."""
        return f"{self._dim(_time(event.get('timestamp')))} {self.leaf(event, 0)}"

    def leaf(self, event: Mapping[str, Any], depth: int) -> str:
        """An event of a tree. depth: of spans that it hangs from."""
        metadata = event.get("metadata")
        self._console.ended(
            _layer(event.get("hrm_layer")),
            summary(harmless(event.get("operation"))),
            summary(harmless(event.get("input_summary"))),
            summary(harmless(event.get("status") or "unknown")),
            max(0.0, float(event.get("duration_ms") or 0.0)),
            harmless(metadata) if isinstance(metadata, dict) else {},
            depth,
        )
        output = summary(harmless(event.get("output_summary")))
        # The id is last, where it is easy to copy.
        rest = "  ".join(filter(None, (output, short_id(event.get("trace_id")))))
        return f"{self._told.pop()}  {self._dim(rest)}"

    def _dim(self, text: str) -> str:
        return f"{_DIM}{text}{_RESET}" if self._has_colours else text


def shows_colours(stream: TextIO) -> bool:
    """Whether people see colours there, and want to (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def short_id(trace_id: object) -> str:
    """An id in a line."""
    return summary(harmless(trace_id), _ID_CHARS)


def harmless(value: JSON) -> JSON:
    """A value whose texts hold nothing that a terminal would act on."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, dict):
        return {one_line(name): harmless(member) for name, member in value.items()}
    if isinstance(value, list):
        return [harmless(element) for element in value]
    return value


def damage_document(files: LineFiles, damage: Damage) -> JSON:
    """The malformed lines: how many, and the first ones with their places. Raises OSError."""
    lines = []
    for damaged in damage.shown:
        name, number = files.place(damaged.position)
        lines.append({"file": name, "line": number, "problem": damaged.problem, "text": damaged.text})
    return {"count": damage.count, "lines": lines}


def damage_lines(told: JSON) -> list[str]:
    """The same for people: one line each."""
    count, lines = told["count"], told["lines"]
    if not count:
        return []
    more = f", of which the first {len(lines)} are told" if count > len(lines) else ""
    first = f"warning: {count} malformed line{'s' * (count > 1)} left out{more}"
    return [first, *(damaged_line(f"{line['file']} line {line['line']}", line) for line in lines)]


def damaged_line(place: str, line: Mapping[str, str]) -> str:
    """One malformed line in one line."""
    return f"  {one_line(place)} {line['problem']}: {printable(line['text'])}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Lines of a table. left: so many columns hold text, and the others numbers."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]


def _layer(name: JSON) -> Layer:
    known = BY_WORD.get(name) if isinstance(name, str) else None
    told = summary(harmless(name or "?"))
    return known or Layer(told, told)


def _time(stamp: JSON) -> str:
    """The time in UTC with milliseconds, or what stands there instead."""
    seconds = seconds_of(stamp) if isinstance(stamp, str) else None
    try:
        at = datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
    except ValueError:  # in UTC it would be before the first year
        at = None
    if at is None:
        return str(summary(harmless(stamp or "-"), 24))
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}"
