"""Lines of a loop's runtime traces, stored each once: telemetry/traces.jsonl, traces-cursor.json beside it.

Lines are appended first, then the cursor tells how far the sprite's files are read and how large the stored
file is. Nothing is synced: SIGKILL loses nothing, and after a power cut lines of the last seconds may be
missing. Whoever was killed between the two has stored lines that come again; they are cut off before anything
else is appended. The file may have moved aside just then, so that all of the young one is to be cut off:
which file the cursor means is told by the digest of its first line.

One process at a time: its user holds the loop's lock.
"""

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from manager.core.cursor import Place
from manager.core.runtime_traces import Stored, TraceCursor, read_trace_cursor, trace_cursor_document
from manager.store.paths import LoopFiles
from spritemesh import files, jsontext, rotation
from spritemesh.errors import OpsError

# A file that has grown so large moves aside; with the four old ones, about 300,000 spans of a loop.
ROTATE_BYTES = 16 * 1024 * 1024
# What has not ended by then is no line that was stored here.
_LONGEST_LINE = 8 * 1024 * 1024
_READ_BYTES = 64 * 1024


class TraceStore:
    """The stored traces of one loop. Blocks. rotate_bytes: size at which the file moves aside."""

    def __init__(
        self,
        paths: LoopFiles,
        loop_id: str,
        *,
        rotate_bytes: int = ROTATE_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = paths.runtime_traces
        self._cursor_path = paths.traces_cursor
        self._loop_id = loop_id
        self._rotate_bytes = rotate_bytes
        self._clock = clock
        self._cursor: TraceCursor | None = None
        self._is_saved = False  # whether the cursor is on disk
        # Why the cursor could not be used, and reading starts over; what was stored stays.
        self.problem: OpsError | None = None

    def open(self) -> TraceCursor:
        """Where reading goes on; stored lines that are to come again are cut off.

        Raises OpsError `telemetry_unwritable`.
        """
        if self._cursor is None:
            try:
                self._cursor = self._read()
            except OSError as error:
                raise _unwritable(self._path, error) from error
        return self._cursor

    def write(self, lines: Sequence[bytes], places: Mapping[str, Place], mark: int = 0) -> None:
        """Store lines, each with its newline, and the places that are reached with them.

        Raises OpsError `telemetry_unwritable`: then nothing is stored, and the same lines may be tried again.
        """
        cursor = self.open()
        self._cursor = None  # what is on disk is not known until all is done
        try:
            if lines:
                if not self._is_saved:
                    # Without one nobody could tell what of the file is to be cut off.
                    self._save(cursor)
                self._append(b"".join(lines))
                stored = self._measure(lines, cursor.stored)
            else:
                stored = cursor.stored
            cursor = TraceCursor(dict(places), stored, mark)
            self._save(cursor)
        except OSError as error:
            raise _unwritable(self._path, error) from error
        self._cursor = cursor

    def _append(self, data: bytes) -> None:
        rotation.append_lines(self._path, data, limit=self._rotate_bytes)

    def _measure(self, lines: Sequence[bytes], before: Stored) -> Stored:
        size = os.stat(self._path).st_size
        if size == sum(map(len, lines)):
            return Stored(size, hashlib.sha256(lines[0]).digest())
        if not before.first_line_digest:
            return _stored_in(self._path)
        return Stored(size, before.first_line_digest)

    def _save(self, cursor: TraceCursor) -> None:
        """Replace the cursor."""
        # Late: a pass of a sprite without traces never comes here.
        from manager.store.swap import Swap

        document = trace_cursor_document(cursor, loop_id=self._loop_id, now=self._clock())
        swap = Swap()
        try:
            swap.add(self._cursor_path, jsontext.pretty(document) + b"\n")
            swap.commit()
        except OpsError as error:
            raise OpsError("telemetry_unwritable", error.message) from error
        self._is_saved = True

    def _read(self) -> TraceCursor:
        """What is on disk. Raises OSError."""
        try:
            document = files.read_json(self._cursor_path, what="cursor")
            if document is None:
                return self._anew()
            cursor = read_trace_cursor(document, self._cursor_path)
        except OpsError as error:
            self.problem = OpsError("cursor_invalid", error.message)
            return self._anew()
        if not self._cut(cursor.stored):
            why = f"cursor {self._cursor_path}: stored.bytes is within a line"
            self.problem = OpsError("cursor_invalid", why)
            return self._anew()
        self._is_saved = True
        return cursor

    def _anew(self) -> TraceCursor:
        """A beginning after what is stored already. Raises OSError."""
        self._is_saved = False
        return TraceCursor(stored=_stored_in(self._path))

    def _cut(self, stored: Stored) -> bool:
        """Cut off what was appended after the cursor was written; False, and nothing is cut, where no line
        ends there. Raises OSError."""
        if stored.size == 0:
            size = 0
        elif (young := _stored_in(self._path)).first_line_digest == stored.first_line_digest:
            size = stored.size
        elif young.size and _stored_in(f"{self._path}.1").first_line_digest == stored.first_line_digest:
            size = 0
        else:
            return True  # somebody removed or moved what was stored
        with suppress(FileNotFoundError), open(self._path, "r+b") as file:
            if os.fstat(file.fileno()).st_size > size:
                if files.is_torn(file.fileno(), size):
                    return False
                file.truncate(size)
        return True


def _stored_in(path: str) -> Stored:
    """What a file holds; nothing where there is none. Raises OSError."""
    try:
        with open(path, "rb", buffering=_READ_BYTES) as file:
            first = file.readline(_LONGEST_LINE)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return Stored()
    return Stored(size, hashlib.sha256(first).digest() if first.endswith(b"\n") else b"")


def _unwritable(path: str, error: OSError) -> OpsError:
    return OpsError("telemetry_unwritable", f"cannot write {path}: {error.strerror}")
