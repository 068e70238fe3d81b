"""How a feed becomes a stream: caught up, then followed, until its end is reached or the agent drains."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from sprite_agent.changes import Subscription
from sprite_agent.drain import Drain
from sprite_agent.gate import DRAIN_RETRY_SECONDS
from sprite_agent.runtime.feed import LOG_PATIENCE_SECONDS
from sprite_agent.runtime.watch import SAFETY_POLL_SECONDS
from spritemesh.errors import OpsError

_T = TypeVar("_T")
_M = TypeVar("_M")
_M_co = TypeVar("_M_co", covariant=True)
# After a read that brought something, the next one waits this long since it began: a line after a pause
# goes at once, and a busy log is sent in batches.
_LEADING_EDGE_SECONDS = 0.005
_BOOKMARK_SECONDS = (1.0, 5.0, 60.0)  # least, default, most


class Feed(Protocol[_M_co]):
    """What makes the messages of a stream; EventFeed tells of each member."""

    is_stuck: bool

    @property
    def finished(self) -> bool: ...

    def read(self) -> Sequence[_M_co]: ...

    def messages(self, *, patient: bool) -> Iterator[_M_co]: ...

    def take_in(self) -> None: ...

    def is_quick(self) -> bool: ...

    def may_be_behind(self) -> bool: ...

    def bookmark(self) -> _M_co: ...

    def is_bookmark_due(self) -> bool: ...

    def is_bookmark_bare(self) -> bool: ...

    def due_bookmark(self) -> _M_co | None: ...

    def seconds_to_bookmark(self) -> float: ...

    def goodbye(self, reason: str, retry_after: float | None = None) -> _M_co: ...

    def end_reason(self) -> str: ...


class Streams:
    """Sends feeds, of which each reads in `pool` what takes long."""

    def __init__(self, drain: Drain, pool: ThreadPoolExecutor) -> None:
        self._drain = drain
        self._pool = pool

    async def run(self, work: Callable[[], _T]) -> _T:
        """Do blocking work in a thread of the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def send(
        self, feed: Feed[_M], changes: Subscription, *, follow: bool, rest_seconds: float = 0.0
    ) -> AsyncIterator[_M]:
        """All that comes after a feed was opened, goodbye included.

        changes: wakes a stream that follows. rest_seconds: between looks for what comes after a pause, of
        feeds whose lines are in no hurry.
        """
        async for message in self._catch_up(feed):
            yield message
        if follow and not feed.finished:
            async for message in self._follow(feed, changes, rest_seconds):
                yield message
            return
        yield await self.run(feed.bookmark)
        if self._drain.started:
            yield feed.goodbye("agent_draining", DRAIN_RETRY_SECONDS)
        else:
            yield feed.goodbye(feed.end_reason())

    async def _catch_up(self, feed: Feed[_M]) -> AsyncIterator[_M]:
        """What the log holds by now, until the agent drains."""
        count = -1
        while (count or feed.is_stuck) and not self._drain.started:
            count = 0
            async for message in self._read(feed):
                count += 1
                yield message

    async def _read(self, feed: Feed[_M]) -> AsyncIterator[_M]:
        """The next few messages, each made when it can be sent, so that a slow reader costs no more of them.

        A batch takes half a millisecond to make, less than a thread costs under Python's lock; what may take
        longer, a log that must be indexed first or a large line of odd values, is left to a thread.
        """
        if feed.is_stuck:
            for message in await self.run(feed.read):
                yield message
            return
        if not feed.is_quick():
            await self.run(feed.take_in)
        for message in feed.messages(patient=False):
            yield message

    async def _follow(self, feed: Feed[_M], changes: Subscription, rest_seconds: float) -> AsyncIterator[_M]:
        """What comes after the first catching up, until the agent drains or the log stays away."""
        away_since: float | None = None
        yield await self.run(feed.bookmark)
        while not self._drain.started:
            started = time.monotonic()
            count = 0
            try:
                async for message in self._read(feed):
                    count += 1
                    yield message
                away_since = None
            except OpsError:
                away_since = away_since or started
                if started - away_since > LOG_PATIENCE_SECONDS:
                    yield feed.goodbye("log_unavailable", DRAIN_RETRY_SECONDS)
                    return
            if feed.finished:
                yield await self.run(feed.bookmark)
                yield feed.goodbye(feed.end_reason())
                return
            if count or feed.is_stuck:
                await asyncio.sleep(max(0.0, started + _LEADING_EDGE_SECONDS - time.monotonic()))
                continue
            if away_since is None and feed.is_bookmark_due():
                bare = feed.is_bookmark_bare()
                bookmark = feed.due_bookmark() if bare else await self.run(feed.due_bookmark)
                if bookmark is not None:
                    yield bookmark
            # A log that is away brings no bookmarks: it is looked for.
            wait = 0.0 if feed.may_be_behind() else feed.seconds_to_bookmark()
            await changes.wait(wait or SAFETY_POLL_SECONDS)
            if (rest := started + rest_seconds - time.monotonic()) > 0:
                await asyncio.sleep(rest)
        yield await self.run(feed.bookmark)
        yield feed.goodbye("agent_draining", DRAIN_RETRY_SECONDS)


def grant_bookmark_seconds(wanted: float | None) -> float:
    """The time between bookmarks that is granted for a wanted one, in seconds; None: nobody asked."""
    least, default, most = _BOOKMARK_SECONDS
    return default if wanted is None else min(max(wanted, least), most)
