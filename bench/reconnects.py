"""What streams that end leave behind: in the memory of who reads them, and of the agent.

A process reads with the manager's own link, as a session does: WatchEvents and WatchHeartbeats, first
messages, then an end of one of three kinds in turns: the reader leaves between two messages; the link is
closed under it; the network cuts the connection. Growth is counted after a warm-up. (A pending read that is
cancelled itself costs its process 0.9 kB for ever: sessions do that at their own end only.)
"""

import asyncio
import itertools
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import psutil

from bench import processes
from bench.fixtures import LOOP, Workplace
from bench.measure import Figure, at_most, spread
from bench.receiver import tell
from manager.transport.base import Endpoint
from manager.transport.link import Link
from spritemesh.errors import OpsError
from tests.harness.proxy import Proxy

_STREAMS = 20_000
_QUICK_STREAMS = 2_000
_STEPS = 5
# Sessions at a time; each has two streams.
_SESSIONS = 10
_WARM_UP_ROUNDS = 50


def run(place: Workplace) -> list[Figure]:
    streams = _QUICK_STREAMS if place.quick else _STREAMS
    repo = place.repository("reconnects", {LOOP: place.log_of_lines(100)})
    client: list[float] = []
    agent: list[float] = []
    with (
        processes.agent(repo) as served,
        processes.Helper("bench.reconnects", served.target, LOOP, str(streams)) as reader,
    ):
        for _ in range(_STEPS + 1):
            client.append(reader.answer()["rss"])
            agent.append(_rss_bytes(served.pid))
    return [_figure("manager's link", client, streams), _figure("agent", agent, streams)]


def _figure(side: str, rss: Sequence[float], streams: int) -> Figure:
    grown = spread([value - rss[0] for value in rss[1:]], "MB", scale=1e-6)
    what = f"{side}, growth over {streams:,} streams"
    return Figure("reconnects", what, grown.values[-1], "MB", at_most(20), grown)


def _rss_bytes(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss)


# --- the process that reads --------------------------------------------------------------------------


class Reader:
    """Opens and ends the streams of some sessions at a time, of one loop."""

    def __init__(self, target: str, loop_id: str, proxy: Proxy) -> None:
        self._loop_id = loop_id
        self._proxy = proxy
        self._near = Endpoint(target, processes.TOKEN)
        self._far = Endpoint(proxy.address, processes.TOKEN)
        self._kept = Link(self._near)
        self._ends = itertools.cycle((self._left, self._closed, self._cut))

    async def round(self) -> None:
        """All sessions once, ended in the next way."""
        await next(self._ends)()

    async def close(self) -> None:
        await self._kept.close()

    async def _left(self) -> None:
        for _ in range(_SESSIONS):
            for stream in self._streams(self._kept):
                async with aclosing(stream):
                    await anext(stream)

    async def _closed(self) -> None:
        links = [Link(self._near) for _ in range(_SESSIONS)]
        readers = await self._open(links)
        await asyncio.gather(*(link.close() for link in links))
        await _broken(readers)

    async def _cut(self) -> None:
        links = [Link(self._far) for _ in range(_SESSIONS)]
        readers = await self._open(links)
        self._proxy.cut()
        await _broken(readers)
        await asyncio.gather(*(link.close() for link in links))

    def _streams(self, link: Link) -> tuple[AsyncGenerator[Any, None], ...]:
        events = link.events(self._loop_id, None, trace_id=None, bookmark_seconds=60.0)
        return events, link.heartbeats(self._loop_id, interval=60.0)

    async def _open(self, links: Sequence[Link]) -> list[asyncio.Task[None]]:
        """Tasks that read two streams of each link; all have had a message."""
        readers: list[asyncio.Task[None]] = []
        waiting: list[asyncio.Event] = []
        for link in links:
            for stream in self._streams(link):
                waiting.append(asyncio.Event())
                readers.append(asyncio.create_task(_read(stream, waiting[-1].set)))
        await asyncio.gather(*(event.wait() for event in waiting))
        return readers


async def _read(stream: AsyncIterator[Any], heard: Callable[[], None]) -> None:
    async for _ in stream:
        heard()


async def _broken(readers: Sequence[asyncio.Task[None]]) -> None:
    for end in await asyncio.gather(*readers, return_exceptions=True):
        if not isinstance(end, OpsError):
            raise RuntimeError(f"a stream was to break, and ended with {end!r}")


async def _work(target: str, loop_id: str, streams: int) -> None:
    step = max(1, streams // _STEPS // (2 * _SESSIONS))
    with Proxy(target) as proxy:
        reader = Reader(target, loop_id, proxy)
        for rounds in (_WARM_UP_ROUNDS, *[step] * _STEPS):
            for _ in range(rounds):
                await reader.round()
            tell({"rss": _rss_bytes(os.getpid())})
        await reader.close()


def main() -> None:
    target, loop_id, streams = sys.argv[1:]
    asyncio.run(_work(target, loop_id, int(streams)))


if __name__ == "__main__":
    main()
