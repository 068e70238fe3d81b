"""How late the event loop wakes up, and whether the agent had not run at all for a while.

A sprite can be stopped, its machine paused, copied and resumed; nobody tells its processes. They can only see
it afterwards, by their clocks.
"""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

PROBE_SECONDS = 1.0
# A pause shorter than this is told as lag only.
SUSPENDED_SECONDS = 5.0
# Of the time that the event loop was late: who used more was busy, not stopped.
_BUSY_SHARE = 0.1
_REMEMBERED_PROBES = 3


class Clocks(NamedTuple):
    """All clocks at one moment, seconds. boot: as monotonic, but runs while the machine sleeps. cpu: of all
    threads of this process."""

    monotonic: float
    wall: float
    boot: float
    cpu: float


class Resumption(NamedTuple):
    """The end of a pause. at: seconds since 1970. seconds: how long the process had not run."""

    at: float
    seconds: float


def read_clocks() -> Clocks:
    """The clocks of this machine; where none counts its sleep, `boot` is as `monotonic`."""
    monotonic = time.monotonic()
    clock = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
    return Clocks(
        monotonic=monotonic,
        wall=time.time(),
        boot=monotonic if clock is None else time.clock_gettime(clock),
        cpu=time.process_time(),
    )


def suspension(before: Clocks, after: Clocks, wanted: float) -> float:
    """How long the process did not run between two readings that should lie `wanted` seconds apart.

    A stopped process wakes up late without having worked. A paused machine may have stopped its monotonic
    clock, too: then another clock ran ahead of it. A clock that was set back tells nothing.
    """
    passed = after.monotonic - before.monotonic
    late = passed - wanted
    if after.cpu - before.cpu > _BUSY_SHARE * late:
        late = 0.0
    wall = after.wall - before.wall - passed
    boot = after.boot - before.boot - passed
    return max(0.0, late, late + wall, late + boot)


class LagProbe:
    """Measures how late the event loop wakes up; `seconds` is the worst of the last few probes.

    resumed: called, on the event loop, after each pause of `threshold` seconds or more.
    """

    def __init__(
        self,
        resumed: Callable[[Resumption], None] = lambda _: None,
        *,
        threshold: float = SUSPENDED_SECONDS,
        period: float = PROBE_SECONDS,
        clocks: Callable[[], Clocks] = read_clocks,
    ) -> None:
        self._resumed = resumed
        self._threshold = threshold
        self._period = period
        self._clocks = clocks
        self._recent = [0.0] * _REMEMBERED_PROBES
        self.resumption: Resumption | None = None  # the last one

    @property
    def seconds(self) -> float:
        return max(self._recent)

    async def run(self) -> None:
        """Probe until cancelled."""
        before = self._clocks()
        while True:
            # At multiples of the period, as other timers of this event loop: waking up once costs less.
            wanted = self._period - before.monotonic % self._period
            await asyncio.sleep(wanted)
            after = self._clocks()
            self.note(before, after, wanted)
            before = after

    def note(self, before: Clocks, after: Clocks, wanted: float) -> None:
        """Take in what the clocks said around a sleep of `wanted` seconds."""
        paused = suspension(before, after, wanted)
        late = max(0.0, after.monotonic - before.monotonic - wanted)
        if paused < self._threshold:
            self._recent = [*self._recent[1:], late]
            return
        # The event loop was not stuck: it was not there.
        self._recent = [*self._recent[1:], 0.0]
        self.resumption = Resumption(after.wall, paused)
        self._resumed(self.resumption)
