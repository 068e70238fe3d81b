"""Wakes streams when the files that they tell of change: one watch for all subscribers of a directory."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from sprite_agent.runtime.watch import DirectoryWatch


class Subscription:
    """One stream's ear. A change that comes while nobody waits is remembered."""

    def __init__(self) -> None:
        self._pending = False
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Tell of a change."""
        self._pending = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, seconds: float) -> bool:
        """True at the next change, or one not yet told; False when `seconds` have passed without."""
        if not self._pending:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(seconds, _finish, self._waiter)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        told, self._pending = self._pending, False
        return told


class ChangeHub:
    """Spreads notices of a DirectoryWatch to subscriptions. Made and used on one event loop."""

    def __init__(self) -> None:
        self._watch = DirectoryWatch()
        self._subscriptions: dict[str, set[Subscription]] = {}
        if self._watch.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._watch.fileno(), self._read)

    @contextmanager
    def subscribe(self, directories: tuple[str, ...]) -> Iterator[Subscription]:
        """A subscription to changes in the directories, for the length of the block."""
        subscription = Subscription()
        for directory in directories:
            self._subscriptions.setdefault(directory, set()).add(subscription)
        self.ensure(directories)
        try:
            yield subscription
        finally:
            for directory in directories:
                subscribers = self._subscriptions[directory]
                subscribers.discard(subscription)
                if not subscribers:
                    del self._subscriptions[directory]

    def ensure(self, directories: tuple[str, ...]) -> None:
        """Watch what is not watched: a directory may have been made, or made anew, since."""
        for directory in directories:
            if not self._watch.watches(directory):
                self._watch.add(directory)

    def wake_all(self) -> None:
        """Wake every subscriber, whatever changed."""
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.wake()

    def close(self) -> None:
        """Stop watching."""
        if self._watch.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._watch.fileno())
        self._watch.close()

    def _read(self) -> None:
        for directory in self._watch.changed():
            for subscription in self._subscriptions.get(directory, ()):
                subscription.wake()


def _finish(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
