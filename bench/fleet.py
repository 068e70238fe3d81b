"""What a manager costs that watches so many sprites, and how soon it knows of their lines.

One process stands for all sprites (`bench.sprites`), the manager is the real one, with a fresh directory for
each size. Once all of them are up and the first lines are applied, its cost is measured over a steady minute,
then, with a subscriber, the time from a line's write until the manager says that it has applied it.
"""

import itertools
import os
import time
from typing import NamedTuple

import grpc
import psutil
from google.protobuf.wrappers_pb2 import StringValue

from bench import processes, sprites
from bench.fixtures import Workplace
from bench.measure import Bound, Figure, at_most, percentile, spread
from spritemesh import jsontext
from spritemesh.times import format_utc
from superloop.ops.v1 import manager_pb2, manager_pb2_grpc

_SIZES = (100, 500, 1000, 2000, 5000)
_QUICK_SIZES = (50, 200)
_COST_SECONDS = 60.0
_AGES_SECONDS = 30.0
_QUICK_SECONDS = 10.0
_SETTLE_SECONDS = 20.0
_CONNECT_SECONDS = 180.0
# Loops whose lines are timed: 600 lines in half a minute.
_WATCHED = 100
# A line that was written so shortly before the end may not have been seen yet.
_MARGIN_SECONDS = 2.0
_PAGE = 1000
# Of the lines that are due, applied while the cost is measured: with less it is the cost of less.
_LEAST_SHARE = 0.95


class _Cost(NamedTuple):
    """Of one size. cpu: of a core, 1.0 is all of it. rss: bytes. ages: append to state, stored: to disk,
    seconds."""

    sprites: int
    cpu: float
    rss: int
    ages: list[float]
    stored: list[float]

    @property
    def cpu_a_sprite(self) -> float:
        return self.cpu / self.sprites


class _Survey(NamedTuple):
    """up: sprites that are connected, and whose first lines are applied. lines: applied, of all."""

    up: int
    lines: int


class _Goal(NamedTuple):
    """Of one size. cpu: percent of a core. rss: MB. p99: ms; None: there is none."""

    cpu: float
    rss: float
    p99: float | None


_GOALS = {2000: _Goal(40, 450, 250), 5000: _Goal(100, 1000, None)}


def run(place: Workplace) -> list[Figure]:
    processes.raise_descriptor_limit()
    sizes = _QUICK_SIZES if place.quick else _SIZES
    seconds = (_QUICK_SECONDS, _QUICK_SECONDS) if place.quick else (_COST_SECONDS, _AGES_SECONDS)
    repo = template(place)
    costs = []
    bare: dict[str, float] = {}
    compared = 2000 if 2000 in sizes else sizes[-1]
    for size in sizes:
        if size == compared:
            bare = _bare(size, seconds[1])
        costs.append(_measure(place, repo, size, *seconds))
    figures = list(itertools.chain.from_iterable(_figures(cost) for cost in costs))
    return [
        *figures,
        *_against(next(cost for cost in costs if cost.sprites == compared), bare),
        *_curve(costs),
    ]


def _figures(cost: _Cost) -> list[Figure]:
    goal = _GOALS.get(cost.sprites)
    p99, stored = (percentile(ages, 99) * 1e3 for ages in (cost.ages, cost.stored))

    def figure(what: str, value: float, unit: str, bound: Bound | None, values: list[float]) -> Figure:
        return Figure("fleet", f"{cost.sprites:,} sprites, {what}", value, unit, bound, spread(values, unit))

    cpu, rss = 100 * cost.cpu, cost.rss / 1e6
    limit = at_most(goal.p99) if goal and goal.p99 else None
    return [
        figure("CPU", cpu, "% of a core", at_most(goal.cpu) if goal else None, [cpu]),
        figure("resident memory", rss, "MB", at_most(goal.rss) if goal else None, [rss]),
        figure("append to state, p99", p99, "ms", limit, [age * 1e3 for age in cost.ages]),
        figure("append to disk, p99", stored, "ms", None, [age * 1e3 for age in cost.stored]),
    ]


def _against(cost: _Cost, bare: dict[str, float]) -> list[Figure]:
    name = "one bare stream each, read only"
    return [
        Figure(
            "fleet",
            f"{cost.sprites:,} sprites, {what} / bare streams",
            ours / base,
            "x",
            None,
            spread([ours], unit, scale=scale),
            name,
            spread([base], unit, scale=scale),
        )
        for what, ours, base, unit, scale in (
            ("CPU", cost.cpu, bare["cpu"], "% of a core", 100.0),
            ("memory", cost.rss, bare["rss"], "MB", 1e-6),
        )
    ]


def _curve(costs: list[_Cost]) -> list[Figure]:
    """How the cost of a sprite grows with the fleet: against the cheapest of all smaller fleets.

    That it falls is no fault: wake-ups are shared by more messages, as those of bare streams are.
    """
    each = spread([cost.cpu_a_sprite for cost in costs], "us a second", scale=1e6)
    growth = [each.values[place] / min(each.values[:place]) for place in range(1, len(costs))]
    memory = spread([cost.rss / cost.sprites for cost in costs], "kB", scale=1e-3)
    return [
        Figure("fleet", "CPU a sprite / that of a smaller fleet", max(growth), "x", at_most(1.25), each),
        Figure("fleet", "memory a sprite, largest fleet", memory.values[-1], "kB", None, memory),
    ]


def _measure(place: Workplace, template: str, size: int, cost_seconds: float, ages_seconds: float) -> _Cost:
    repo = os.path.join(place.path, f"fleet-{size}")
    argv = [processes.PYTHON, "-m", "bench.sprites", template, str(size)]
    with processes.server(argv) as agents:
        port = int(agents.target.rpartition(":")[2])
        targets = {sprites.loop_id(number): sprites.target(number, port) for number in range(size)}
        # Far apart from each other in the order of ids, as every other is.
        watched = [sprites.loop_id(number) for number in range(0, size, max(1, size // _WATCHED))][:_WATCHED]
        with processes.manager(repo, targets) as manager, grpc.insecure_channel(agents.target) as channel:
            _wait_until_up(manager, size)
            time.sleep(_SETTLE_SECONDS)
            lines, began, before = _survey(manager).lines, time.monotonic(), manager.server.cpu_seconds()
            time.sleep(cost_seconds)
            after, ended = manager.server.cpu_seconds(), time.monotonic()
            cpu = (after - before) / (ended - began)
            share = (_survey(manager).lines - lines) / (ended - began) / (size / sprites.EVENT_SECONDS)
            if share < _LEAST_SHARE:
                raise RuntimeError(f"{size} sprites: only {share:.0%} of the lines that are due were applied")
            rss = psutil.Process(manager.server.pid).memory_info().rss
            words = ["views", manager.server.target, str(ages_seconds + _MARGIN_SECONDS), "0", *watched]
            with processes.Helper("bench.watcher", *words) as watcher:
                watcher.answer()
                watching = time.monotonic()
                seen = watcher.answer()["seen"]
            written = _written(channel, watched)
    until = watching + ages_seconds - _MARGIN_SECONDS
    applied = _ages(written, [(loop, line, at) for loop, line, _, at in seen], after=watching, before=until)
    stored = _ages(written, [(loop, line, at) for loop, _, line, at in seen], after=watching, before=until)
    return _Cost(size, cpu, rss, applied, stored)


def _ages(
    written: dict[str, list[int]], seen: list[tuple[str, int, int]], *, after: float, before: float
) -> list[float]:
    """How old each line written in that time was when its loop was first seen to be so far, seconds.

    seen: loop, line, when. after, before: monotonic seconds.
    """
    ages = []
    for loop_id, times in written.items():
        steps = [(line, at) for found, line, at in seen if found == loop_id]
        for number, at in enumerate(times, 1):
            if after <= at / 1e9 <= before:
                known = [when for line, when in steps if line >= number]
                if not known:
                    raise RuntimeError(f"line {number} of {loop_id} never came")
                ages.append((known[0] - at) / 1e9)
    return ages


def _written(channel: grpc.Channel, loop_ids: list[str]) -> dict[str, list[int]]:
    ask = channel.unary_unary(
        sprites.WRITTEN,
        request_serializer=StringValue.SerializeToString,
        response_deserializer=StringValue.FromString,
    )
    answer = ask(StringValue(value=jsontext.encode(list(loop_ids)).decode()), timeout=30)
    found: dict[str, list[int]] = jsontext.parse(answer.value)
    return found


def _wait_until_up(manager: processes.Manager, size: int) -> None:
    """Return when every sprite is connected and its first lines are applied."""
    until = time.monotonic() + _CONNECT_SECONDS
    while (up := _survey(manager).up) < size:
        if time.monotonic() > until:
            raise RuntimeError(f"only {up} of {size} sprites are up")
        time.sleep(0.5)


def _survey(manager: processes.Manager) -> _Survey:
    """The fleet as the manager sees it now."""
    up, lines, token = 0, 0, ""
    with grpc.insecure_channel(manager.server.target) as channel:
        stub = manager_pb2_grpc.ManagerServiceStub(channel)
        while True:
            request = manager_pb2.ManagerServiceListLoopsRequest(page_size=_PAGE, page_token=token)
            answer = stub.ListLoops(request, metadata=processes.METADATA, timeout=30)
            for view in answer.loops:
                lines += view.applied_line
                up += (
                    view.connection.state == manager_pb2.ConnectionView.STATE_UP
                    and view.applied_line >= sprites.FIRST_LINES
                )
            token = answer.next_page_token
            if not token:
                return _Survey(up, lines)


def _bare(size: int, seconds: float) -> dict[str, float]:
    """What as many bare streams cost their reader: `cpu` of a core, `rss` in bytes."""
    with processes.server([processes.PYTHON, "-m", "bench.beats", "serve"]) as server:
        words = ["read", server.target, str(size), str(_SETTLE_SECONDS), str(seconds)]
        with processes.Helper("bench.beats", *words) as reader:
            return reader.answer()


def template(place: Workplace) -> str:
    """A repository with one running loop, whose snapshot all sprites copy."""
    first = sprites.loop_id(0)
    repo = place.repository("sprite", {first: place.log_of_lines(sprites.FIRST_LINES)})
    loop = os.path.join(repo, ".superloop", "loops", first)
    os.unlink(os.path.join(loop, "approval.json"))
    heartbeat = {
        "timestamp": format_utc(time.time()),
        "writer": "sprite-agent",
        "sequence": 100,
        "interval_seconds": 5.0,
        "loop_id": first,
        "stage": "loop_start",
        "process": {"pid": os.getpid(), "rss_bytes": 90_000_000, "cpu_seconds": 12.34},
    }
    with open(os.path.join(loop, "heartbeat.v1.json"), "wb") as file:
        file.write(jsontext.encode(heartbeat) + b"\n")
    return repo
