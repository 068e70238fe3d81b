"""Wakes streams when the files that they tell of change: one watch for all subscribers of a directory.

Logs are also looked at each second, since inotify does not see every write (through another link, on
another host); once for all who follow one.
"""

import asyncio
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

from sprite_agent.runtime.watch import SAFETY_POLL_SECONDS, DirectoryWatch


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


class _Polled:
    """A file that is looked at, and who wants to hear of it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._signature = self._look()
        self.subscribers: set[Subscription] = set()

    def poll(self) -> None:
        found = self._look()
        if found != self._signature:
            self._signature = found
            for subscriber in self.subscribers:
                subscriber.wake()

    def _look(self) -> tuple[int, int, int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class ChangeHub:
    """Spreads notices of a DirectoryWatch to subscriptions. Made and used on one event loop."""

    def __init__(self) -> None:
        self._watch = DirectoryWatch()
        self._subscriptions: dict[str, set[Subscription]] = {}
        self._all: set[Subscription] = set()
        self._polled: dict[str, _Polled] = {}
        self._timer: asyncio.TimerHandle | None = None
        if self._watch.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._watch.fileno(), self._read)

    @contextmanager
    def subscribe(self, directories: tuple[str, ...], *files: str) -> Iterator[Subscription]:
        """A subscription to changes in the directories, for the length of the block.

        files: are polled as well. Without either it is for wake_all and for whoever else knows it.
        """
        subscription = Subscription()
        self._all.add(subscription)
        for directory in directories:
            self._subscriptions.setdefault(directory, set()).add(subscription)
        self.ensure(directories)
        for file in files:
            if file not in self._polled:
                self._polled[file] = _Polled(file)
            self._polled[file].subscribers.add(subscription)
        self._start_timer()
        try:
            yield subscription
        finally:
            self._all.discard(subscription)
            for file in files:
                self._polled[file].subscribers.discard(subscription)
                if not self._polled[file].subscribers:
                    del self._polled[file]
            for directory in directories:
                subscribers = self._subscriptions[directory]
                subscribers.discard(subscription)
                if not subscribers:
                    del self._subscriptions[directory]

    def ensure(self, directories: tuple[str, ...]) -> bool:
        """Watch what is not watched: a directory may have been made, or made anew, since. Whether all are."""
        watched = [self._watch.watches(directory) or self._watch.add(directory) for directory in directories]
        return all(watched)

    def wake_all(self) -> None:
        """Wake every subscriber, whatever changed."""
        for subscription in self._all:
            subscription.wake()

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watch.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._watch.fileno())
        self._watch.close()

    def _start_timer(self) -> None:
        if self._timer is None and self._polled:
            loop = asyncio.get_running_loop()
            # At whole seconds, as the lag probe: waking up costs more than the look.
            due = (math.floor(loop.time() / SAFETY_POLL_SECONDS) + 1) * SAFETY_POLL_SECONDS
            self._timer = loop.call_at(due, self._poll)

    def _poll(self) -> None:
        self._timer = None
        self.ensure(tuple(self._subscriptions))
        for polled in list(self._polled.values()):
            polled.poll()
        self._start_timer()

    def _read(self) -> None:
        for directory in self._watch.changed():
            for subscription in self._subscriptions.get(directory, ()):
                subscription.wake()


def _finish(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
