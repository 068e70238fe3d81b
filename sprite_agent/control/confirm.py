"""Looking for the effect of a command until it is there or the time is up (contract E.3)."""

import os
import select
import threading
import time
from collections.abc import Callable

from sprite_agent.control.observation import Observation, predicate
from sprite_agent.runtime.watch import DirectoryWatch
from spritemesh.errors import OpsError
from spritemesh.times import format_utc
from superloop.ops.v1 import control_pb2 as pb

# Each look reads the loop's files.
_LEAST_INTERVAL_SECONDS = 0.05
# A runtime that writes without pause is looked at this often.
_LEAST_PAUSE_SECONDS = 0.02

# Waits at most so many seconds for a change; False when the wait is to end altogether.
Wait = Callable[[float], bool]


def sleep(seconds: float) -> bool:
    """The Wait of those who have nothing to watch."""
    time.sleep(seconds)
    return True


def confirm(
    intent: str,
    observe: Callable[[], Observation],
    *,
    timeout_seconds: float,
    interval_seconds: float,
    wait: Wait = sleep,
    clock: Callable[[], float] = time.time,
) -> tuple[pb.ControlConfirmation, Observation | None]:
    """Look until the predicate holds or the time is up, at least once; also what was seen last.

    A look that fails with OpsError counts, and tells nothing. interval_seconds: 0 means 1; at least 0.05.
    clock: epoch seconds, for `observed_at`.
    """
    deadline = time.monotonic() + timeout_seconds
    interval = max(interval_seconds or 1.0, _LEAST_INTERVAL_SECONDS)
    attempts = 0
    seen: Observation | None = None
    while True:
        attempts += 1
        try:
            seen = observe()
        except OpsError:
            reason = ""
        else:
            reason = predicate(intent, seen)
        left = deadline - time.monotonic()
        if reason or left <= 0 or not wait(min(interval, left)):
            break
    result = pb.ControlConfirmation(
        confirmed=bool(reason),
        reason=reason or "timeout",
        attempts=attempts,
        observed_status=seen.status if seen is not None else "unknown",
        observed_last_event=seen.last_event if seen is not None else None,
        observed_approval_status=seen.approval_status if seen is not None else None,
        observed_active=seen is not None and seen.is_active,
        observed_at=format_utc(clock()),
    )
    result.timeout.FromMilliseconds(round(timeout_seconds * 1000))
    return result, seen


class ChangeWait:
    """Waits for changes of files in directories, or until it is told to stop. Of one thread.

    stop: a descriptor that turns readable when the wait is to end; -1: none.
    """

    def __init__(self, directories: tuple[str, ...], stop: int = -1) -> None:
        self._watch = DirectoryWatch()
        self._directories = directories
        self._stop = stop
        # select() cannot take the high descriptors of a busy agent.
        self._poll = select.poll()
        for handle in (self._watch.fileno(), stop):
            if handle >= 0:
                self._poll.register(handle, select.POLLIN)
        self._ensure()

    def __call__(self, seconds: float) -> bool:
        """As Wait."""
        self._ensure()
        started = time.monotonic()
        readable = [handle for handle, _ in self._poll.poll(seconds * 1000)]
        if self._stop in readable:
            return False
        self._watch.changed()
        pause = _LEAST_PAUSE_SECONDS - (time.monotonic() - started)
        if readable and pause > 0:
            time.sleep(min(pause, seconds))
        return True

    def _ensure(self) -> None:
        for directory in self._directories:
            if not self._watch.watches(directory):
                self._watch.add(directory)

    def __enter__(self) -> "ChangeWait":
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.close()


class StopSignal:
    """A descriptor that turns readable for all when `set` is called."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._lock = threading.Lock()
        self._closed = False
        self.is_set = False

    def fileno(self) -> int:
        return self._reader

    def set(self) -> None:
        """Tell everybody. A second call changes nothing."""
        with self._lock:
            if not self.is_set and not self._closed:
                os.write(self._writer, b"\0")
            self.is_set = True

    def close(self) -> None:
        """Release the descriptors. A second call changes nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._reader)
                os.close(self._writer)
