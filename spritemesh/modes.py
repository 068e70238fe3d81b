"""Files for their owner alone: 0600, in directories of 0700, whatever umask a program was started with.

A program sets its umask once, at its start (`keep_private`), so that this holds for what libraries make,
too: SQLite's files, sockets, temporary files. Commands that belong to somebody else, the runtime's, are
started with the umask that the program was given (`given_umask`).

What is there already keeps the mode that its owner gave it, also where a new file takes its place
(`keep_mode`): so `chmod` once, and another user's scripts may read on.
"""

import os
import stat
from contextlib import suppress

FILE = 0o600
DIRECTORY = 0o700
# Where the umask alone shall decide.
OPEN_FILE = 0o666
OPEN_DIRECTORY = 0o777

_UMASK = 0o077
_PERMISSIONS = 0o777
_given = -1


def keep_private() -> None:
    """Have this process make nothing that others may read; for its start, before there are threads."""
    global _given  # noqa: PLW0603 - a process has one umask
    _given = os.umask(_UMASK)


def given_umask() -> int:
    """The umask that this process was started with; -1, which `subprocess` takes for "as it is", when
    keep_private did not change it."""
    return _given


def make_directory(path: str, mode: int = DIRECTORY) -> None:
    """Make a directory, and those above it, where they are missing. Raises OSError."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    except FileNotFoundError:
        above = os.path.dirname(path.rstrip("/"))
        if not above:
            raise
        make_directory(above, mode)
        make_directory(path, mode)
    except OSError:
        # A mount point, or a directory above that may not be written, is said before that it is there.
        if not os.path.isdir(path):
            raise


def share_writing(handle: int, other: int) -> None:
    """Let those write and read a file of ours who may write another one, and nobody else; both are open.

    Raises OSError.
    """
    allowed = os.fstat(other)
    mode = FILE
    if allowed.st_mode & stat.S_IWOTH:
        mode |= stat.S_IROTH | stat.S_IWOTH
    if allowed.st_mode & stat.S_IWGRP and _give_group(handle, allowed.st_gid):
        mode |= stat.S_IRGRP | stat.S_IWGRP
    if mode != FILE:
        # Some file systems know no modes.
        with suppress(PermissionError):
            os.fchmod(handle, mode)


def keep_mode(handle: int, path: str) -> None:
    """Give the open file, which is to take the place of `path`, the mode and group that `path` has.

    It stays as it is where there is no such file, or somebody else's: whoever could put it there shall not
    decide who reads what we write. A group that we may not give gets no access. Raises OSError.
    """
    try:
        old = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(old.st_mode) or old.st_uid not in {0, os.geteuid()}:
        return
    new = os.fstat(handle)
    mode = old.st_mode & _PERMISSIONS
    if mode & stat.S_IRWXG and not _give_group(handle, old.st_gid):
        mode &= ~stat.S_IRWXG
    if mode != new.st_mode & _PERMISSIONS:
        # Some file systems know no modes.
        with suppress(PermissionError):
            os.fchmod(handle, mode)


def _give_group(handle: int, group: int) -> bool:
    """Whether the open file has this group, which it is given if it may be."""
    if os.fstat(handle).st_gid != group:
        try:
            os.fchown(handle, -1, group)
        except OSError:
            return False
    return True
