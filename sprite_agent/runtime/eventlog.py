"""The index of one event log: how many lines, where they are, and what their digest is.

The log is read once from the start, then only what was appended. A line counts when its newline is
there (contract L2). SHA-256 runs along; copies of it at checkpoints make any earlier place cheap to
verify. Checkpoints are thinned as the log grows, so that memory stays bounded whatever its size.
"""

import hashlib
import os
import stat
import threading
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from spritemesh.errors import OpsError

if TYPE_CHECKING:
    from hashlib import _Hash

# Reused for every read of a scan: fits a second-level cache, which a fresh 1 MiB string each time does not.
_SCAN_BYTES = 256 * 1024
_CHECKPOINT_BYTES = 4 * 1024 * 1024
_MAX_CHECKPOINTS = 512
# Compared when the file has grown: equal means appended to, else another file under the same name.
_FINGERPRINT_BYTES = 4096
_TAIL_BYTES = 16 * 1024
_QUICK_BYTES = 64 * 1024
_MAX_LAST_LINE_BYTES = 4 * 1024 * 1024


class Place(NamedTuple):
    """A place between two lines. `hasher` has taken in all bytes before `offset`; copy it before use."""

    line: int
    offset: int
    hasher: "_Hash"

    @property
    def digest(self) -> bytes:
        """SHA-256 over the lines before this place: 32 bytes."""
        return self.hasher.digest()


class Head(NamedTuple):
    """The end of the log at one moment."""

    generation: int  # another number: not merely appended to since
    line: int
    offset: int  # bytes of all complete lines
    size: int  # bytes of the file, torn tail included
    mtime: int  # whole seconds since 1970
    digest: bytes  # over the complete lines
    first_line_digest: bytes  # empty: no complete line
    file_sha256: str  # over all bytes, hexadecimal


class LogIndex:
    """Index of the log at `path`; safe to share between threads."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = -1
        self._generation = 0
        # Of the last refresh; `_head` is unset before the first one.
        self._signature: tuple[int, int, int, int] | None = None
        self._head: Head
        self._forget()

    def __del__(self) -> None:
        self._close_file()

    def close(self) -> None:
        """Release the file; the index may be used again and will read it anew.

        Never waits, since an event loop calls it: where a thread is reading, the file is released with the
        index, by whoever lets go of it last.
        """
        if self._lock.acquire(blocking=False):
            self._close_file()
            self._signature = None
            self._lock.release()

    @property
    def known_lines(self) -> int | None:
        """Complete lines as of the last refresh; None before the first one. Reads nothing and never waits."""
        return self._head.line if hasattr(self, "_head") else None

    def refresh(self) -> Head:
        """Take in what has changed on disk and return the end of the log.

        Costs a stat when nothing changed, the appended bytes when the log grew, the whole log (about a
        second a GiB) otherwise. Raises OpsError `events_missing` or `log_unavailable`.
        """
        with self._lock:
            return self._refresh()

    def refresh_if_idle(self) -> Head | None:
        """As refresh when that costs no more than a stat; None when it would cost more or block."""
        return self._refresh_within(0)

    def refresh_if_quick(self) -> Head | None:
        """As refresh when at most 64 KiB were appended; None when it would take longer or block."""
        return self._refresh_within(_QUICK_BYTES)

    def _refresh_within(self, most_bytes: int) -> Head | None:
        if not self._lock.acquire(blocking=False):
            return None
        try:
            found, known = self._stat(), self._signature
            if found != known:
                if known is None or found[:2] != known[:2] or not 0 < found[2] - known[2] <= most_bytes:
                    return None
                # It may still prove to be another log, and is then indexed here: rare, and once.
                self._refresh()
            return self._head
        except OpsError:
            return None
        finally:
            self._lock.release()

    def place(self, head: Head, line: int) -> Place:
        """The place after `line` lines of the log that ended at `head`.

        Reads from the checkpoint before it. Raises OpsError `log_unavailable` when the log is another one
        by now, or shrank meanwhile; ValueError when it has not so many lines.
        """
        with self._lock:
            self._check_is_current(head)
            if not 0 <= line <= self._line:
                raise ValueError(f"line {line} of {self._line}")
            if line == self._line:
                return Place(line, self._offset, self._complete.copy())
            at = self._checkpoints[bisect_right(self._checkpoints, line, key=lambda place: place.line) - 1]
            return self._advance(at, line)

    def read(self, head: Head, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` of the log that ended at `head`.

        Raises OpsError `log_unavailable` when the log is another one by now, or cannot be read.
        """
        with self._lock:
            self._check_is_current(head)
            return self._pread(size, offset)

    def last_line(
        self, head: Head, *, wanted: Callable[[bytes], object] = bytes.strip
    ) -> tuple[int, bytes] | None:
        """Number and bytes of the last line before `head` that is `wanted`; None when there is none.

        wanted: truth for a line's bytes, without newline; by default every line that is not blank.
        Of a line longer than what is looked at only the last 4 MiB are returned: it is no event anyway.
        Raises OpsError `log_unavailable` when the log is another one by now.
        """
        with self._lock:
            self._check_is_current(head)
            number, end, size = head.line, head.offset, _TAIL_BYTES
            while end:
                start = max(0, end - size)
                lines = self._pread(end - start, start).split(b"\n")[:-1]
                if not lines:
                    raise OpsError("log_unavailable", f"{self.path} shrank while it was read", retry_after=1)
                # The first piece lacks its beginning, unless the file starts there.
                whole = lines if start == 0 else lines[1:]
                for back, line in enumerate(reversed(whole)):
                    if wanted(line):
                        return number - back, line
                if start == 0:
                    break
                if size < _MAX_LAST_LINE_BYTES:
                    size *= 4
                elif not whole or wanted is not bytes.strip:
                    return (number - len(whole), lines[0]) if wanted(lines[0]) else None
                else:  # nothing but blank lines: go on before them, with the line that was cut
                    number -= len(whole)
                    end = start + len(lines[0]) + 1
            return None

    # --- under the lock ---------------------------------------------------------------------------

    def _check_is_current(self, head: Head) -> None:
        """Another thread's refresh may have met another log since the caller's."""
        if head.generation != self._generation or self._file < 0:
            raise OpsError("log_unavailable", f"{self.path} changed while it was read", retry_after=1)

    def _forget(self) -> None:
        self._line = 0
        self._offset = 0
        self._size = 0
        self._all = hashlib.sha256()
        self._complete = self._all.copy()
        self._first = hashlib.sha256()
        self._first_line_digest = b""
        self._spacing = _CHECKPOINT_BYTES
        self._checkpoints: list[Place] = [Place(0, 0, self._all.copy())]
        self._beginning = self._ending = b""

    def _stat(self) -> tuple[int, int, int, int]:
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            raise OpsError("events_missing", f"missing event log: {self.path}") from None
        except OSError as error:
            raise self._unavailable(error) from error
        if not stat.S_ISREG(status.st_mode):
            raise OpsError("events_missing", f"the event log is no regular file: {self.path}")
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def _refresh(self) -> Head:
        if self._stat() == self._signature:
            return self._head
        try:
            self._open_current()
            status = os.fstat(self._file)
            if not self._continues(status.st_size):
                self._generation += 1
                self._forget()
            self._scan(status.st_size)
            status = os.fstat(self._file)
            start = max(0, self._size - _FINGERPRINT_BYTES)
            self._ending = os.pread(self._file, self._size - start, start)
            self._beginning = os.pread(self._file, min(self._size, _FINGERPRINT_BYTES), 0)
        except OSError as error:
            self._lose_file()
            raise self._unavailable(error) from error
        # The size that was read, so that bytes appended since are seen by the next refresh.
        self._signature = (status.st_dev, status.st_ino, self._size, status.st_mtime_ns)
        self._head = Head(
            generation=self._generation,
            line=self._line,
            offset=self._offset,
            size=self._size,
            mtime=int(status.st_mtime),
            digest=self._complete.digest(),
            first_line_digest=self._first_line_digest,
            file_sha256=self._all.hexdigest(),
        )
        return self._head

    def _open_current(self) -> None:
        """Hold the file that the path names now; another inode starts a new generation."""
        file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        held = os.fstat(self._file) if self._file >= 0 else None
        found = os.fstat(file)
        if held is not None and (held.st_dev, held.st_ino) == (found.st_dev, found.st_ino):
            os.close(file)
            return
        self._close_file()
        self._file = file
        self._signature = None

    def _continues(self, size: int) -> bool:
        """Whether the file is what was indexed, with bytes appended."""
        if self._signature is None or size <= self._size:
            # As large as before, but changed: written in place. Only reading it all can tell where.
            return False
        for start, known in ((0, self._beginning), (self._size - len(self._ending), self._ending)):
            if os.pread(self._file, len(known), start) != known:
                return False
        return True

    def _scan(self, size: int) -> None:
        buffer = bytearray(_SCAN_BYTES)
        view = memoryview(buffer)
        while self._size < size:
            got = os.preadv(self._file, [view[: min(_SCAN_BYTES, size - self._size)]], self._size)
            if got == 0:
                return  # shrank while being read: the next refresh meets a smaller file
            end = buffer.rfind(b"\n", 0, got) + 1
            if end:
                if not self._first_line_digest:
                    first_end = buffer.find(b"\n", 0, got) + 1
                    self._first.update(view[:first_end])
                    self._first_line_digest = self._first.digest()
                self._line += buffer.count(b"\n", 0, end)
                self._all.update(view[:end])
                self._complete = self._all.copy()
                self._offset = self._size + end
                self._all.update(view[end:got])
                if self._offset - self._checkpoints[-1].offset >= self._spacing:
                    self._add_checkpoint()
            else:
                self._all.update(view[:got])
                if not self._first_line_digest:
                    self._first.update(view[:got])
            self._size += got

    def _add_checkpoint(self) -> None:
        self._checkpoints.append(Place(self._line, self._offset, self._complete))
        if len(self._checkpoints) > _MAX_CHECKPOINTS:
            del self._checkpoints[1::2]
            self._spacing *= 2

    def _advance(self, start: Place, line: int) -> Place:
        """The place after `line` lines, read on from an earlier one."""
        hasher, offset, missing = start.hasher.copy(), start.offset, line - start.line
        while missing:
            block = self._pread(_SCAN_BYTES, offset)
            if not block:
                raise OpsError("log_unavailable", f"{self.path} shrank while it was read", retry_after=1)
            found = block.count(b"\n")
            if found >= missing:
                end = -1
                for _ in range(missing):
                    end = block.find(b"\n", end + 1)
                block = block[: end + 1]
                found = missing
            hasher.update(block)
            offset += len(block)
            missing -= found
        return Place(line, offset, hasher)

    def _pread(self, size: int, offset: int) -> bytes:
        try:
            return os.pread(self._file, size, offset)
        except OSError as error:
            raise self._unavailable(error) from error

    def _lose_file(self) -> None:
        """After a read that failed: the next refresh begins anew."""
        self._close_file()
        self._signature = None

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _unavailable(self, error: OSError) -> OpsError:
        return OpsError("log_unavailable", f"cannot read {self.path}: {error.strerror}", retry_after=1)
