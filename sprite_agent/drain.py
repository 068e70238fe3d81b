"""The streams of the agent: how many there may be, and their end, told to all at once and waited for."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sprite_agent.limits import Limits
from spritemesh.errors import OpsError

# How long a caller for whom there is no room should wait.
FULL_RETRY_SECONDS = 5.0


class Room:
    """Room for so many streams at the same time."""

    def __init__(self, limit: int, what: str) -> None:
        self.limit = limit
        self._what = what
        self.taken = 0

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Take a place for the length of the block. Raises OpsError `too_many_streams` when full."""
        if self.taken >= self.limit:
            raise OpsError(
                "too_many_streams",
                f"{self.limit} {self._what} are served already",
                retry_after=FULL_RETRY_SECONDS,
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class Drain:
    """Whether the agent is ending, and how many streams have not said goodbye yet.

    max_streams: of WatchEvents, WatchTraces, WatchHeartbeats and requests over HTTP together; health and
    control are not counted.
    """

    def __init__(self, wake: Callable[[], None], max_streams: int = Limits().streams) -> None:
        self._wake = wake
        self.event = asyncio.Event()
        self._room = Room(max_streams, "streams")
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def started(self) -> bool:
        """Whether streams should end and new calls be refused."""
        return self.event.is_set()

    @property
    def open_streams(self) -> int:
        """Streams that have not ended."""
        return self._room.taken

    @property
    def max_streams(self) -> int:
        """Streams that may be open."""
        return self._room.limit

    def start(self) -> None:
        """Begin to end. A second call changes nothing."""
        self.event.set()
        self._wake()

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Count a stream for the length of the block. Raises OpsError `too_many_streams` when full."""
        try:
            with self._room.entered():
                self._empty.clear()
                yield
        finally:
            if not self._room.taken:
                self._empty.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for the start at most so long; whether it came."""
        try:
            await asyncio.wait_for(self.event.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def wait_for_streams(self, seconds: float) -> bool:
        """Wait for the last goodbye at most so long; whether all were said."""
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except TimeoutError:
            return False
        return True
