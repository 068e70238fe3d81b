"""The agent's end: told to all streams at once, waited for by the server."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Drain:
    """Whether the agent is ending, and how many streams have not said goodbye yet."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.event = asyncio.Event()
        self._streams = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def started(self) -> bool:
        """Whether streams should end and new calls be refused."""
        return self.event.is_set()

    def start(self) -> None:
        """Begin to end. A second call changes nothing."""
        self.event.set()
        self._wake()

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Count a stream for the length of the block."""
        self._streams += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._streams -= 1
            if not self._streams:
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
