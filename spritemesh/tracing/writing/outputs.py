"""Where lines end up: a file that is rotated, something else that can be written to, or a terminal.

All of them write whole lines, and raise OSError when they could not. Files are opened for each write: when a
program closes all its descriptors, as daemons do, ours must not end in whatever gets the number next.
"""

import errno
import fcntl
import os
import stat
import time
from contextlib import suppress
from typing import TextIO

from spritemesh import modes, rotation
from spritemesh.tracing.writing.carrier import Sink

# How often a reader that is behind is looked at again, seconds.
_POLL_SECONDS = 0.01
# Names there stand for what a process has open; nothing of that may be renamed.
_OPEN_ELSEWHERE = ("/dev/", "/proc/")
_FOR_WRITING = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


class RotatedFile:
    """A file that several processes append to, and that moves aside when it has `max_bytes`."""

    def __init__(self, path: str, *, max_bytes: int, keep: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep

    def write(self, data: bytes) -> None:
        rotation.append_lines(self._path, data, limit=self._max_bytes, keep=self._keep, make_directory=False)


class Stream:
    """A pipe with a name, a terminal, a device: kept open, since a reader takes its closing for the end."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._handle = -1
        self._opened: os.stat_result | None = None

    def write(self, data: bytes) -> None:
        # One that nobody reads refuses this.
        handle = self._open()
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            write_patiently(handle, data)
        except OSError:
            self._opened = None
            os.close(handle)
            raise
        fcntl.flock(handle, fcntl.LOCK_UN)

    def _open(self) -> int:
        if self._opened is None or not _is_still(self._handle, self._opened):
            self._handle = os.open(self._path, _FOR_WRITING)
            self._opened = os.fstat(self._handle)
        return self._handle


class Screen:
    """Standard error, or another stream that people read. When they do not, nothing is said any more."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._handle = -1
        # One of the program's own, in memory, has no descriptor.
        with suppress(OSError, ValueError, AttributeError):
            self._handle = stream.fileno() if stream else -1

    def write(self, data: bytes) -> None:
        # By the descriptor: a stream is locked while somebody writes, whom a signal or a fork may stop in it.
        try:
            if self._handle >= 0:
                write_patiently(self._handle, data)
            elif self._stream:
                self._stream.write(data.decode())
        except (OSError, ValueError):
            self._handle = -1
            self._stream = None


def output_at(path: str, *, max_bytes: int, keep: int) -> Sink:
    """What lines for `path` are given to, made if it is missing. Never waits. Raises OSError where nothing
    can be written."""
    try:
        kind = os.stat(path).st_mode
    except FileNotFoundError:
        kind = stat.S_IFREG
    if stat.S_ISREG(kind) and not path.startswith(_OPEN_ELSEWHERE):
        os.close(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, modes.FILE))
        return RotatedFile(path, max_bytes=max_bytes, keep=keep)
    if stat.S_ISFIFO(kind):
        # It cannot be opened as long as nobody reads.
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    else:
        os.close(os.open(path, _FOR_WRITING))
    return Stream(path)


def make_place(path: str) -> None:
    """Make the directory of a relative path where it is missing, for our user alone: a fresh repository has
    no `.superloop` yet. Absolute paths, and those that go up, stay as they are. Raises OSError or
    ValueError."""
    above = os.path.dirname(path)
    if above and not os.path.isabs(path) and os.pardir not in above.split("/"):
        modes.make_directory(above)


def write_patiently(handle: int, data: bytes) -> None:
    """Write all of it, also where a descriptor does not wait by itself. Raises OSError."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(handle, left) :]
        except BlockingIOError:
            time.sleep(_POLL_SECONDS)


def _is_still(handle: int, opened: os.stat_result) -> bool:
    """Whether the descriptor is the one that was opened: programs that become daemons close all they have."""
    try:
        return os.path.samestat(os.fstat(handle), opened)
    except OSError:
        return False
