"""Percentiles of any number of durations in little memory: counts of buckets that grow by two percent
each."""

from collections import Counter
from collections.abc import Iterable
from math import ceil, log

_GROWTH = 1.02
_SCALE = 1 / log(_GROWTH)
# Beyond these, in milliseconds, durations count as the nearest of the two: a nanosecond, and thirty years.
_LEAST, _MOST = 1e-6, 1e12
_LOG_LEAST = log(_LEAST)
# The bucket of durations that are nothing.
_NOTHING = -(10**6)


class Histogram:
    """Durations in milliseconds. Count, sum, least and greatest are exact; percentiles are at most one
    percent off."""

    __slots__ = ("buckets", "count", "greatest", "least", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.least = float("inf")
        self.greatest = 0.0
        self.buckets: dict[int, int] = {}

    def add(self, values: Iterable[float]) -> None:
        """Take durations in; negative ones, as clocks that are set make them, count as nothing."""
        kept = list(values)
        if not kept:
            return
        least, greatest = min(kept), max(kept)
        if least < 0:
            kept = [max(0.0, value) for value in kept]
            least = 0.0
        self.count += len(kept)
        self.total += sum(kept)
        self.least = min(self.least, least)
        self.greatest = max(self.greatest, greatest)
        if least <= _LEAST or greatest >= _MOST:
            numbers = [_bucket(value) for value in kept]
        else:
            # As _bucket: its call costs as much as the rest.
            numbers = [int((log(value) - _LOG_LEAST) * _SCALE) for value in kept]
        for number, count in Counter(numbers).items():
            self.buckets[number] = self.buckets.get(number, 0) + count

    def merge(self, other: "Histogram") -> None:
        """Take in all of another one."""
        self.count += other.count
        self.total += other.total
        self.least = min(self.least, other.least)
        self.greatest = max(self.greatest, other.greatest)
        for number, count in other.buckets.items():
            self.buckets[number] = self.buckets.get(number, 0) + count

    @property
    def average(self) -> float | None:
        """None when there is no duration."""
        return self.total / self.count if self.count else None

    def percentile(self, percent: float) -> float | None:
        """The smallest duration that `percent` of all do not exceed; None when there is none."""
        left = ceil(self.count * percent / 100)
        for number in sorted(self.buckets):
            left -= self.buckets[number]
            if left <= 0:
                middle = 0.0 if number == _NOTHING else _middle(number)
                return min(max(middle, self.least), self.greatest)
        return None


def _bucket(value: float) -> int:
    if value <= _LEAST:
        return _NOTHING
    # From 0 up, so that the fraction is cut downwards.
    return int((log(min(value, _MOST)) - _LOG_LEAST) * _SCALE)


def _middle(number: int) -> float:
    """What is equally far, in parts of itself, from both ends of a bucket."""
    return float(_LEAST * _GROWTH**number * 2 * _GROWTH / (1 + _GROWTH))
