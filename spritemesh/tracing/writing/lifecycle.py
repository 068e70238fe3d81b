"""The ends of a process, and forks: when lines that wait have to be written at once, or forgotten.

A normal end runs what `atexit` knows, or, in a child of multiprocessing, its finalizers. A signal that ends
the process does neither, so that it is caught where the program leaves it to the system: what waits is
written, and the process dies of the same signal, as soon as the main thread is at Python code. Programs that
catch a signal themselves, before or after this, are left to it. What ends a process without Python's knowing
(SIGKILL, os._exit, os.exec) takes with it what is younger than the writer's interval.
"""

import atexit
import os
import signal
import sys
import time
from contextlib import suppress
from types import FrameType

from spritemesh.tracing.writing.writer import EXIT_SECONDS, Writer

# They end a process, and are not the fault of what it just did: it could not go on after those.
_FATAL = (
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGALRM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)
# After all finalizers of the program.
_LAST = -1_000_000

_writers: list[Writer] = []
_is_installed = False
_is_dying = False


def install(writer: Writer) -> None:
    """See to it that what `writer` was given is written when the process ends."""
    global _is_installed  # noqa: PLW0603 - what is installed is so for the process
    _writers.append(writer)
    if not _is_installed:
        _is_installed = True
        atexit.register(_finish)
        os.register_at_fork(after_in_child=_begin_anew)
    _watch_multiprocessing()
    catch_signals()


def catch_signals() -> None:
    """Write what waits when a signal ends the process. By the main thread, or signals are left as they
    are."""
    caught = _caught()
    for number in _FATAL:
        # Not in the main thread.
        with suppress(ValueError):
            if signal.getsignal(number) == signal.SIG_DFL and not caught >> (number - 1) & 1:
                signal.signal(number, _die)


def close(writer: Writer) -> None:
    """Write what `writer` was given, and have it take no more."""
    writer.close()
    with suppress(ValueError):
        _writers.remove(writer)
    if not _writers:
        for number in _FATAL:
            with suppress(ValueError):
                if signal.getsignal(number) == _die:
                    signal.signal(number, signal.SIG_DFL)


def _finish() -> None:
    deadline = time.monotonic() + EXIT_SECONDS
    for writer in _writers:
        writer.hasten(EXIT_SECONDS)
    # Somebody is tired of waiting.
    with suppress(KeyboardInterrupt):
        for writer in _writers:
            writer.finish(deadline - time.monotonic())


def _die(number: int, _frame: FrameType | None) -> None:
    global _is_dying  # noqa: PLW0603 - a process dies once
    if _is_dying:
        # Supervisors like to say it twice, and this takes no longer than EXIT_SECONDS.
        return
    _is_dying = True
    try:
        _finish()
    finally:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _begin_anew() -> None:
    global _is_dying  # noqa: PLW0603 - as above
    _is_dying = False
    for writer in _writers:
        writer.reset()
    _watch_multiprocessing()


def _watch_multiprocessing() -> None:
    """Have a child of multiprocessing write what waits at its end, which runs nothing of `atexit`."""
    if "multiprocessing.util" not in sys.modules:
        return
    from multiprocessing import process, util

    # A child forgets, when it begins, all finalizers that it has from its parent; and does this after that.
    util.register_after_fork(_finish, _at_end)
    if process.parent_process() is not None:
        _at_end()


def _at_end(_: object = None) -> None:
    from multiprocessing import util

    util.Finalize(None, _finish, exitpriority=_LAST)


def _caught() -> int:
    """The signals that this process catches, as a set of bits: also those that C code does, of which Python
    does not know (`faulthandler.register`)."""
    with suppress(OSError), open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"SigCgt:"):
                return int(line.split()[1], 16)
    return 0
