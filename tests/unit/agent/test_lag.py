"""The lag of the event loop, and pauses that are only seen afterwards, by the clocks."""

import asyncio
import time

import pytest

from sprite_agent.lag import Clocks, LagProbe, Resumption, read_clocks, suspension

START = Clocks(monotonic=1000.0, wall=1_800_000_000.0, boot=5000.0, cpu=10.0)


def later(
    monotonic: float, *, wall: float | None = None, boot: float | None = None, cpu: float = 0.0
) -> Clocks:
    """The clocks so many seconds after START; wall and boot as the monotonic one unless told."""
    return Clocks(
        START.monotonic + monotonic,
        START.wall + (monotonic if wall is None else wall),
        START.boot + (monotonic if boot is None else boot),
        START.cpu + cpu,
    )


@pytest.mark.parametrize(
    ("after", "seconds"),
    [
        (later(1.0), 0),
        (later(1.02, cpu=0.9), 0),
        (later(7.5, cpu=0.01), 6.5),  # stopped
        (later(7.5, cpu=6.4), 0),  # a computation
        (later(7.5, cpu=1.0), 0),  # one that was held up by others
        (later(1.0, wall=61.0, boot=61.0), 60),  # the machine slept
        (later(1.0, wall=61.0), 60),  # paused from outside, and told the time since
        (later(4.0, wall=64.0, boot=4.0), 63),  # both
        (later(1.0, wall=-600.0), 0),  # set back
        (later(8.0, wall=-600.0), 7),  # stopped, and set back meanwhile
    ],
)
def test_pause_is_told_by_what_the_clocks_say(after: Clocks, seconds: float) -> None:
    assert suspension(START, after, 1.0) == pytest.approx(seconds, abs=0.05)


def test_pause_is_a_resumption_and_no_lag() -> None:
    told: list[Resumption] = []
    probe = LagProbe(told.append, threshold=5)
    probe.note(START, later(1.25), 1.0)
    assert probe.seconds == pytest.approx(0.25)
    assert (probe.resumption, told) == (None, [])
    probe.note(START, later(9.0), 1.0)
    assert told == [probe.resumption]
    assert told[0].seconds == pytest.approx(8)
    assert told[0].at == START.wall + 9
    assert probe.seconds == pytest.approx(0.25)
    for _ in range(3):
        probe.note(START, later(1.0), 1.0)
    assert probe.seconds == 0
    assert probe.resumption is told[0]


def test_short_pause_is_lag() -> None:
    probe = LagProbe(threshold=5)
    probe.note(START, later(5.5), 1.0)
    assert probe.resumption is None
    assert probe.seconds == pytest.approx(4.5)


async def test_event_loop_that_stands_still_without_working_was_stopped() -> None:
    told: list[Resumption] = []
    probe = LagProbe(told.append, threshold=0.3, period=0.02)
    task = asyncio.create_task(probe.run())
    await asyncio.sleep(0.05)
    time.sleep(0.5)  # noqa: ASYNC251 - as a stopped process: late, and without having worked
    await asyncio.sleep(0.05)
    task.cancel()
    assert len(told) == 1
    assert 0.4 < told[0].seconds < 2


async def test_event_loop_that_computes_was_not_stopped() -> None:
    told: list[Resumption] = []
    probe = LagProbe(told.append, threshold=0.3, period=0.02)
    task = asyncio.create_task(probe.run())
    await asyncio.sleep(0.05)
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
    await asyncio.sleep(0.05)
    task.cancel()
    assert told == []
    assert probe.resumption is None


async def test_wall_clock_that_runs_ahead_tells_of_a_pause() -> None:
    ahead = 0.0

    def clocks() -> Clocks:
        return read_clocks()._replace(wall=time.time() + ahead)

    told: asyncio.Queue[Resumption] = asyncio.Queue()
    task = asyncio.create_task(LagProbe(told.put_nowait, period=0.02, clocks=clocks).run())
    await asyncio.sleep(0.05)
    ahead = -3600.0
    await asyncio.sleep(0.05)
    assert told.empty()
    ahead += 30.0
    resumption = await asyncio.wait_for(told.get(), 5)
    task.cancel()
    assert resumption.seconds == pytest.approx(30, abs=1)
