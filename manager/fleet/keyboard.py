"""Keys typed at a program that draws: `q` ends it."""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_KEY = b"q"


class Keyboard:
    """Listens to standard input while open, if that is the terminal of this process. One event loop uses it.

    on_quit: called when `q` was typed. Ctrl-C goes on to be a signal.
    """

    def __init__(self, on_quit: Callable[[], None]) -> None:
        self._on_quit = on_quit
        self._before: list[Any] | None = None
        self._handle = -1

    def open(self) -> None:
        """Take keys as they are typed, without echo."""
        import termios
        import tty

        if sys.stdin is None or not sys.stdin.isatty():
            return
        handle = sys.stdin.fileno()
        try:
            # A program in the background that changes the terminal is stopped.
            if os.tcgetpgrp(handle) != os.getpgrp():
                return
            self._before = termios.tcgetattr(handle)
            tty.setcbreak(handle, termios.TCSANOW)
        except (OSError, termios.error):
            return
        self._handle = handle
        asyncio.get_running_loop().add_reader(handle, self._read)

    def close(self) -> None:
        """Leave the terminal as it was found."""
        import termios

        if self._before is None:
            return
        asyncio.get_running_loop().remove_reader(self._handle)
        with suppress(OSError, termios.error):
            termios.tcsetattr(self._handle, termios.TCSANOW, self._before)
        self._before = None

    def _read(self) -> None:
        try:
            typed = os.read(self._handle, 64)
        except OSError:
            typed = b""
        if not typed:  # the terminal is gone
            asyncio.get_running_loop().remove_reader(self._handle)
        if not typed or _KEY in typed.lower():
            self._on_quit()
