"""Which events of trace files are asked for, and finding them."""

import heapq
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from spritemesh.tracing.reading.order import Order
from spritemesh.tracing.reading.reader import MAX_LINE_BYTES, Chunk, LineFiles, Region
from spritemesh.tracing.reading.records import (
    Damage,
    Facts,
    Malformed,
    facts_of,
    facts_of_lines,
    is_one_a_line,
    layer_name,
    seconds_of,
)

_AGO = r"(\d{1,9}(?:\.\d{1,9})?)\s*(s|m|h|d)(?:\s+ago)?"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Event(NamedTuple):
    """A line that is an event. position: in the files."""

    position: int
    line: bytes
    facts: Facts


class Selection(NamedTuple):
    """What an event has to be; "" and None ask for nothing. layer: full name. since, until: Unix seconds in
    which it began, both included."""

    layer: str = ""
    status: str = ""
    operation: str = ""
    component: str = ""
    since: float | None = None
    until: float | None = None

    def matches(self, record: Facts) -> bool:
        """Whether an event is one of those asked for. One whose time is not readable is outside of all
        times."""
        if self.status and record.status != self.status:
            return False
        if self.operation and record.operation != self.operation:
            return False
        if self.component and record.component != self.component:
            return False
        if self.layer and layer_name(record.hrm_layer) != self.layer:
            return False
        if self.since is None and self.until is None:
            return True
        at = seconds_of(record.timestamp)
        if at is None or (self.since is not None and at < self.since):
            return False
        return self.until is None or at <= self.until


def moment(text: str, now: float) -> float:
    """Unix seconds of an ISO 8601 time, or of one so long before `now`: 90s, 10m, 2h, 1d. Raises
    ValueError."""
    ago = re.fullmatch(_AGO, text.strip())
    if ago:
        return now - float(ago[1]) * _UNITS[ago[2]]
    seconds = seconds_of(text.strip())
    if seconds is None:
        raise ValueError("must be an ISO 8601 time, or 10m, 2h or 1d for so long ago")
    return seconds


def regions_of(files: LineFiles, selection: Selection) -> list[Region]:
    """Where the events of a selection can be."""
    if selection.since is None:
        return list(files.regions)
    return [Region(Order(files, region).begin(selection.since), region.end) for region in files.regions]


def events(
    files: LineFiles, regions: Sequence[Region], selection: Selection, damage: Damage, *, last: int | None
) -> Iterator[Event]:
    """The events of a selection, those of several regions by the time of their end.

    last: only so many, the last ones. damage: gets the malformed lines between them. Raises OSError.
    """
    if last is not None:
        regions = [Region(_start_of_last(files, region, selection, last), region.end) for region in regions]
    if len(regions) == 1:
        return _forward(files, regions[0], selection, damage)
    each = [_forward(files, region, selection, damage) for region in regions]
    merged = heapq.merge(*each, key=_end)
    return merged if last is None else iter(deque(merged, maxlen=last))


def chunks_of_last(
    files: LineFiles, regions: Sequence[Region], selection: Selection, last: int | None
) -> Iterator[Chunk]:
    """The chunks from the first event of a selection on. last: from so many matching ones before the end of
    each region."""
    for region in regions:
        start = region.start if last is None else _start_of_last(files, region, selection, last)
        yield from files.forward(start, region.end)


def records_of(chunk: Chunk, damage: Damage) -> list[Facts]:
    """The events of a chunk. damage: gets its other lines."""
    if chunk.is_cut:
        damage.note(chunk.position, TOO_LONG, chunk.data)
        return []
    records = facts_of_lines(chunk.data, chunk.start, chunk.stop)
    if records is None:
        return [event.facts for event in _one_by_one(chunk, damage)]
    return records


def event_count(files: LineFiles) -> int:
    """How many events there are, of whatever kind. Reads everything. Raises OSError."""
    chunks = chunks_of_last(files, files.regions, Selection(), None)
    return sum(len(records_of(chunk, Damage())) for chunk in chunks)


TOO_LONG = f"is longer than {MAX_LINE_BYTES // 1024} KiB"


def _forward(files: LineFiles, region: Region, selection: Selection, damage: Damage) -> Iterator[Event]:
    for chunk in files.forward(*region):
        yield from _matching(chunk, selection.matches, damage)


def _start_of_last(files: LineFiles, region: Region, selection: Selection, count: int) -> int:
    """Where the last `count` events of a selection begin, or the region."""
    for chunk in files.backward(*region):
        found = _matching(chunk, selection.matches, Damage())
        if len(found) >= count:
            return found[-count].position
        count -= len(found)
    return region.start


def _matching(chunk: Chunk, matches: Callable[[Facts], bool], damage: Damage) -> list[Event]:
    if chunk.is_cut:
        damage.note(chunk.position, TOO_LONG, chunk.data)
        return []
    records = facts_of_lines(chunk.data, chunk.start, chunk.stop)
    if records is None:
        return [event for event in _one_by_one(chunk, damage) if matches(event.facts)]
    wanted = [matches(record) for record in records]
    if not any(wanted):
        return []
    if not is_one_a_line(records, chunk.data, chunk.start, chunk.stop):
        return [event for event in _one_by_one(chunk, damage) if matches(event.facts)]
    placed = zip(chunk.placed(), records, wanted, strict=True)
    return [Event(position, line, record) for (position, line), record, is_wanted in placed if is_wanted]


def _one_by_one(chunk: Chunk, damage: Damage) -> Iterator[Event]:
    for position, line in chunk.placed():
        try:
            yield Event(position, line, facts_of(line))
        except Malformed as problem:
            damage.note(position, str(problem), line)


def _end(event: Event) -> float:
    began = seconds_of(event.facts.timestamp) or 0.0
    return began + max(0.0, event.facts.duration_ms or 0.0) / 1000
