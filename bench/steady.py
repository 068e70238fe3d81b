"""One sprite at 100 events a second: from before a line's write until the manager and its files have it.

Real agent, real manager. A subscriber of WatchFleet with the least interval that is granted tells of the
manager's state; inotify of cursor.json, which is written with the state, tells of the disk.
"""

import os
import random
import time
from typing import BinaryIO

from bench import processes
from bench.fixtures import LOOP, Workplace, live_line
from bench.measure import MIN_ROUNDS, Figure, at_most, percentile, spread

_RATE = 100
_LONGEST_SECONDS = 60.0


def run(place: Workplace) -> list[Figure]:
    events = 200 if place.quick else 1000
    applied: list[list[float]] = []
    stored: list[list[float]] = []
    for turn in range(MIN_ROUNDS + 1):
        found = _measure(place, turn, events)
        if turn:
            applied.append(found[0])
            stored.append(found[1])

    def figure(where: str, percent: int, limit: float | None, ages: list[list[float]]) -> Figure:
        values = spread([percentile(turn, percent) for turn in ages], "ms", scale=1e3)
        bound = None if limit is None else at_most(limit)
        return Figure("steady", f"append to {where}, p{percent}", values.median, "ms", bound, values)

    return [
        figure("subscriber", 50, None, applied),
        figure("subscriber", 99, 20, applied),
        figure("disk", 50, None, stored),
        figure("disk", 99, 250, stored),
    ]


def _measure(place: Workplace, turn: int, events: int) -> tuple[list[float], list[float]]:
    """Ages of so many lines at a subscriber and on disk, seconds."""
    first = os.path.join(place.path, f"steady-{turn}.jsonl")
    with open(first, "wb") as file:
        file.write(live_line(0))
    repo = place.repository(f"steady-{turn}", {LOOP: first})
    # By the name that the agent watches: inotify does not tell of writes through another link.
    log = os.path.join(repo, ".superloop", "loops", LOOP, "events.jsonl")
    lines = events + 1
    limits = [str(_LONGEST_SECONDS), str(lines)]
    with (
        processes.agent(repo) as agent,
        processes.manager(
            os.path.join(place.path, f"steady-manager-{turn}"), {LOOP: agent.target}
        ) as manager,
    ):
        _wait_for_first_line(manager)
        with (
            open(log, "ab", buffering=0) as file,
            processes.Helper("bench.watcher", "views", manager.server.target, *limits, LOOP) as subscriber,
            processes.Helper("bench.watcher", "cursor", manager.ops(LOOP), *limits) as disk,
        ):
            subscriber.answer()
            disk.answer()
            written = _write(file, turn, events)
            return _ages(written, subscriber.answer()["seen"]), _ages(written, disk.answer()["seen"])


def _write(file: BinaryIO, turn: int, events: int) -> list[int]:
    """Append so many lines; when each was, monotonic ns."""
    chance = random.Random(turn)
    written = []
    for number in range(events):
        # Uneven steps, so that no timer can keep pace with them.
        time.sleep(chance.uniform(0.5, 1.5) / _RATE)
        line = live_line(number)
        written.append(time.monotonic_ns())
        file.write(line)
    return written


def _ages(written: list[int], seen: list[tuple[str, int, int, int]]) -> list[float]:
    """How old each line, from the second on, was when it or one after it was first seen."""
    ages = []
    steps = iter(seen)
    known, at = 0, 0
    for line, when in enumerate(written, 2):
        while known < line:
            try:
                _, known, _, at = next(steps)
            except StopIteration:
                raise RuntimeError(f"line {line} never came") from None
        ages.append((at - when) / 1e9)
    return ages


def _wait_for_first_line(manager: processes.Manager) -> None:
    """Return when the connection is up and what was there before is on disk."""
    cursor = os.path.join(manager.ops(LOOP), "cursor.json")
    until = time.monotonic() + _LONGEST_SECONDS
    while not os.path.exists(cursor):
        if time.monotonic() > until:
            raise RuntimeError("the manager committed nothing")
        time.sleep(0.01)
