"""Wakes heartbeat streams when the runtime starts or dies: one look for all of them, and only when needed.

A change of active-run.json comes through the ChangeHub, the death of the process that it names through a
pidfd. Where there is neither, and for what no notice tells of, there is a slow poll.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from sprite_agent.changes import ChangeHub, Subscription
from sprite_agent.runtime.process import ActiveRun
from sprite_agent.runtime.watch import SAFETY_POLL_SECONDS

_log = logging.getLogger("sprite_agent")
# After a look the next one waits this long: a runtime may write its state a hundred times a second.
_LOOK_PACE_SECONDS = 0.2
# While both kinds of notice work.
_SLOW_POLL_SECONDS = 15.0

Look = Callable[[], Awaitable[ActiveRun | None]]
# Process id and whether it lives; (0, False) when active-run.json names none.
Liveness = tuple[int, bool]


def liveness(run: ActiveRun | None) -> Liveness:
    """What must differ for streams to be told at once."""
    return (0, False) if run is None else (run.pid, run.process is not None)


class RuntimeWatch:
    """Looks while somebody subscribes. Made and used on one event loop.

    look: finds the run of this moment, without blocking the event loop. directory: that of active-run.json.
    """

    def __init__(self, look: Look, hub: ChangeHub, directory: str) -> None:
        self._look = look
        self._hub = hub
        self._directories = (directory,)
        self._subscribers: set[Subscription] = set()
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """A subscription to changes of liveness, for the length of the block. The hub's wake_all wakes it."""
        with self._hub.subscribe(()) as subscription:
            self._subscribers.add(subscription)
            if self._task is None:
                self._task = asyncio.create_task(self._watch(), name="runtime watch")
            try:
                yield subscription
            finally:
                self._subscribers.discard(subscription)
                if not self._subscribers:
                    self._task.cancel()
                    self._task = None

    async def _watch(self) -> None:
        known: Liveness | None = None
        with self._hub.subscribe(self._directories) as changes, _Death(changes.wake) as death:
            while True:
                is_told = False
                try:
                    found = liveness(await self._look())
                except Exception as error:
                    # All streams would go without notices from now on.
                    _log.error("agent_fault: it was not seen whether the runtime lives", exc_info=error)
                else:
                    if found != known:
                        for subscriber in self._subscribers:
                            subscriber.wake()
                    known = found
                    is_told = death.await_that_of(found[0] if found[1] else 0)
                await asyncio.sleep(_LOOK_PACE_SECONDS)
                is_told = is_told and self._hub.ensure(self._directories)
                await changes.wait(_SLOW_POLL_SECONDS if is_told else SAFETY_POLL_SECONDS)


class _Death:
    """Tells of the death of one process at a time, where the system can."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._pid = 0
        self._handle = -1

    def await_that_of(self, pid: int) -> bool:
        """Tell when this process dies, once; of none when 0. Whether that works."""
        if pid != self._pid or self._handle < 0:
            self._release()
            self._pid = pid
            open_process = getattr(os, "pidfd_open", None)  # Linux
            if pid and open_process is not None:
                try:
                    self._handle = open_process(pid)
                except OSError:
                    return False  # it has just ended, or the system does not let us
                asyncio.get_running_loop().add_reader(self._handle, self._died)
        return self._handle >= 0 or not pid

    def __enter__(self) -> "_Death":
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def _died(self) -> None:
        self._release()
        self._tell()

    def _release(self) -> None:
        if self._handle >= 0:
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1
