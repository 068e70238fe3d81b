"""Rounds, medians, and the figures that a benchmark reports.

Goals are ratios between two things measured in the same run: absolute times tell more about the machine
and its neighbours. So repetitions are taken in rounds, baseline first, then ours, then again, and a slow
minute falls on both.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

MIN_ROUNDS = 5


class Spread(NamedTuple):
    """All repetitions of one measurement, in the order taken."""

    values: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def text(self) -> str:
        """Median and range of all repetitions, as the table shows them."""
        return f"{number(self.median)} [{number(min(self.values))} .. {number(max(self.values))}] {self.unit}"


class Bound(NamedTuple):
    """What a figure has to reach."""

    limit: float
    at_most: bool

    def met_by(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit

    def text(self, unit: str) -> str:
        return f"{'<=' if self.at_most else '>='} {number(self.limit)} {unit}"


class Figure(NamedTuple):
    """One line of the result.

    bound None: shown for what it tells, without a goal. unmeasured: why there is no value to judge; "" when
    there is one.
    """

    benchmark: str
    what: str
    value: float
    unit: str
    bound: Bound | None
    ours: Spread
    baseline: str = ""
    base: Spread | None = None
    unmeasured: str = ""

    @property
    def met(self) -> bool:
        return self.bound is None or bool(self.unmeasured) or self.bound.met_by(self.value)


def at_most(limit: float) -> Bound:
    return Bound(limit, at_most=True)


def at_least(limit: float) -> Bound:
    return Bound(limit, at_most=False)


def rounds(count: int, *measures: Callable[[], float]) -> list[list[float]]:
    """`count` values of each measure, taken in turns; one turn before them is thrown away."""
    values: list[list[float]] = [[] for _ in measures]
    for turn in range(count + 1):
        for measure, found in zip(measures, values, strict=True):
            value = measure()
            if turn:
                found.append(value)
    return values


def spread(values: Sequence[float], unit: str, *, scale: float = 1.0) -> Spread:
    return Spread(tuple(value * scale for value in values), unit)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def number(value: float) -> str:
    """Three digits that count; thousands separated."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
