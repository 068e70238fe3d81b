"""`ops-manager trace` among many entries of the index, beside `grep` over the same files."""

import os
import shutil
import time
from functools import partial

from bench.fixtures import Workplace
from bench.measure import Figure, at_most, rounds, spread
from bench.processes import PYTHON, run_whole, script
from spritemesh.ids import new_trace_id
from spritemesh.traceindex import Entry, append, find, index_path

_ENTRIES = 1_000_000
_QUICK_ENTRIES = 100_000
_BATCH = 10_000
_LOOPS = 20
_AT = 1_700_000_000.0


def run(place: Workplace) -> list[Figure]:
    entries = _QUICK_ENTRIES if place.quick else _ENTRIES
    turns = 5 if place.quick else 11
    large, wanted = _repository(place, entries)
    small, _ = _repository(place, entries // 10, wanted=wanted)
    pattern = f'"{wanted}"'
    measures = {
        "pass": partial(_process, [PYTHON, "-c", "pass"]),
        "grep": partial(_process, [_grep(), "-cF", pattern, *_files(large)]),
        "small": partial(_process, [script("ops-manager"), "trace", wanted, "--repo", small]),
        "large": partial(_process, [script("ops-manager"), "trace", wanted, "--repo", large]),
        "find": partial(_find, large, wanted),
        "append": partial(_append, large),
    }
    try:
        values = dict(zip(measures, rounds(turns, *measures.values()), strict=True))
    finally:
        for repo in (large, small):
            shutil.rmtree(repo)
    wall = {name: spread(found, "ms", scale=1e3) for name, found in values.items()}
    count = f"{entries:,}"
    limit = 500.0
    return [
        Figure(
            "trace",
            f"one of {count}, process",
            wall["large"].median,
            "ms",
            at_most(limit),
            wall["large"],
            "grep -F",
            wall["grep"],
        ),
        Figure(
            "trace",
            f"process at worst, one of {count}",
            max(wall["large"].values),
            "ms",
            at_most(limit),
            wall["large"],
        ),
        Figure(
            "trace",
            f"one of {count}, in process / grep",
            wall["find"].median / wall["grep"].median,
            "x",
            at_most(4),
            wall["find"],
            "grep -F",
            wall["grep"],
        ),
        Figure(
            "trace",
            f"one of {entries // 10:,}, process",
            wall["small"].median,
            "ms",
            None,
            wall["small"],
            "python -c pass",
            wall["pass"],
        ),
        Figure(
            "trace",
            "append two entries",
            wall["append"].median * 1e3,
            "us",
            None,
            spread(values["append"], "us", scale=1e6),
        ),
    ]


def _repository(place: Workplace, entries: int, *, wanted: str = "") -> tuple[str, str]:
    """A repository whose index has `entries` entries, and the trace id of two in its middle."""
    repo = os.path.join(place.path, f"trace-{entries}")
    wanted = wanted or new_trace_id()
    os.makedirs(repo)
    for start in range(0, entries, _BATCH):
        batch = [_entry(number) for number in range(start, start + _BATCH)]
        if start <= entries // 2 < start + _BATCH:
            batch[:2] = [entry._replace(trace_id=wanted) for entry in batch[:2]]
        if not append(repo, batch):
            raise RuntimeError("the index cannot be written")
    return repo, wanted


def _entry(number: int) -> Entry:
    loop = f"loop-{number % _LOOPS}"
    file = f".superloop/ops-manager/{loop}/telemetry/reconcile.jsonl"
    detail = {"transport": "local", "eventsIngested": number % 17, "healthStatus": "healthy"}
    return Entry(new_trace_id(), _AT + number, loop, "reconcile", "success", 0.012345, file, detail)


def _files(repo: str) -> list[str]:
    path = index_path(repo)
    return [name for name in (f"{path}.1", path) if os.path.exists(name)]


def _grep() -> str:
    found = shutil.which("grep")
    if found is None:
        raise RuntimeError("there is no grep to compare with")
    return found


def _process(command: list[str]) -> float:
    return run_whole(command).wall


def _find(repo: str, wanted: str) -> float:
    started = time.perf_counter()
    found = find(repo, wanted).entries
    seconds = time.perf_counter() - started
    if len(found) != 2:
        raise RuntimeError(f"{len(found)} entries found, not 2")
    return seconds


def _append(repo: str) -> float:
    entries = [_entry(0), _entry(1)]
    started = time.perf_counter()
    append(repo, entries)
    return time.perf_counter() - started
