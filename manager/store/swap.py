"""Documents replaced many times a minute, without a new file each time.

A new file and a rename cost a file system hundreds of microseconds, most of it to find blocks and to give
those of the old file back; a fleet does that hundreds of times a second. So each document keeps a second file
beside it, `.<name>.spare`: that one is overwritten, and then the two change names, which readers see as one
replacement. A reader that still has the spare open, as the document that it was a moment ago, must not see it
change: a lease on the file tells (fcntl F_SETLEASE), and then a new one is made; so it is of a spare that has
another name as well, as in a backup of links, or is somebody else's. Where the system has no such calls,
files are renamed as usual.

After a power cut a document may hold what was written before, or nothing that can be read; whoever uses this
must be able to derive it anew.
"""

import ctypes
import errno
import fcntl
import os
from contextlib import suppress

from spritemesh import clibrary, modes
from spritemesh.errors import OpsError

_AT_FDCWD = -100
_EXCHANGE = 2


class Swap:
    """Documents on their way. Use `add` for each, then `commit` or `discard`."""

    def __init__(self) -> None:
        self._staged: list[tuple[str, str]] = []

    def add(self, path: str, data: bytes) -> None:
        """Write `data` into the spare of `path`, making missing directories.

        Raises OpsError `state_unwritable`, naming `path`; the documents are as they were.
        """
        directory, name = os.path.split(path)
        spare = os.path.join(directory, f".{name}.spare")
        try:
            if os.path.isdir(path):
                raise IsADirectoryError(errno.EISDIR, "it is a directory")
            handle = _open(spare)
            try:
                modes.keep_mode(handle, path)
                _write(handle, data)
            finally:
                os.close(handle)
        except OSError as error:
            self.discard()
            raise _unwritable(path, error) from error
        self._staged.append((spare, path))

    def commit(self) -> None:
        """Put the documents in place, in order. Raises OpsError `state_unwritable`; the rest stays old."""
        while self._staged:
            spare, path = self._staged.pop(0)
            try:
                _exchange(spare, path)
            except OSError as error:
                self.discard()
                raise _unwritable(path, error) from error

    def discard(self) -> None:
        """Leave the documents as they were."""
        self._staged.clear()


def _open(spare: str) -> int:
    """A file to write into that nobody else has open."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        handle = os.open(spare, flags, modes.FILE)
    except FileNotFoundError:
        modes.make_directory(os.path.dirname(spare) or ".")
        handle = os.open(spare, flags, modes.FILE)
    except OSError as error:
        # It was a document once, which others may have written, or a link.
        if error.errno not in {errno.EACCES, errno.EPERM, errno.ELOOP}:
            raise
        return _made(spare, flags)
    try:
        # Granted only while nobody else has it open. It is given back at once: nobody can open it any more
        # under the document's name.
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        is_free = os.fstat(handle).st_nlink == 1
    except OSError:
        is_free = False
    if is_free:
        return handle
    os.close(handle)
    return _made(spare, flags)


def _made(spare: str, flags: int) -> int:
    os.unlink(spare)
    return os.open(spare, flags | os.O_EXCL, modes.FILE)


def _write(handle: int, data: bytes) -> None:
    view, offset = memoryview(data), 0
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written
    if os.fstat(handle).st_size != len(data):
        os.ftruncate(handle, len(data))


def _exchange(spare: str, path: str) -> None:
    """Make `spare` the document, and the document the spare."""
    with suppress(AttributeError):
        done = clibrary.library().renameat2(
            _AT_FDCWD, os.fsencode(spare), _AT_FDCWD, os.fsencode(path), ctypes.c_uint(_EXCHANGE)
        )
        if done == 0:
            return
        code = ctypes.get_errno()
        # No document yet, or a system that cannot do it, of which each says so in its own way.
        if code not in {errno.ENOENT, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}:
            raise OSError(code, os.strerror(code))
    os.replace(spare, path)


def _unwritable(path: str, error: OSError) -> OpsError:
    return OpsError("state_unwritable", f"cannot write {path}: {error.strerror}")
