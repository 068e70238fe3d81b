"""Where in a trace file what happened after a moment can begin, so that a search need not read all before it.

A line is written when its span ends, so that the lines of a file are roughly in the order of their ends.
Whether they are is not taken for granted: lines from all over the file are looked at first, and where their
ends go back by more than the slack, the file counts as unordered, and everything has to be read.
"""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

from spritemesh.tracing.reading.reader import LineFiles, Region
from spritemesh.tracing.reading.records import Malformed, facts_of, seconds_of

# Smaller ones are read as quickly as they are looked over.
_SMALLEST_BYTES = 16 * 1024 * 1024
_SAMPLES = 1000
_SAMPLE_BYTES = 4096
# So much later than its end a line may be written: buffers, slow disks, clocks that are set. Seconds.
SLACK_SECONDS = 60.0


class Order:
    """The order of one region's lines. is_known: there is one that can be relied on."""

    def __init__(self, files: LineFiles, region: Region) -> None:
        self.region = region
        self._places: list[int] = []
        # The latest end at each place or before it.
        self._ends: list[float] = []
        if region.end - region.start >= _SMALLEST_BYTES:
            self._look_over(files)

    @property
    def is_known(self) -> bool:
        return bool(self._places)

    def begin(self, seconds: float | None) -> int:
        """A line start before which nothing ended at `seconds` (Unix) or later; the beginning of the region
        when that is not known."""
        if seconds is None:
            return self.region.start
        number = bisect_left(self._ends, seconds - SLACK_SECONDS)
        return self._places[number - 1] if number else self.region.start

    def since(self, seconds: float | None, known: Iterable[int]) -> Region:
        """The region from `begin(seconds)` on; all of it where one of the positions `known`, of what ended
        then or later, is before that: clocks were set."""
        begin = self.begin(seconds)
        start, end = self.region
        return Region(start if any(start <= place < begin for place in known) else begin, end)

    def _look_over(self, files: LineFiles) -> None:
        places, ends = [], []
        step = (self.region.end - self.region.start) // _SAMPLES
        for position in range(self.region.start, self.region.end, step):
            sample = _line_behind(files, position)
            if sample is not None:
                places.append(sample[0])
                ends.append(sample[1])
        latest = list(accumulate(ends, max))
        if all(end >= so_far - SLACK_SECONDS for end, so_far in zip(ends, latest, strict=True)):
            self._places, self._ends = places, latest


def _line_behind(files: LineFiles, position: int) -> tuple[int, float] | None:
    """Start of the first whole line behind `position`, and when its span ended; None when that is not found
    at once."""
    data = files.read(position, _SAMPLE_BYTES)
    begin = data.find(b"\n") + 1
    end = data.find(b"\n", begin)
    if not begin or end < 0:
        return None
    try:
        record = facts_of(data[begin:end])
    except Malformed:
        return None
    began = seconds_of(record.timestamp)
    return None if began is None else (position + begin, began + max(0.0, record.duration_ms or 0.0) / 1000)
