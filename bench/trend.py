"""Whether a quantity that was sampled over time grows: slope, its standard error, and a judgement."""

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

# The line goes through the means of stretches, so many at least and at most: samples that follow each other
# are too alike to count as so many witnesses. Shorter stretches than these show what comes and goes within
# them, and no trend.
_LEAST, _MOST = 5, 15
_STRETCH_SECONDS = 60.0
# A slope this many standard errors from a bound is on its side of it.
_SURE = 2.0


class Sample(NamedTuple):
    """at: seconds since the beginning."""

    at: float
    value: float


class Trend(NamedTuple):
    """slope and its standard error: units a minute. stretch: seconds of each. level: mean. least, most: of
    all that were sampled."""

    slope: float
    error: float
    stretch: float
    level: float
    least: float
    most: float

    def verdict(self, bound: float) -> str:
        """`flat`: the slope is surely at most `bound`; `grows`: surely more; `undecided`: too short or too
        noisy to tell."""
        if self.stretch < _STRETCH_SECONDS:
            return "undecided"
        if self.slope + _SURE * self.error <= bound:
            return "flat"
        return "grows" if self.slope - _SURE * self.error > bound else "undecided"


def second_half(samples: Sequence[Sample]) -> list[Sample]:
    """Those from the middle of the time on: before, a program still grows to its size."""
    middle = (samples[0].at + samples[-1].at) / 2
    return [sample for sample in samples if sample.at >= middle]


def trend(samples: Sequence[Sample]) -> Trend:
    """The straight line of least squares through the means of equal stretches. Raises ValueError when there
    are too few samples for that."""
    if len(samples) < 2 * _LEAST:
        raise ValueError(f"{len(samples)} samples tell of no slope")
    # Each sample stands for the time until the next one.
    seconds = (samples[-1].at - samples[0].at) * len(samples) / (len(samples) - 1)
    count = min(_MOST, max(_LEAST, int(seconds / _STRETCH_SECONDS)))
    edges = [len(samples) * place // count for place in range(count + 1)]
    blocks = [samples[first:end] for first, end in itertools.pairwise(edges)]
    minutes = [statistics.fmean(sample.at for sample in block) / 60 for block in blocks]
    values = [statistics.fmean(sample.value for sample in block) for block in blocks]
    middle, level = statistics.fmean(minutes), statistics.fmean(values)
    spread = math.fsum((minute - middle) ** 2 for minute in minutes)
    slope = math.fsum((x - middle) * (y - level) for x, y in zip(minutes, values, strict=True)) / spread
    residue = math.fsum((y - level - slope * (x - middle)) ** 2 for x, y in zip(minutes, values, strict=True))
    error = math.sqrt(residue / (count - 2) / spread)
    every = [sample.value for sample in samples]
    return Trend(slope, error, seconds / count, level, min(every), max(every))
