"""`spritemesh trace view` and `stats` over a large trace file, beside `grep` and a plain loop over its
lines."""

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial

from bench.fixtures import Workplace
from bench.measure import MIN_ROUNDS, Bound, Figure, at_least, at_most, rounds, spread
from bench.processes import PYTHON, run_whole, script
from spritemesh import jsontext
from spritemesh.times import format_utc
from spritemesh.tracing.catalog import POINTS
from spritemesh.tracing.identity import new_id
from spritemesh.tracing.layers import layer_of
from spritemesh.tracing.reading.reader import opened
from spritemesh.tracing.reading.records import Damage
from spritemesh.tracing.reading.selection import Selection
from spritemesh.tracing.stats import gathered

_LINES = 1_000_000
_QUICK_LINES = 200_000
_AT = 1_795_290_000
# Trees begin so far apart, and a span takes at most so long besides its children. Seconds.
_GAP = 0.05
_LONGEST = 0.02
_STATUSES = ("success",) * 18 + ("error", "blocked")
_BLOCK_BYTES = 1024 * 1024

# A place in the file as a part of its lines.
_PLACES = {"early": 0.02, "middle": 0.5, "late": 0.98}


def run(place: Workplace) -> list[Figure]:
    lines = _QUICK_LINES if place.quick else _LINES
    path = os.path.join(place.path, "trace.jsonl")
    ids = _write(path, lines)
    # No /dev/null: there grep stops at the first line that it finds.
    out = os.path.join(place.path, "found")
    view = [script("spritemesh"), "trace", "view", "--file", path, "--trace-id"]
    measures: dict[str, Callable[[], float]] = {"pass": partial(_process, out, [PYTHON, "-c", "pass"])}
    for name, part in _PLACES.items():
        wanted = ids[int(part * (len(ids) - 1))]
        measures[f"grep {name}"] = partial(_process, out, [_grep(), wanted, path])
        measures[name] = partial(_process, out, [*view, wanted])
    measures["stats"] = partial(_process, out, [script("spritemesh"), "trace", "stats", "--file", path])
    measures["gathered"] = partial(_gathered, path, lines)
    measures["plain"] = partial(_plain, path)
    try:
        values = dict(zip(measures, rounds(MIN_ROUNDS, *measures.values()), strict=True))
    finally:
        os.unlink(path)
        os.unlink(out)
    wall = {name: spread(found, "ms", scale=1e3) for name, found in values.items()}
    rate = {
        name: spread([lines / seconds for seconds in values[name]], "lines/s")
        for name in ("stats", "gathered", "plain")
    }
    count = f"{lines:,}"
    figures = [
        Figure(
            "tracing_read",
            f"tree of one of {count}, {name}, process / grep",
            wall[name].median / wall[f"grep {name}"].median,
            "x",
            _goal(name, quick=place.quick),
            wall[name],
            "grep ID",
            wall[f"grep {name}"],
        )
        for name in _PLACES
    ]
    return [
        *figures,
        Figure("tracing_read", "python -c pass", wall["pass"].median, "ms", None, wall["pass"]),
        Figure(
            "tracing_read",
            f"stats of {count}, process",
            rate["stats"].median,
            "lines/s",
            at_least(300_000),
            rate["stats"],
        ),
        Figure(
            "tracing_read",
            "stats in process / plain loop",
            rate["gathered"].median / rate["plain"].median,
            "x",
            at_least(1.5),
            rate["gathered"],
            "read, split, json.loads",
            rate["plain"],
        ),
    ]


def _goal(name: str, *, quick: bool) -> Bound | None:
    """Of a tree at the beginning all that was written since has to be looked at as well, after its span was
    found: what hangs from it may end late. In a small file most of the time is the start of the process."""
    return None if quick or name == "early" else at_most(2)


def _write(path: str, lines: int) -> list[str]:
    """Write so many lines of trees, in the order in which spans end; the ids of the roots."""
    chance = random.Random(1)
    roots: list[str] = []
    left = lines
    with open(path, "wb") as file:
        while left:
            made = list(_tree(chance, _AT + len(roots) * _GAP))[-left:]
            roots.append(str(made[-1]["trace_id"]))
            file.writelines(jsontext.encode(event) + b"\n" for event in made)
            left -= len(made)
    return roots


def _tree(chance: random.Random, at: float) -> Iterator[dict[str, object]]:
    """The events of one tree of about a dozen spans, children before their parents."""

    def spans(parent_id: str | None, depth: int, began: float) -> Iterator[dict[str, object]]:
        layer = layer_of(chance.choice(list(POINTS)))
        operation, point = chance.choice(list(POINTS[layer.name].items()))
        trace_id = new_id(layer.prefix, began)
        ended = began
        for _ in range(3 if not depth else chance.choice((0, 1, 2)) if depth < 4 else 0):
            yield from spans(trace_id, depth + 1, ended)
            ended += _LONGEST / 8
        ended += chance.random() * _LONGEST
        yield {
            "trace_id": trace_id,
            "parent_id": parent_id,
            "timestamp": f"{format_utc(began)[:-1]}.{int(began % 1 * 1e6):06}Z",
            "hrm_layer": layer.name,
            "operation": operation,
            "component": "planner.py",
            "input_summary": f"step {chance.getrandbits(20)} of the plan",
            "output_summary": f"done in {chance.getrandbits(10)} words",
            "duration_ms": round((ended - began) * 1000, 3),
            "status": chance.choice(_STATUSES),
            "metadata": {name: f"L{chance.getrandbits(3)}" for name in point.fields},
        }

    return spans(None, 0, at)


def _process(out: str, command: list[str]) -> float:
    return run_whole(command, out).wall


def _gathered(path: str, lines: int) -> float:
    started = time.perf_counter()
    with opened([path]) as files:
        found = gathered(files, Selection(), Damage(), last=None, top=10)
        found.document()
    seconds = time.perf_counter() - started
    if found.events != lines:
        raise RuntimeError(f"{found.events} events counted, not {lines}")
    return seconds


def _plain(path: str) -> float:
    """What one would write first: every line decoded, and nothing done with it."""
    started = time.perf_counter()
    with open(path, "rb") as file:
        rest = b""
        while block := file.read(_BLOCK_BYTES):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                json.loads(line)
    return time.perf_counter() - started


def _grep() -> str:
    found = shutil.which("grep")
    if found is None:
        raise RuntimeError("there is no grep to compare with")
    return found
