"""`python -m bench.soak MINUTES [--sprites N]`: whether a manager and an agent stay as small as they are.

One real manager of simulated sprites (`bench.sprites`) and some real agents, with all that happens in a long
life, much more often than in one: loops leave the registry and come back, connections are cut, logs are
replaced, agents die and return, operators ask for control, subscribers come and go. Memory, descriptors and
threads of the manager and of one agent, which lives throughout, are sampled each second; what they grow by in
the second half is printed with its standard error, and judged.
"""

import argparse
import itertools
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

import grpc
import psutil

from bench import fleet, processes, sprites
from bench.fixtures import Workplace, live_line
from bench.measure import number
from bench.trend import Sample, Trend, second_half, trend
from superloop.ops.v1 import (
    control_pb2,
    control_pb2_grpc,
    manager_pb2,
    manager_pb2_grpc,
    sprite_pb2,
    sprite_pb2_grpc,
)
from tests.harness.proxy import Proxy

# Real agents, and simulated sprites that are reached through a proxy.
_AGENTS = 4
_CUTTABLE = 16
_LINES = 40
# The runtime: it takes any arguments, and does nothing.
_PROGRAM = "/bin/true"
_SAMPLE_SECONDS = 1.0
_SETTLE_SECONDS = 60.0
_TURN_SECONDS = 0.25
_CALL_SECONDS = 10.0
# Of its memory, in an hour of this: 7,000 sessions end in it, as in two weeks of a fleet that is reloaded
# each hour. A program that keeps to that has doubled after nine months of such a life at the earliest.
_MEMORY_SHARE = 0.05
# Growth of what there should be a fixed number of, a minute: less than one in ten minutes.
_COUNT_BOUND = 0.1


class Agent:
    """A real agent on a repository with one loop, which may die and return."""

    def __init__(self, place: Workplace, loop_id: str) -> None:
        self.loop_id = loop_id
        empty = os.path.join(place.path, f"{loop_id}.jsonl")
        with open(empty, "wb"):
            pass
        self._repo = place.repository(loop_id, {loop_id: empty})
        self._log = os.path.join(self._repo, ".superloop", "loops", loop_id, "events.jsonl")
        self._stack = ExitStack()
        self._start()
        self.proxy = Proxy(self.server.target)

    def append(self, lines: int) -> None:
        with open(self._log, "ab") as file:
            file.writelines(live_line(line, loop_id=self.loop_id) for line in range(lines))

    def replace(self) -> None:
        """Another log in the place of this one."""
        fresh = f"{self._log}.new"
        with open(fresh, "wb") as file:
            file.writelines(live_line(line, loop_id=self.loop_id) for line in range(_LINES))
        os.replace(fresh, self._log)

    def restart(self, number: int) -> None:
        """End it by a signal; another takes its place."""
        os.kill(self.server.pid, number)
        self._stack.close()
        self._start()
        self.proxy.retarget(self.server.target)

    def close(self) -> None:
        self._stack.close()

    def _start(self) -> None:
        flags = ("--runtime-command", _PROGRAM, "--heartbeat-interval", "1")
        self.server = self._stack.enter_context(processes.agent(self._repo, *flags))


class Churn:
    """All that happens, each kind at its own pace, in a thread."""

    def __init__(
        self,
        manager: processes.Manager,
        targets: dict[str, str],
        agents: list[Agent],
        proxies: list[Proxy],
    ) -> None:
        self.done: Counter[str] = Counter()
        self._manager, self._targets = manager, targets
        self._agents, self._proxies = agents, proxies
        self._chance = random.Random(1)
        self._keys = itertools.count()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="churn")

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Make trouble for the time of the block; all loops are in the registry after it."""
        self._thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._thread.join()
            self._manager.reload(self._targets)

    def _run(self) -> None:
        paces: list[tuple[float, Callable[[], None]]] = [
            (0.5, self._write),
            (1.0, self._control),
            (2.0, self._cut),
            (5.0, self._subscribe),
            (10.0, self._reload),
            (15.0, self._replace),
            (20.0, self._restart),
        ]
        due = [time.monotonic() + pace for pace, _ in paces]
        while not self._ended.wait(_TURN_SECONDS):
            for place, (pace, act) in enumerate(paces):
                if time.monotonic() >= due[place]:
                    due[place] = time.monotonic() + pace
                    act()
                    self.done[act.__name__.removeprefix("_")] += 1

    def _write(self) -> None:
        for agent in self._agents:
            agent.append(self._chance.randrange(1, 10))

    def _replace(self) -> None:
        self._chance.choice(self._agents).replace()

    def _cut(self) -> None:
        self._chance.choice(self._proxies).cut(reset=self._chance.random() < 0.5)

    def _reload(self) -> None:
        """A tenth of the loops are away until the next time; the agent that is sampled stays."""
        kept = self._chance.sample(sorted(self._targets), len(self._targets) * 9 // 10)
        kept.append(self._agents[0].loop_id)
        self._manager.reload({loop_id: self._targets[loop_id] for loop_id in kept})

    def _restart(self) -> None:
        agent = self._chance.choice(self._agents[1:])
        agent.restart(self._chance.choice((signal.SIGKILL, signal.SIGTERM)))

    def _control(self) -> None:
        number = next(self._keys)
        agent = self._agents[number % 2]
        request = control_pb2.CancelLoopRequest(
            loop_id=agent.loop_id,
            requested_by="soak",
            idempotency_key=f"soak-{number}",
            confirmation=control_pb2.ConfirmationPolicy(skip=True),
        )
        # It may be refused, as when the agent has just been killed.
        with suppress(grpc.RpcError), grpc.insecure_channel(agent.server.target) as channel:
            stub = control_pb2_grpc.ControlServiceStub(channel)
            stub.CancelLoop(request, metadata=processes.METADATA, timeout=_CALL_SECONDS)

    def _subscribe(self) -> None:
        """One of the manager and one of the agent, who leave in mid-stream."""
        with grpc.insecure_channel(self._manager.server.target) as channel:
            views = manager_pb2_grpc.ManagerServiceStub(channel).WatchFleet(
                manager_pb2.WatchFleetRequest(), metadata=processes.METADATA, timeout=_CALL_SECONDS
            )
            next(views)
        agent = self._agents[0]
        with grpc.insecure_channel(agent.server.target) as channel:
            events = sprite_pb2_grpc.SpriteServiceStub(channel).WatchEvents(
                sprite_pb2.WatchEventsRequest(loop_id=agent.loop_id, follow=True),
                metadata=processes.METADATA,
                timeout=_CALL_SECONDS,
            )
            next(events)


class Quantity(NamedTuple):
    """Of a process. scale: of what is read to the unit."""

    name: str
    unit: str
    read: Callable[[psutil.Process], float]
    scale: float

    def bound(self, level: float) -> float:
        """What it may grow by in a minute, in its unit."""
        return level * _MEMORY_SHARE / 60 if self.unit == "kB" else _COUNT_BOUND


QUANTITIES = (
    Quantity("memory", "kB", lambda process: process.memory_info().rss, 1e-3),
    Quantity("descriptors", "", lambda process: process.num_fds(), 1.0),
    Quantity("threads", "", lambda process: process.num_threads(), 1.0),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("minutes", type=float, metavar="MINUTES")
    parser.add_argument("--sprites", type=int, default=200, metavar="N", help="in all (default: 200)")
    args = parser.parse_args()
    processes.raise_descriptor_limit()
    place = Workplace(quick=False)
    try:
        with ExitStack() as stack:
            return _soak(place, stack, args.minutes * 60, args.sprites)
    finally:
        place.close()


def _soak(place: Workplace, stack: ExitStack, seconds: float, count: int) -> int:
    simulated = count - _AGENTS
    argv = [processes.PYTHON, "-m", "bench.sprites", fleet.template(place), str(simulated)]
    port = int(stack.enter_context(processes.server(argv)).target.rpartition(":")[2])
    targets = {sprites.loop_id(number): sprites.target(number, port) for number in range(simulated)}
    proxies = []
    for loop_id in list(targets)[:_CUTTABLE]:
        proxies.append(stack.enter_context(Proxy(targets[loop_id])))
        targets[loop_id] = proxies[-1].address
    agents = [Agent(place, f"real-{number}") for number in range(_AGENTS)]
    for agent in agents:
        stack.callback(agent.close)
        agent.replace()
        proxies.append(stack.enter_context(agent.proxy))
        targets[agent.loop_id] = agent.proxy.address
    manager = stack.enter_context(processes.manager(os.path.join(place.path, "manager"), targets))
    _wait_until_up(manager, count)
    watched = {"manager": manager.server.pid, "agent": agents[0].server.pid}
    churn = Churn(manager, targets, agents, proxies)
    with churn.going_on():
        samples = _sampled(watched, seconds)
    _wait_until_up(manager, count)
    happened = ", ".join(f"{times} x {what}" for what, times in sorted(churn.done.items()))
    sys.stdout.write(f"{count} sprites ({_AGENTS} real agents) for {seconds / 60:g} min: {happened}\n")
    sys.stdout.write(f"all {count} are up at the end\n\n")
    grown = [_judge(*key, found) for key, found in samples.items()]
    return 1 if "grows" in grown else 0


def _sampled(watched: dict[str, int], seconds: float) -> dict[tuple[str, Quantity], list[Sample]]:
    """Samples of each quantity of each process."""
    found: dict[tuple[str, Quantity], list[Sample]] = {}
    known = {name: psutil.Process(pid) for name, pid in watched.items()}
    began = told = time.monotonic()
    while (at := time.monotonic() - began) < seconds:
        for name, process in known.items():
            for quantity in QUANTITIES:
                value = quantity.read(process) * quantity.scale
                found.setdefault((name, quantity), []).append(Sample(at, value))
        if time.monotonic() - told >= 60:
            told = time.monotonic()
            now = ", ".join(
                f"{name} {quantity.name} {number(values[-1].value)}"
                for (name, quantity), values in found.items()
            )
            sys.stderr.write(f"{at / 60:.0f} min: {now}\n")
        time.sleep(max(0.0, _SAMPLE_SECONDS - (time.monotonic() - began - at)))
    return found


def _judge(name: str, quantity: Quantity, samples: list[Sample]) -> str:
    """Print the trend of the second half, and return the verdict."""
    found: Trend = trend(second_half(samples))
    bound = quantity.bound(found.level)
    unit = f"{quantity.unit}/min" if quantity.unit else "/min"
    verdict = found.verdict(bound)
    sys.stdout.write(
        f"{name:8} {quantity.name:12} {number(found.slope)} +- {number(found.error)} {unit},"
        f" at most {number(bound)}: {verdict}"
        f" (mean {number(found.level)}, {number(found.least)} .. {number(found.most)} {quantity.unit})\n"
    )
    return verdict


def _wait_until_up(manager: processes.Manager, count: int) -> None:
    """Return when so many loops are connected. Raises RuntimeError."""
    until = time.monotonic() + _SETTLE_SECONDS
    request = manager_pb2.ManagerServiceListLoopsRequest(page_size=1000)
    with grpc.insecure_channel(manager.server.target) as channel:
        stub = manager_pb2_grpc.ManagerServiceStub(channel)
        while True:
            loops = stub.ListLoops(request, metadata=processes.METADATA, timeout=_CALL_SECONDS).loops
            up = sum(view.connection.state == manager_pb2.ConnectionView.STATE_UP for view in loops)
            if up == count:
                return
            if time.monotonic() > until:
                raise RuntimeError(f"only {up} of {count} sprites are up")
            time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
