"""WatchEvents from the first line on, disk to decoded and checked, beside a bare stream of the same bytes."""

import os
import time
from typing import NamedTuple

from bench import processes, servers
from bench.fixtures import LOOP, Workplace
from bench.measure import MIN_ROUNDS, Figure, at_least, spread
from sprite_agent.runtime.feed import FeedOptions
from sprite_agent.runtime.loop import LoopReader


class _Sample(NamedTuple):
    """rate: events a second. CPU in seconds an event."""

    rate: float
    sender_cpu: float
    receiver_cpu: float


def run(place: Workplace) -> list[Figure]:
    lines = 200_000 if place.quick else 1_000_000
    repo = place.repository("replay", {LOOP: place.log_of_lines(lines)})
    prebuilt = os.path.join(place.path, "prebuilt")
    _build(repo, prebuilt)
    bare: list[_Sample] = []
    ours: list[_Sample] = []
    with (
        processes.server([processes.PYTHON, "-m", "bench.servers", "stream", prebuilt]) as stream,
        processes.agent(repo) as agent,
    ):
        # The first turn is thrown away: it includes the agent's first reading, which `cold` measures.
        for turn in range(MIN_ROUNDS + 1):
            found = _sample(stream, "bare", lines), _sample(agent, "replay", lines)
            if turn:
                bare.append(found[0])
                ours.append(found[1])
    os.unlink(prebuilt)
    bare_rate = spread([sample.rate for sample in bare], "events/s")
    our_rate = spread([sample.rate for sample in ours], "events/s")
    return [
        Figure(
            "replay",
            "rate / bare stream",
            100 * our_rate.median / bare_rate.median,
            "%",
            at_least(30),
            our_rate,
            "prebuilt bytes, same client",
            bare_rate,
        ),
        Figure("replay", "rate", our_rate.median, "events/s", at_least(250_000), our_rate),
        _cpu("sender CPU", [sample.sender_cpu for sample in ours], [sample.sender_cpu for sample in bare]),
        _cpu(
            "receiver CPU",
            [sample.receiver_cpu for sample in ours],
            [sample.receiver_cpu for sample in bare],
        ),
    ]


def _cpu(what: str, ours: list[float], bare: list[float]) -> Figure:
    found = spread(ours, "us", scale=1e6)
    base = spread(bare, "us", scale=1e6)
    return Figure(
        "replay", f"{what} an event", found.median, "us", None, found, "prebuilt bytes, same client", base
    )


def _build(repo: str, path: str) -> None:
    """Write every message of the stream, serialized, as the agent would send it."""
    feed = LoopReader(repo, LOOP).feed(FeedOptions())
    with open(path, "wb") as file:
        messages = feed.open(None)
        while messages:
            file.writelines(servers.pack(message.SerializeToString()) for message in messages)
            messages = feed.read()
        last = (feed.bookmark(), feed.goodbye(feed.end_reason()))
        file.writelines(servers.pack(message.SerializeToString()) for message in last)


def _sample(sender: processes.Server, mode: str, lines: int) -> _Sample:
    before = sender.cpu_seconds()
    with processes.Helper("bench.receiver", mode, sender.target, LOOP, str(lines)) as receiver:
        answer = receiver.answer()
    # Processor time is accounted in ticks of 10 ms; the last one is not lost this way.
    time.sleep(0.02)
    used = sender.cpu_seconds() - before
    return _Sample(lines / answer["seconds"], used / lines, answer["cpu"] / lines)
