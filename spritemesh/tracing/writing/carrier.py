"""Lines on their way out of the traced program: handed over without waiting, written by a thread.

Whoever has a line puts it in a queue, which takes no lock and never gives up the interpreter's: a span must
cost the traced program microseconds, whatever the disk does. One thread, started by the first line of a
process, takes what waits and writes it. The queue is bounded; what finds it full is counted and dropped.

What is put is in the queue before `put` looks whether the process is about to die, and the dying process
says so before it waits for the queue to be written: a line is either seen by that wait, or waits for itself.

A fork leaves the child without the thread and with lines that the parent will write: it starts anew.
"""

import _thread
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

# Lines, and bytes of them, that may wait.
MAX_LINES = 65_536
MAX_BYTES = 32 * 1024 * 1024
# In one write. Where many threads want the interpreter, the writing one gets it back after all others had
# their turns, so that a write takes some hundred milliseconds: few large ones keep up, many small do not.
_LINES_OF_A_WRITE = 16_384
# So many do not wait for more.
_MANY_LINES = 8_192
# When what could not be written is tried again, seconds.
_RETRY_SECONDS = 0.5


class Sink(Protocol):
    """What lines are written to."""

    def write(self, data: bytes) -> None:
        """Write whole lines, all of them, or raise. Called by one thread at a time; may take its time."""


class Carrier:
    """Takes lines and has a thread write them.

    sink: where they go. interval: seconds for which lines gather before they are written.
    report: makes the line that tells how many were dropped.
    """

    def __init__(self, sink: Sink, *, interval: float, report: Callable[[int], bytes]) -> None:
        self._sink = sink
        self._interval = interval
        self._report = report
        self._items: deque[bytes] = deque()
        self.reset()

    def reset(self) -> None:
        """Begin as if nothing had been put; in a child that was forked there is no thread, and what waits
        is the parent's."""
        self._items.clear()
        self._most = MAX_LINES
        # Bytes in the queue. Changed without a lock, so no more than nearly right.
        self._size = 0
        # CPython changes threads at calls and jumps, and there are none within a `+=` of a number.
        self.dropped = 0
        # What went wrong when it was last tried to write; empty when that worked.
        self.problem = ""
        # What went wrong when lines were last dropped; empty when they just were too many.
        self.cause = ""
        self._told = 0
        self._batch = b""
        self._lines_of_batch = 0
        self._flushes: deque[_Flush] = deque()
        self._bell = _locked()
        # Held from when the thread is started; before that, by whoever does the thread's work for once.
        self._start = _thread.allocate_lock()
        self._is_started = False
        # Whether a line has to wake, or start, the thread.
        self._is_idle = True
        # The process is about to end: each put waits until it is written, all together for so many seconds.
        self._is_urgent = False
        self._patience = 0.0

    @property
    def waiting(self) -> int:
        """Lines that are not written yet."""
        return len(self._items) + self._lines_of_batch

    def put(self, line: bytes) -> None:
        """Have a line written, which ends with a newline. Waits for nothing and raises nothing; what is too
        much is counted and dropped."""
        if len(self._items) >= self._most or self._size > MAX_BYTES:
            self.dropped += 1
            self.cause = self.problem or self.cause
            return
        self._size += len(line)
        self._items.append(line)
        if self._is_idle:
            self._wake()
        if self._is_urgent:
            began = time.monotonic()
            self.flush(self._patience)
            self._patience -= time.monotonic() - began

    def flush(self, seconds: float) -> bool:
        """Wait until what was put is written, and say whether it is; at most `seconds`, and no longer than
        until writing fails."""
        if not self.waiting:
            return True
        if seconds <= 0 or sys.is_finalizing():
            return False
        flush = _Flush()
        # Behind the lines that it waits for, and before the thread is woken.
        self._flushes.append(flush)
        self._wake()
        if not self._is_started and self._start.acquire(blocking=False):
            # No thread can be had any more, or none at all.
            self._carry()
            self._start.release()
        return flush.wait(seconds)

    def hasten(self, seconds: float) -> None:
        """From now on each put waits until it is written; `seconds` is how long all of them may wait, however
        late they come."""
        self._patience = seconds
        self._is_urgent = True

    def stop(self) -> None:
        """Take no more lines; those that wait count as dropped."""
        self._most = 0
        self.dropped += self.waiting
        self._ring()

    def _wake(self) -> None:
        self._is_idle = False
        if self._is_started:
            self._ring()
        elif self._start.acquire(blocking=False):
            try:
                # Not by `threading`: nobody shall meet this thread in the lists of theirs, or wait for it.
                _thread.start_new_thread(self._run, ())
                self._is_started = True
            except RuntimeError:
                # There are too many, or the interpreter is ending. The next line tries again.
                self._is_idle = True
                self._start.release()

    def _ring(self) -> None:
        # It may be ringing already.
        with suppress(RuntimeError):
            self._bell.release()

    def _run(self) -> None:
        # Signals are the program's, and a reader that is gone must not end it.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            self._rest()
            if not self._most:
                return
            self._carry()

    def _rest(self) -> None:
        if self.problem:
            self._bell.acquire(timeout=_RETRY_SECONDS)
            return
        if not self._items:
            # Said before it is looked again, so that no line slips by in between.
            self._is_idle = True
            if not self._items and not self._flushes:
                self._bell.acquire()
            self._is_idle = False
        if len(self._items) < _MANY_LINES and not self._flushes and not self._is_urgent:
            self._bell.acquire(timeout=self._interval)

    def _carry(self) -> None:
        # Taken before the lines are counted: what was put before a flush is in the queue then.
        flushes = [self._flushes.popleft() for _ in range(len(self._flushes))]
        is_written = self._write_all(len(self._items))
        for flush in flushes:
            flush.end(is_written=is_written)

    def _write_all(self, count: int) -> bool:
        while self._batch or count > 0:
            if not self._batch:
                self._gather(min(count, _LINES_OF_A_WRITE))
                count -= self._lines_of_batch
            try:
                self._sink.write(self._batch)
            except Exception as error:  # nothing that happens here may reach the traced program
                self.problem = getattr(error, "strerror", None) or type(error).__name__
                return False
            self.problem = ""
            self._batch = b""
            self._lines_of_batch = 0
        return True

    def _gather(self, count: int) -> None:
        items = self._items
        # First, so that none is missing in the sum meanwhile.
        self._lines_of_batch = count
        lines = [items.popleft() for _ in range(count)]
        data = b"".join(lines)
        self._size = self._size - len(data) if items else 0
        missing = self.dropped - self._told
        if missing:
            self._told += missing
            data += self._report(missing)
        self._batch = data


class _Flush:
    """Somebody who waits until lines are written."""

    __slots__ = ("_is_over", "_is_written")

    def __init__(self) -> None:
        self._is_over = _locked()
        self._is_written = False

    def end(self, *, is_written: bool) -> None:
        self._is_written = is_written
        self._is_over.release()

    def wait(self, seconds: float) -> bool:
        self._is_over.acquire(timeout=seconds)
        return self._is_written


def _locked() -> _thread.LockType:
    lock = _thread.allocate_lock()
    lock.acquire()
    return lock
