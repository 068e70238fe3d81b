"""What happened in each layer and operation of trace files: how often, how long, and how it ended.

    python -m spritemesh.tracing.stats --last 10000

is `spritemesh trace stats`.
"""

import heapq
import sys
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

from spritemesh.errors import one_line
from spritemesh.jsontext import JSON
from spritemesh.tracing.catalog import is_known
from spritemesh.tracing.layers import BY_WORD
from spritemesh.tracing.reading.histogram import Histogram
from spritemesh.tracing.reading.reader import LineFiles
from spritemesh.tracing.reading.records import Damage, Facts, layer_name
from spritemesh.tracing.reading.selection import Selection, chunks_of_last, events, records_of, regions_of
from spritemesh.tracing.reading.telling import harmless, short_id, table
from spritemesh.tracing.summaries import summary
from spritemesh.tracing.writing.console import duration

# Different operations that are told apart; what others write must not fill the memory.
MAX_OPERATIONS = 1000
OTHERS = "(others)"
_PERCENTS = (50, 95, 99)
_Key = tuple[str, str]


class Cell:
    """What is known of some events. events: how many."""

    __slots__ = ("blocked", "errors", "events", "times")

    def __init__(self) -> None:
        self.events = 0
        self.errors = 0
        self.blocked = 0
        self.times = Histogram()

    def add(self, records: Sequence[Facts]) -> None:
        """Take events in."""
        self.events += len(records)
        statuses = [record.status for record in records]
        self.errors += statuses.count("error")
        self.blocked += statuses.count("blocked")
        self.times.add([record.duration_ms for record in records if record.duration_ms is not None])

    def merge(self, other: "Cell") -> None:
        """Take in all of another one."""
        self.events += other.events
        self.errors += other.errors
        self.blocked += other.blocked
        self.times.merge(other.times)

    def document(self) -> dict[str, Any]:
        """Its members of the document; times in milliseconds, null when no event tells one."""
        times = self.times
        return {
            "operations": self.events,
            "averageMs": _rounded(times.average),
            **{f"p{percent}Ms": _rounded(times.percentile(percent)) for percent in _PERCENTS},
            "maxMs": _rounded(times.greatest if times.count else None),
            "errors": self.errors,
            "blocked": self.blocked,
        }


class Statistics:
    """Gathers events. top: so many of the slowest are kept."""

    def __init__(self, top: int) -> None:
        self.events = 0
        self._cells: dict[_Key, Cell] = {}
        self._top = top
        self._slowest: list[tuple[float, int, Facts]] = []
        self._number = count()

    def add(self, records: Iterable[Facts]) -> None:
        """Take events in."""
        groups: dict[tuple[str | None, str | None], list[Facts]] = {}
        for record in records:
            key = (record.hrm_layer, record.operation)
            try:
                groups[key].append(record)
            except KeyError:
                groups[key] = [record]
        for (layer, operation), group in groups.items():
            self.events += len(group)
            self._cell(layer, operation).add(group)
            if self._top:
                self._keep_slowest(group)

    def document(self) -> dict[str, Any]:
        """All that is known, in JSON's types."""
        layers: dict[str, Cell] = {}
        for (layer, _), cell in self._cells.items():
            layers.setdefault(layer, Cell()).merge(cell)
        by_count = sorted(self._cells.items(), key=lambda item: (-item[1].events, item[0]))
        return {
            "events": self.events,
            "layers": [
                {"layer": layer, "isKnown": layer in BY_WORD} | cell.document()
                for layer, cell in sorted(layers.items(), key=lambda item: (-item[1].events, item[0]))
            ],
            "operations": [_named(key) | cell.document() for key, cell in by_count],
            "unknownOperations": [
                _named(key) | {"operations": cell.events} for key, cell in by_count if not is_known(*key)
            ],
            "slowest": [_told(record) for _, _, record in sorted(self._slowest, reverse=True)],
        }

    def _cell(self, layer: str | None, operation: str | None) -> Cell:
        key = summary(layer_name(layer)), summary(operation)
        cell = self._cells.get(key)
        if cell is None:
            if len(self._cells) >= MAX_OPERATIONS:
                key = (OTHERS, OTHERS)
            cell = self._cells.setdefault(key, Cell())
        return cell

    def _keep_slowest(self, group: Sequence[Facts]) -> None:
        slowest = self._slowest
        least = slowest[0][0] if len(slowest) >= self._top else -1.0
        for record in group:
            milliseconds = record.duration_ms
            if milliseconds is not None and milliseconds > least:
                item = (milliseconds, -next(self._number), record)
                if len(slowest) < self._top:
                    heapq.heappush(slowest, item)
                else:
                    heapq.heapreplace(slowest, item)
                if len(slowest) >= self._top:
                    least = slowest[0][0]


def gathered(
    files: LineFiles, selection: Selection, damage: Damage, *, last: int | None, top: int
) -> Statistics:
    """The statistics of the events asked for. last: only of so many, the last ones. Raises OSError."""
    found = Statistics(top)
    regions = regions_of(files, selection)
    if last is not None and len(regions) > 1:
        found.add(event.facts for event in events(files, regions, selection, damage, last=last))
        return found
    for chunk in chunks_of_last(files, regions, selection, last):
        records = records_of(chunk, damage)
        found.add(records if selection == Selection() else filter(selection.matches, records))
    return found


def stats_lines(document: JSON) -> list[str]:
    """The document for people."""
    lines = [f"{document['events']} events in {', '.join(map(one_line, document['files']))}"]
    if not document["events"]:
        return lines
    numbers = ("count", "average", "p50", "p95", "p99", "most", "errors", "blocked")
    layers = [(_unknown(row["layer"], row), *_numbers(row)) for row in document["layers"]]
    lines += ["", *table(("layer", *numbers), layers, left=1)]
    operations = [
        (one_line(row["layer"]), _unknown(row["operation"], row), *_numbers(row))
        for row in document["operations"]
    ]
    lines += ["", *table(("layer", "operation", *numbers), operations, left=2)]
    if document["slowest"]:
        lines += ["", "slowest"]
    for row in document["slowest"]:
        words = (row["layer"], row["operation"], row["status"], short_id(row["traceId"]))
        texts = (f"{name}: {summary(harmless(row[name + 'Summary']))}" for name in ("input", "output"))
        lines.append(f"  {_time(row['durationMs'])}  {'  '.join(one_line(summary(word)) for word in words)}")
        lines += [f"      {text}" for text in texts if not text.endswith(": ")]
    return lines


def _unknown(name: str, row: JSON) -> str:
    told = one_line(name) or "-"
    return told if row["isKnown"] else f"{told} (unknown)"


def _numbers(row: JSON) -> list[str]:
    times = [_time(row[name]) for name in ("averageMs", "p50Ms", "p95Ms", "p99Ms", "maxMs")]
    return [str(row["operations"]), *times, str(row["errors"]), str(row["blocked"])]


def _time(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else duration(milliseconds)


def _named(key: _Key) -> dict[str, Any]:
    layer, operation = key
    return {"layer": layer, "operation": operation, "isKnown": is_known(layer, operation)}


def _told(record: Facts) -> dict[str, Any]:
    return {
        "traceId": record.trace_id,
        "layer": layer_name(record.hrm_layer),
        "operation": record.operation or "",
        "component": record.component or "",
        "timestamp": record.timestamp or "",
        "durationMs": record.duration_ms,
        "status": record.status or "",
        "inputSummary": record.input_summary or "",
        "outputSummary": record.output_summary or "",
    }


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 3)


def main() -> int:
    """Run this module's command line; returns the exit code."""
    from spritemesh.cli import main as run

    return run(["trace", "stats", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
