"""Keeps a board as that of a manager elsewhere, for as long as anybody looks."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing

from manager.fleet.board import Board
from manager.fleet.client import sent_at, watch_fleet
from manager.transport.base import Endpoint
from manager.transport.signed import is_early
from spritemesh.errors import OpsError
from spritemesh.reasons import Fault
from superloop.ops.v1 import manager_pb2 as pb

_RETRY_SECONDS = 1.0
# What waiting does not mend.
_LASTING = {Fault.CREDENTIALS, Fault.REQUEST, Fault.UNKNOWN_METHOD}


class Follower:
    """A board that follows a manager, also when that is restarted elsewhere.

    find: where the manager is now; asked for each connection, and may raise OpsError. interval: wanted
    seconds between changes. note: why the board is old, "" when it is not.
    """

    def __init__(self, find: Callable[[], Endpoint], *, interval: float) -> None:
        self.note = ""
        self.board = Board("")
        self._find = find
        self._interval = interval
        self._clock_offset = time.time() - time.monotonic()

    def clock(self) -> float:
        """Now on the manager's clock, epoch seconds."""
        return time.monotonic() + self._clock_offset

    async def run(self, ready: asyncio.Event) -> None:
        """Follow. ready: set when the whole fleet is on the board for the first time.

        Raises OpsError when that fails before, or what failed lasts.
        """
        while True:
            try:
                await self._follow(ready)
            except OpsError as error:
                if not ready.is_set() or (error.row.fault in _LASTING and not is_early(error)):
                    raise
                self.note = f"{error.reason}: {error.message}; trying again"
            await asyncio.sleep(_RETRY_SECONDS)

    async def _follow(self, ready: asyncio.Event) -> None:
        """One connection. Raises OpsError at its end."""
        before = {view.loop_id for view in self.board.views()}
        is_whole = False
        async with aclosing(watch_fleet(self._find(), interval=self._interval)) as messages:
            async for message in messages:
                self._take(message)
                before.difference_update(view.loop_id for view in message.loops)
                if message.complete and not is_whole:
                    is_whole = True
                    for loop_id in before:
                        self.board.remove(loop_id)
                    self.note = ""
                    ready.set()

    def _take(self, message: pb.WatchFleetResponse) -> None:
        self.board.fleet_id = message.fleet_id
        self._clock_offset = sent_at(message) - time.monotonic()
        for view in message.loops:
            self.board.put(view)
        for loop_id in message.removed_loop_ids:
            self.board.remove(loop_id)
