"""What a span costs the program that is traced, beside OpenTelemetry's Python SDK."""

import os
from typing import NamedTuple

from bench.fixtures import Workplace
from bench.measure import MIN_ROUNDS, Bound, Figure, Spread, at_most, spread
from bench.processes import Helper

_OTEL = "OpenTelemetry SDK, batch processor"


class _Repeated:
    """One measurement, by a fresh process each time.

    words: the command line of `bench.spans`. into: the file that it writes, removed after each.
    """

    def __init__(self, *words: str, into: str = "") -> None:
        self._words = [*words, into] if into else words
        self._into = into
        self._found: list[dict[str, float]] = []

    def measure(self) -> None:
        with Helper("bench.spans", *self._words) as helper:
            self._found.append(helper.answer())
        if self._into:
            os.unlink(self._into)

    def spread(self, name: str) -> Spread:
        """What each process but the first found under this name."""
        return spread([found[name] for found in self._found[1:]], "us", scale=1e6)


class _Case(NamedTuple):
    """Both ways of tracing, measured in the same manner."""

    name: str
    otel: _Repeated
    ours: _Repeated


def run(place: Workplace) -> list[Figure]:
    off = _Repeated("off", "100000")
    one, many = (_case(place, threads, "0") for threads in (1, 16))
    # Goals are for bursts. Threads that rest find cold caches, the colder the longer they rested.
    resting = [_case(place, 16, rest) for rest in ("0.001", "0.005")]
    for _ in range(MIN_ROUNDS + 1):
        off.measure()
        for case in (one, many, *resting):
            case.otel.measure()
            case.ours.measure()
    found = [_off("span", off, 0.5), _off("event", off, 0.3)]
    for case in (one, many):
        found += [
            _taken(case, "p50", at_most(15)),
            _taken(case, "p99", at_most(100)),
            _ratio(case, "p50", "p50"),
            _ratio(case, "cpu", "CPU a span"),
        ]
    return found + [_taken(case, name, None) for case in resting for name in ("p50", "p99")]


def _case(place: Workplace, threads: int, rest: str) -> _Case:
    path = os.path.join(place.path, "trace.jsonl")
    bursts = "2" if place.quick or rest != "0" else "4"
    words = (str(threads), bursts, rest)
    name = f"{threads} thread{'s' if threads > 1 else ''}"
    if rest != "0":
        name += f", resting for {float(rest) * 1000:.0f} ms"
    return _Case(name, _Repeated("otel", *words, into=path), _Repeated("ours", *words, into=path))


def _off(what: str, off: _Repeated, limit: float) -> Figure:
    taken, api = off.spread(what), off.spread("api")
    name = "OpenTelemetry API without SDK, span"
    return Figure("tracing_write", f"off, {what}", taken.median, "us", at_most(limit), taken, name, api)


def _taken(case: _Case, name: str, bound: Bound | None) -> Figure:
    ours, otel = case.ours.spread(name), case.otel.spread(name)
    return Figure("tracing_write", f"{case.name}, {name}", ours.median, "us", bound, ours, _OTEL, otel)


def _ratio(case: _Case, name: str, what: str) -> Figure:
    ours, otel = case.ours.spread(name), case.otel.spread(name)
    title = f"{case.name}, {what} / OpenTelemetry"
    return Figure("tracing_write", title, ours.median / otel.median, "x", at_most(0.5), ours, _OTEL, otel)
