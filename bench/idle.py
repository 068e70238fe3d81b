"""What an agent costs while nothing happens but heartbeats, beside a bare server that only exists.

The runtime lives, so that the agent also keeps heartbeat.v1.json; the log is quiet. One client has both
streams of a manager at their default interval. Both servers are measured in the same stretches of time.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench import processes
from bench.fixtures import LOOP, Workplace
from bench.measure import MIN_ROUNDS, Figure, at_most, spread
from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc

_LINES = 1000
# Stretches are as long as a few intervals of the agent's heartbeats, which come each 5 s.
_STRETCH_SECONDS = 15.0
_QUICK_STRETCH_SECONDS = 5.0
_SETTLE_SECONDS = 2.0
# clock_getcpuclockid(3): the clock of a process's CPU time, to the nanosecond where /proc has ticks of 10 ms.
_CPU_CLOCK = 2


def run(place: Workplace) -> list[Figure]:
    stretch = _QUICK_STRETCH_SECONDS if place.quick else _STRETCH_SECONDS
    repo = place.repository("idle", {LOOP: place.log_of_lines(_LINES)})
    bare_cpu: list[float] = []
    bare_rss: list[float] = []
    agent_cpu: list[float] = []
    agent_rss: list[float] = []
    with (
        processes.server([processes.PYTHON, "-m", "bench.servers", "health"]) as bare,
        processes.agent(repo) as agent,
        _watched(bare.target, agent.target),
    ):
        time.sleep(_SETTLE_SECONDS)
        for turn in range(MIN_ROUNDS + 1):
            began = time.monotonic()
            before = _cpu_seconds(bare), _cpu_seconds(agent)
            time.sleep(stretch if turn else _QUICK_STRETCH_SECONDS)
            after = _cpu_seconds(bare), _cpu_seconds(agent)
            wall = time.monotonic() - began
            if turn:
                bare_cpu.append((after[0] - before[0]) / wall)
                agent_cpu.append((after[1] - before[1]) / wall)
                bare_rss.append(psutil.Process(bare.pid).memory_info().rss)
                agent_rss.append(psutil.Process(agent.pid).memory_info().rss)
    cpu = spread(agent_cpu, "% of a core", scale=100)
    rss = spread(agent_rss, "MB", scale=1e-6)
    beside = "bare grpc.aio server with health"
    return [
        Figure(
            "idle",
            "CPU",
            cpu.median,
            "%",
            at_most(0.15),
            cpu,
            beside,
            spread(bare_cpu, "% of a core", scale=100),
        ),
        Figure(
            "idle",
            "resident memory",
            rss.median,
            "MB",
            at_most(60),
            rss,
            beside,
            spread(bare_rss, "MB", scale=1e-6),
        ),
    ]


def _cpu_seconds(server: processes.Server) -> float:
    return time.clock_gettime(~server.pid << 3 | _CPU_CLOCK)


@contextmanager
def _watched(bare: str, agent: str) -> Iterator[None]:
    """A manager's two streams of the agent, and a watch of the bare server's health, all being read."""
    with grpc.insecure_channel(bare) as beside, grpc.insecure_channel(agent) as channel:
        stub = sprite_pb2_grpc.SpriteServiceStub(channel)
        watch: Any = health_pb2_grpc.HealthStub(beside).Watch  # type: ignore[attr-defined]  # the stubs leave it out
        following = sprite_pb2.WatchEventsRequest(loop_id=LOOP, follow=True)
        calls: list[Any] = [
            watch(health_pb2.HealthCheckRequest()),
            stub.WatchEvents(following, metadata=processes.METADATA),
            stub.WatchHeartbeats(sprite_pb2.WatchHeartbeatsRequest(), metadata=processes.METADATA),
        ]
        for call in calls:
            next(call)
            threading.Thread(target=_drain, args=(call,), daemon=True).start()
        yield
        for call in calls:
            call.cancel()


def _drain(call: Any) -> None:
    try:
        for _ in call:
            pass
    except grpc.RpcError:
        pass  # cancelled at the end
