"""Room for so much at a time, of each of many: calls of a connection, event streams of a loop."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from sprite_agent.drain import FULL_RETRY_SECONDS
from spritemesh.errors import OpsError


class Rooms:
    """Places of each name. limit: of one name. reason, what: told to those for whom there is none.

    Only names that have something are held, so there are never more than all of it together.
    """

    def __init__(self, limit: int, reason: str, what: str) -> None:
        self.limit = limit
        self._reason = reason
        self._what = what
        self._taken: dict[str, int] = {}

    @property
    def fullest(self) -> int:
        """How many places are taken where most are."""
        return max(self._taken.values(), default=0)

    def take(self, name: str) -> None:
        """Take a place, to be given back by `give`. Raises OpsError when there is none."""
        taken = self._taken.get(name, 0)
        if taken >= self.limit:
            raise OpsError(self._reason, f"{self._what} {self.limit} already", retry_after=FULL_RETRY_SECONDS)
        self._taken[name] = taken + 1

    def give(self, name: str) -> None:
        """Give a place back."""
        left = self._taken[name] - 1
        if left:
            self._taken[name] = left
        else:
            del self._taken[name]

    @contextmanager
    def entered(self, name: str) -> Iterator[None]:
        """Take a place for the length of the block. Raises OpsError when there is none."""
        self.take(name)
        try:
            yield
        finally:
            self.give(name)


class Waits:
    """Waits for somebody who proved nothing, at most so many at a time.

    When there are more, the one that has gone on for longest ends: whoever says what he has to say at once is
    heard, however many others say nothing.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._going_on: dict[asyncio.Timeout, None] = {}

    @contextmanager
    def entered(self, patience: asyncio.Timeout) -> Iterator[None]:
        """A wait for the length of the block. patience: what bounds it, entered before; expires early when
        room is needed."""
        if len(self._going_on) >= self._most:
            oldest = next(iter(self._going_on))
            del self._going_on[oldest]
            if not oldest.expired():
                oldest.reschedule(0)
        self._going_on[patience] = None
        try:
            yield
        finally:
            self._going_on.pop(patience, None)
