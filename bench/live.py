"""An appended line, from before its write until it is decoded at a follower, at 100 events a second."""

import os
import random
import time

import grpc

from bench import processes
from bench.fixtures import LOOP, Workplace, live_line
from bench.measure import MIN_ROUNDS, Figure, at_most, percentile, spread
from bench.snapshot import echo_p50

_RATE = 100


def run(place: Workplace) -> list[Figure]:
    events = 150 if place.quick else 500
    echoes: list[float] = []
    medians: list[float] = []
    tails: list[float] = []
    with (
        processes.server([processes.PYTHON, "-m", "bench.servers", "echo"]) as bare,
        grpc.insecure_channel(bare.target) as channel,
    ):
        echo = echo_p50(channel, events)
        for turn in range(MIN_ROUNDS + 1):
            found = echo()
            ages = _follow(place, turn, events)
            if turn:
                echoes.append(found)
                medians.append(percentile(ages, 50))
                tails.append(percentile(ages, 99))
    base = spread(echoes, "ms", scale=1e3)
    p50 = spread(medians, "ms", scale=1e3)
    p99 = spread(tails, "ms", scale=1e3)
    echo_name = "bare grpc.aio echo, p50"
    return [
        Figure("live", f"{_RATE} events/s, p50", p50.median, "ms", at_most(2), p50, echo_name, base),
        Figure("live", f"{_RATE} events/s, p99", p99.median, "ms", at_most(10), p99, echo_name, base),
        Figure("live", "p50 / echo p50", p50.median / base.median, "x", None, p50, echo_name, base),
    ]


def _follow(place: Workplace, turn: int, events: int) -> list[float]:
    """Ages at arrival of so many lines, seconds."""
    empty = os.path.join(place.path, f"live-{turn}.jsonl")
    with open(empty, "wb"):
        pass
    repo = place.repository(f"live-{turn}", {LOOP: empty})
    # By the name that the agent watches: inotify does not tell of writes through another link.
    log = os.path.join(repo, ".superloop", "loops", LOOP, "events.jsonl")
    with (
        open(log, "ab", buffering=0) as file,
        processes.agent(repo) as agent,
        processes.Helper("bench.receiver", "follow", agent.target, LOOP, str(events)) as follower,
    ):
        follower.answer()
        chance = random.Random(turn)
        for number in range(events):
            # Uneven steps, so that no timer of the agent can keep pace with them.
            time.sleep(chance.uniform(0.5, 1.5) / _RATE)
            file.write(live_line(number))
        ages: list[float] = follower.answer()["ages"]
    return ages
