"""Files that are never seen half written: atomic JSON state, append-only JSONL, a lock a directory.

State is written to a temporary file, synced, then renamed over the old one (contract L8). A JSONL file
whose last line was torn by a crash gets its newline before the next row, so that the damage stays in
that one line. Locks are advisory and sit on the directory itself, so that they leave no file behind and
die with their process (contract L9).
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from spritemesh import jsontext
from spritemesh.errors import OpsError, kind_of
from spritemesh.jsontext import JSON

# How often a waiting process looks at a lock again, seconds.
_LOCK_POLL_SECONDS = 0.02
_TAIL_BLOCK_BYTES = 65536


def read_bytes(path: str) -> bytes | None:
    """The content of `path`, or None when there is no such file. Raises OSError otherwise."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def read_json(path: str, *, what: str = "file") -> JSON:
    """The JSON document in `path`; None when there is no such file.

    Raises OpsError `document_invalid`, which names the path, when it cannot be read or is no JSON.
    """
    try:
        data = read_bytes(path)
    except OSError as error:
        raise OpsError("document_invalid", f"{what} {path} cannot be read: {error.strerror}") from error
    if data is None:
        return None
    try:
        return jsontext.parse(data, max_depth=jsontext.MAX_DOCUMENT_DEPTH)
    except jsontext.JSONError as error:
        raise OpsError("document_invalid", f"{what} {path} is not valid JSON: {error}") from error


def read_object(path: str, *, what: str = "file") -> dict[str, JSON] | None:
    """As read_json, and `document_invalid` when the document is neither an object nor null."""
    value = read_json(path, what=what)
    if value is not None and not isinstance(value, dict):
        raise OpsError(
            "document_invalid", f"{what} {path} holds {kind_of(value)} where an object is expected"
        )
    return value


def write_atomic(path: str, data: bytes) -> None:
    """Replace `path` by `data`, synced, so that a reader or a crash meets the old or the new whole.

    Makes missing parent directories. Raises OpsError `state_unwritable`; the old content stays then.
    """
    directory = os.path.dirname(path) or "."
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        os.makedirs(directory, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        _remove_quietly(temporary)
        raise OpsError("state_unwritable", f"cannot write {path}: {error.strerror}") from error


def sync_directory(directory: str) -> None:
    """Make the renames in `directory` outlast a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file_system(path: str) -> None:
    """Have the disk take everything of the file system that holds `path`; of all of them where that call is
    unknown."""
    import ctypes  # few callers need it

    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # the renames that follow will say what is wrong
    try:
        ctypes.CDLL(None, use_errno=True).syncfs(handle)
    except AttributeError:
        os.sync()
    finally:
        os.close(handle)


def append_rows(path: str, rows: Iterable[JSON], *, sync: bool = False) -> None:
    """Append one compact line for each row, after repairing a torn tail; all rows in one write.

    sync: return only when the rows are on disk. Makes missing parent directories. Raises OSError: the
    caller knows whether this file fails open (telemetry) or closed (audit).
    """
    data = row_lines(rows)
    if not data:
        return
    with opened_to_append(path) as handle:
        append_lines(handle, data)
        if sync:
            os.fsync(handle)


def row_lines(rows: Iterable[JSON]) -> bytes:
    """One compact line for each row."""
    return b"".join(jsontext.encode(row) + b"\n" for row in rows)


@contextmanager
def opened_to_append(path: str) -> Iterator[int]:
    """A descriptor of `path`, made if missing, that nobody else appends to while the block runs.

    The file is the one that has this name then: one that was moved away while its lock was waited for is
    let go. Raises OSError.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if has_name(handle, path):
                yield handle
                return
        finally:
            os.close(handle)


def append_lines(handle: int, data: bytes) -> None:
    """Write whole lines at the end of a file that is held, or nothing. Raises OSError."""
    size = os.fstat(handle).st_size
    if size and os.pread(handle, 1, size - 1) != b"\n":
        data = b"\n" + data
    _write_all(handle, data, size)


def tail_lines(path: str, count: int) -> list[bytes]:
    """The last `count` lines of `path`, oldest first, without newlines; none when there is no file.

    Reads backwards in blocks, so that the cost follows `count` and not the file. Raises OSError.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        return tail_of(handle, count)
    finally:
        os.close(handle)


def tail_of(handle: int, count: int) -> list[bytes]:
    """As tail_lines, of a file that is open."""
    if count <= 0:
        return []
    position = os.fstat(handle).st_size
    blocks: list[bytes] = []
    newlines = 0
    # One newline more than lines wanted: the one that ends the line before them.
    while position and newlines <= count:
        start = max(0, position - _TAIL_BLOCK_BYTES)
        block = os.pread(handle, position - start, start)
        blocks.append(block)
        newlines += block.count(b"\n")
        position = start
    lines = b"".join(reversed(blocks)).split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    return lines[-count:]


@contextmanager
def locked_directory(directory: str, *, wait_seconds: float) -> Iterator[None]:
    """Hold the one lock of `directory` (made if missing) while the block runs.

    Waits up to `wait_seconds`, then raises OpsError `state_locked`. Raises `state_unwritable` where there
    can be no directory or no lock.
    """
    try:
        os.makedirs(directory, exist_ok=True)
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OpsError("state_unwritable", f"cannot use {directory}: {error.strerror}") from error
    try:
        deadline = time.monotonic() + wait_seconds
        while not _try_lock(handle, directory):
            if time.monotonic() >= deadline:
                raise OpsError(
                    "state_locked",
                    f"another process holds {directory}, perhaps a running manager;"
                    f" gave up after {wait_seconds:g} s",
                    retry_after=1,
                )
            time.sleep(_LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int, directory: str) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            return False
        raise OpsError("state_unwritable", f"cannot lock {directory}: {error.strerror}") from error
    return True


def has_name(handle: int, path: str) -> bool:
    """Whether `path` names the open file. Raises OSError other than that there is no such path."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _write_all(handle: int, data: bytes, size: int) -> None:
    """Write all of `data` at the end, or nothing: a full disk must not leave half a row."""
    written = 0
    try:
        while written < len(data):
            written += os.write(handle, data[written:])
    except OSError:
        with suppress(OSError):
            os.ftruncate(handle, size)
        raise


def _remove_quietly(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
