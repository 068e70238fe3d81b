"""Files that are never seen half written: atomic JSON state, append-only JSONL, a lock a directory.

State is written to a temporary file, synced, then renamed over the old one (contract L8). A JSONL file
whose last line was torn by a crash gets its newline before the next row, so that the damage stays in
that one line. Locks are advisory and sit on the directory itself, so that they leave no file behind and
die with their process (contract L9).

What is made here is its owner's alone (`spritemesh.modes`), unless `private` is False: then the umask
decides.
"""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from spritemesh import clibrary, jsontext, modes
from spritemesh.errors import OpsError, kind_of
from spritemesh.jsontext import JSON

# How often a waiting process looks at a lock again, seconds.
_LOCK_POLL_SECONDS = 0.02
_TAIL_BLOCK_BYTES = 65536
# Longer than any tick of a kernel, of which the slowest has 100 a second.
UNSETTLED_NS = 20_000_000


def signature(status: os.stat_result) -> tuple[int, ...]:
    """What changes when a file changes."""
    now = time.time_ns()
    if 0 <= now - status.st_mtime_ns < UNSETTLED_NS:
        # A second change within the same tick of the file system's clock would look like none.
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, now
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


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


def write_atomic(path: str, data: bytes, *, private: bool = True) -> None:
    """Replace `path` by `data`, synced, so that a reader or a crash meets the old or the new whole.

    A file that is there already keeps its mode. Makes missing parent directories. Raises OpsError
    `state_unwritable`; the old content stays then.
    """
    directory = os.path.dirname(path) or "."
    try:
        _make_directory(directory, private=private)
        handle, temporary = open_temporary(path, private=private)
        with open(handle, "wb") as file:
            # All while it is locked: nobody else's is renamed or removed.
            try:
                modes.keep_mode(handle, path)
                file.write(data)
                file.flush()
                os.fsync(handle)
                os.replace(temporary, path)
            except OSError:
                _remove_quietly(temporary)
                raise
    except OSError as error:
        raise OpsError("state_unwritable", f"cannot write {path}: {error.strerror}") from error


def open_temporary(path: str, *, private: bool = True) -> tuple[int, str]:
    """A descriptor of an empty file beside `path`, which is to become `path` by a rename, and its name.

    The name is always the same, so that what a crash left is taken up by whoever comes next, and cannot
    pile up. The descriptor holds a lock on it, which proves that nobody else writes there: it may be closed
    when the file is renamed. Where it is somebody else's, another name is taken. Raises OSError.
    """
    opener = _opener(private=private)
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    shared = f"{path}.tmp"
    with suppress(PermissionError):
        handle = opener(shared, flags | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if has_name(handle, shared):
                os.ftruncate(handle, 0)
                return handle, shared
        except OSError:
            pass  # locked, or a file system without locks
        os.close(handle)
    own = f"{path}.{os.urandom(8).hex()}.tmp"
    return opener(own, flags | os.O_EXCL), own


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
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # the renames that follow will say what is wrong
    try:
        clibrary.library().syncfs(handle)
    except AttributeError:
        os.sync()
    finally:
        os.close(handle)


def append_rows(path: str, rows: Iterable[JSON], *, sync: bool = False, private: bool = True) -> None:
    """Append one compact line for each row, after repairing a torn tail; all rows in one write.

    sync: return only when the rows are on disk. Makes missing parent directories. Raises OSError: the
    caller knows whether this file fails open (telemetry) or closed (audit).
    """
    data = row_lines(rows)
    if not data:
        return
    with opened_to_append(path, private=private) as handle:
        append_lines(handle, data)
        if sync:
            os.fsync(handle)


def row_lines(rows: Iterable[JSON]) -> bytes:
    """One compact line for each row."""
    return b"".join(jsontext.encode(row) + b"\n" for row in rows)


@contextmanager
def opened_to_append(path: str, *, private: bool = True, make_directory: bool = True) -> Iterator[int]:
    """A descriptor of `path`, made if missing, that nobody else appends to while the block runs.

    The file is the one that has this name then: one that was moved away while its lock was waited for is
    let go. Raises OSError, also where the directory is missing and shall not be made.
    """
    if make_directory:
        _make_directory(os.path.dirname(path), private=private)
    opener = _opener(private=private)
    while True:
        handle = opener(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if has_name(handle, path):
                yield handle
                return
        finally:
            _let_go(handle)


def _let_go(handle: int) -> None:
    # A process that was forked meanwhile has the descriptor, too, and with it the lock.
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)


def append_lines(handle: int, data: bytes) -> None:
    """Write whole lines at the end of a file that is held, or nothing. Raises OSError."""
    size = os.fstat(handle).st_size
    if is_torn(handle, size):
        data = b"\n" + data
    _write_all(handle, data, size)


def is_torn(handle: int, size: int) -> bool:
    """Whether a file that is open ends, at `size`, within a line. Raises OSError."""
    return size > 0 and os.pread(handle, 1, size - 1) != b"\n"


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
def locked_directory(directory: str, *, wait_seconds: float, private: bool = True) -> Iterator[None]:
    """Hold the one lock of `directory` (made if missing) while the block runs.

    Waits up to `wait_seconds`, then raises OpsError `state_locked`. Raises `state_unwritable` where there
    can be no directory or no lock.
    """
    try:
        _make_directory(directory, private=private)
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


def _make_directory(path: str, *, private: bool) -> None:
    modes.make_directory(path or ".", modes.DIRECTORY if private else modes.OPEN_DIRECTORY)


def _opener(*, private: bool) -> Callable[[str, int], int]:
    mode = modes.FILE if private else modes.OPEN_FILE
    return lambda path, flags: os.open(path, flags, mode)


def _remove_quietly(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
