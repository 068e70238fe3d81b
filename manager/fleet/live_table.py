"""A board on a terminal, drawn again and again until somebody has seen enough."""

import asyncio
import logging
import os
import queue
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from types import TracebackType
from typing import Any

from manager.fleet.board import Board
from manager.fleet.document import Fleet
from manager.fleet.keyboard import Keyboard

_log = logging.getLogger("ops_manager")
# A terminal that takes nothing any more must not hold up the end.
_LAST_FRAME_SECONDS = 2.0


class LiveTable:
    """Draws a board on the alternate screen of standard output for the length of an `async with` block.

    interval: seconds between two frames. clock: now on the manager's clock, epoch seconds. note: gives a line
    above the table, "" for none. quit: set when the user typed `q`, or the terminal is gone.

    Frames are drawn by a thread: a terminal that is stopped, or slow, delays no one else. What is written to
    standard error meanwhile disturbs the picture.
    """

    def __init__(
        self,
        board: Board,
        *,
        interval: float = 1.0,
        clock: Callable[[], float] = time.time,
        note: Callable[[], str] = str,
    ) -> None:
        self.quit = asyncio.Event()
        self._board = board
        self._interval = interval
        self._clock = clock
        self._note = note
        self._keyboard = Keyboard(self.quit.set)
        self._frames: queue.SimpleQueue[tuple[Fleet, str] | None] = queue.SimpleQueue()
        self._ending = asyncio.Event()
        self._ticking: list[asyncio.Task[None]] = []
        self._is_idle = True

    async def __aenter__(self) -> "LiveTable":
        # A file of its own: the end of the program does not wait for a thread that is stuck in writing.
        file = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", errors="replace")
        loop = asyncio.get_running_loop()
        drawing = Thread(target=self._draw, args=(file, loop), name="table", daemon=True)
        drawing.start()
        self._keyboard.open()
        self._ticking.append(asyncio.create_task(self._tick(drawing), name="table"))
        # A table that stands still must not be taken for a fleet that does.
        self._ticking[0].add_done_callback(lambda _: self.quit.set())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending.set()
        for failure in await asyncio.gather(*self._ticking, return_exceptions=True):
            if failure is not None:
                _log.error("internal_error in the table", exc_info=failure)
        self._keyboard.close()

    async def _tick(self, drawing: Thread) -> None:
        """Ask for frames until the end, and wait for the last of them."""
        while not self._ending.is_set():
            if self._is_idle:
                self._is_idle = False
                fleet = Fleet(self._board.fleet_id, self._clock(), self._board.views())
                self._frames.put((fleet, self._note()))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), self._interval)
        self._frames.put(None)
        await asyncio.to_thread(drawing.join, _LAST_FRAME_SECONDS)

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop has ended by now
            loop.call_soon_threadsafe(self.quit.set)

    def _draw(self, file: Any, loop: asyncio.AbstractEventLoop) -> None:
        """The thread: draws frames until there is a None, or the terminal is gone."""
        from rich.console import Console
        from rich.live import Live

        from manager.render_fleet import FleetTable

        console = Console(file=file, force_terminal=True, highlight=False, markup=False, emoji=False)
        try:
            with Live(
                console=console,
                screen=True,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            ) as live:
                while (frame := self._frames.get()) is not None:
                    fleet, note = frame
                    live.update(FleetTable(fleet, note=note, height=console.height), refresh=True)
                    self._is_idle = True
        except OSError:
            self._end(loop)
        except Exception as defect:
            _log.error("internal_error in the table", exc_info=defect)
            self._end(loop)
        finally:
            with suppress(OSError):
                file.close()
