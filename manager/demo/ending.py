"""Signals that end the demonstration, as an exception where one can be dealt with."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """The operator, or the system, wants the end."""


class Ending:
    """Takes the signals from now on: each raises Stopped, wherever the main thread is."""

    def __init__(self) -> None:
        self._is_held = self._came = False
        for number in _SIGNALS:
            # An ignored SIGHUP stays ignored, or `nohup` would not work.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._stop)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A block in which nothing is raised, but after it: an event loop would swallow the exception."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._came:
            raise Stopped

    @staticmethod
    def ignore() -> None:
        """Nothing is raised any more: the end is under way."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _stop(self, _number: int, _frame: object) -> None:
        if not self._is_held:
            raise Stopped
        self._came = True
