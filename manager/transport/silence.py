"""Ends a call that has gone silent: a synchronous stream has no receive deadline of its own.

Keepalive finds a dead peer, but not an agent that hangs while its machine answers pings.
"""

import threading
import time
from types import TracebackType
from typing import Protocol, Self

_LOOK_SECONDS = 0.2


class Call(Protocol):
    """What is watched."""

    def cancel(self) -> bool:
        """End it."""
        ...


class SilenceWatch:
    """Cancels `call` when nothing that counts comes for so long; the reader's own time is not counted.

    Use it as a context manager around the reading; `expired` tells afterwards whether it struck.
    first_seconds: until the first message. next_seconds: from then on.
    """

    def __init__(self, call: Call, first_seconds: float, next_seconds: float) -> None:
        self.expired = False
        self._call = call
        self._next_seconds = next_seconds
        self._left = first_seconds
        self._deadline: float | None = time.monotonic() + first_seconds
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._run, name="silence watch", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()

    def heard(self, *, counts: bool) -> None:
        """A message came, and the reader is busy with it. counts: the time starts anew."""
        deadline, self._deadline = self._deadline, None
        self._left = self._next_seconds if counts or deadline is None else deadline - time.monotonic()

    def listen(self) -> None:
        """The reader waits again."""
        self._deadline = time.monotonic() + self._left

    def _run(self) -> None:
        while not self._closed.wait(_LOOK_SECONDS):
            deadline = self._deadline
            if deadline is not None and time.monotonic() > deadline:
                self.expired = True
                self._call.cancel()
                return
