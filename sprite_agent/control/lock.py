"""Who works on a loop, and on an idempotency key: locks over all processes, which die with their holder.

Whoever executes a request holds the lock of its key and that of its loop. So a request that finds its own
key free and its loop taken knows for certain that it is another request that has the loop.

They are on files of their own: runtime and manager lock the loop's and the manager's directories.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from spritemesh import modes
from spritemesh.errors import OpsError


@contextmanager
def loop_lock(directory: str, loop_id: str) -> Iterator[bool]:
    """Try to hold the lock of a loop for the block; False when somebody else has it.

    directory: of locks, made if missing. Raises OpsError `ledger_unavailable`.
    """
    handle = _try_lock(directory, _name(loop_id))
    try:
        yield handle >= 0
    finally:
        if handle >= 0:
            os.close(handle)


@contextmanager
def key_lock(directory: str, key: str) -> Iterator[bool]:
    """As loop_lock, of a key. Its file goes with the lock: there is no end of keys."""
    name = f"key-{_name(key)}"
    handle = _try_lock(directory, name)
    try:
        yield handle >= 0
    finally:
        if handle >= 0:
            # While it is locked still, so that nobody else's is removed.
            _remove(os.path.join(directory, name))
            os.close(handle)


def forget_left_keys(directory: str) -> None:
    """Remove what key locks of dead processes left."""
    try:
        names = [name for name in os.listdir(directory) if name.startswith("key-")]
    except OSError:
        return
    for name in names:
        path = os.path.join(directory, name)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if _lock(handle) and _is_at(handle, path):
                _remove(path)
        except OSError:
            continue
        finally:
            os.close(handle)


def _try_lock(directory: str, name: str) -> int:
    """A descriptor that holds the lock; -1 when somebody else has it."""
    path = os.path.join(directory, name)
    try:
        while True:
            handle = _open(directory, path)
            try:
                held = _lock(handle)
                if held and _is_at(handle, path):
                    handle, kept = -1, handle
                    return kept
            finally:
                if handle >= 0:
                    os.close(handle)
            if not held:
                return -1
            # Removed between open and lock: its name may be another file's by now.
    except OSError as error:
        raise OpsError("ledger_unavailable", f"cannot lock {path}: {error.strerror}") from error


def _open(directory: str, path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags, modes.FILE)
    except FileNotFoundError:
        modes.make_directory(directory)
        return os.open(path, flags, modes.FILE)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(handle: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return  # moved away with its directory


def _name(text: str) -> str:
    return sha256(text.encode()).hexdigest()
