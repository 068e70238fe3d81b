"""The first reading of a log: speed beside the bare loop, and how long an event loop has to wait for it."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

from bench import processes
from bench.fixtures import Workplace
from bench.measure import MIN_ROUNDS, Figure, at_least, at_most, spread
from sprite_agent.runtime.eventlog import LogIndex
from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc

_BUFFER_BYTES = 256 * 1024
_TICK_SECONDS = 0.001
# The agent tells the worst of its last eight probes, one each quarter of a second.
_PROBE_SECONDS = 0.25
_PROBES = 8


def run(place: Workplace) -> list[Figure]:
    size = 100_000_000 if place.quick else 1_000_000_000
    log = place.log_of_bytes(size)
    speeds, stalls = asyncio.run(_beside_a_loop(log))
    lags = [_agent_lag(place, log, number) for number in range(3 if place.quick else MIN_ROUNDS)]
    megabytes = size / 1e6
    bare = spread([megabytes / seconds for seconds in speeds[0]], "MB/s")
    ours = spread([megabytes / seconds for seconds in speeds[1]], "MB/s")
    bare_stall = spread(stalls[0], "ms", scale=1e3)
    stall = spread(stalls[1], "ms", scale=1e3)
    lag = spread(lags, "ms", scale=1e3)
    return [
        Figure(
            "cold",
            f"index of {size // 1_000_000} MB / bare",
            100 * ours.median / bare.median,
            "%",
            at_least(80),
            ours,
            "hashlib + count, in a thread",
            bare,
        ),
        Figure(
            "cold",
            "event loop stalled at worst",
            max(stall.values),
            "ms",
            at_most(20),
            stall,
            "hashlib + count, in a thread",
            bare_stall,
        ),
        Figure("cold", "agent's event loop lag at worst", max(lag.values), "ms", at_most(20), lag),
    ]


async def _beside_a_loop(log: str) -> tuple[list[list[float]], list[list[float]]]:
    """Seconds and worst stalls of the bare loop and of the index, in turns."""
    seconds: list[list[float]] = [[], []]
    stalls: list[list[float]] = [[], []]
    with ThreadPoolExecutor(1) as pool:
        for turn in range(MIN_ROUNDS + 1):
            for which, work in enumerate((_bare, _index)):
                taken, stall = await _timed(pool, work, log)
                if turn:
                    seconds[which].append(taken)
                    stalls[which].append(stall)
    return seconds, stalls


async def _timed(pool: ThreadPoolExecutor, work: Callable[[str], int], log: str) -> tuple[float, float]:
    loop = asyncio.get_running_loop()
    before = time.perf_counter()
    job = loop.run_in_executor(pool, work, log)
    worst = 0.0
    while not job.done():
        due = time.perf_counter() + _TICK_SECONDS
        await asyncio.sleep(_TICK_SECONDS)
        worst = max(worst, time.perf_counter() - due)
    await job
    return time.perf_counter() - before, worst


def _bare(log: str) -> int:
    """What cannot be avoided: each byte hashed, each newline counted."""
    buffer = bytearray(_BUFFER_BYTES)
    view = memoryview(buffer)
    hasher = hashlib.sha256()
    lines = 0
    with open(log, "rb", buffering=0) as file:
        while got := file.readinto(buffer):
            hasher.update(view[:got])
            lines += buffer.count(b"\n", 0, got)
    hasher.digest()
    return lines


def _index(log: str) -> int:
    index = LogIndex(log)
    try:
        return index.refresh().line
    finally:
        index.close()


def _agent_lag(place: Workplace, log: str, number: int) -> float:
    """The worst lag that a fresh agent reports around its first snapshot of the log, seconds."""
    repo = place.repository(f"cold-{number}", {"big": log})
    with processes.agent(repo) as agent, grpc.insecure_channel(agent.target) as channel:
        stub = sprite_pb2_grpc.SpriteServiceStub(channel)
        # What the start of the process itself delayed must have left the agent's window.
        time.sleep(_PROBES * _PROBE_SECONDS + 0.2)
        before = _lag(stub)
        stub.GetSnapshot(
            sprite_pb2.GetSnapshotRequest(loop_id="big"), metadata=processes.METADATA, timeout=120
        )
        time.sleep(_PROBE_SECONDS + 0.05)
        return max(before, _lag(stub))


def _lag(stub: "sprite_pb2_grpc.SpriteServiceStub") -> float:
    """As the agent's heartbeat tells it."""
    # A loop that does not exist: a heartbeat must not read the log before the snapshot does.
    call = stub.WatchHeartbeats(
        sprite_pb2.WatchHeartbeatsRequest(loop_id="none"), metadata=processes.METADATA, timeout=30
    )
    lag = next(call).heartbeat.agent.event_loop_lag
    call.cancel()
    return float(lag.seconds + lag.nanos / 1e9)
