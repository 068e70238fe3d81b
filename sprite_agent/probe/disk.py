"""Directories that are written to: whether they can be, who else may read them, and how much room is left."""

import os
import stat
import tempfile
from collections.abc import Iterable

from sprite_agent.probe.steps import Found, skip, warn, well
from spritemesh.errors import OpsError
from spritemesh.ids import printable

# Less is warned of; nothing at all is a failure.
LOW_BYTES = 100 * 1024 * 1024
LOW_FILES = 1000
# What a document or a row of the audit takes at least.
_ROOM_BYTES = 64 * 1024
_SHOWN_FILES = 3
_MEBIBYTE = 1024 * 1024
# What is the owner's alone: others nothing, and the group may not write (spritemesh.modes).
_FOR_OTHERS = stat.S_IWGRP | stat.S_IRWXO


def nearest(directory: str) -> str:
    """The directory, or the nearest one above it that exists."""
    while not os.path.isdir(directory):
        above = os.path.dirname(directory)
        if above == directory:
            break
        directory = above
    return directory


def check_room(directory: str) -> Found:
    """The step: space and files that are left where a directory is, or will be made.

    Raises OpsError `state_unwritable` when a document would not fit.
    """
    place = nearest(directory)
    try:
        found = os.statvfs(place)
    except OSError as error:
        raise OpsError("state_unwritable", f"{place}: {error.strerror}") from error
    free = found.f_bavail * found.f_frsize
    told = f"{place}: {_shown(free)} free"
    # Some file systems have no fixed number of files.
    counted = found.f_files > 0
    if counted:
        told += f", and {found.f_favail} files"
    if free < _ROOM_BYTES or (counted and not found.f_favail):
        raise OpsError("state_unwritable", f"the disk is full: {told}")
    if free < LOW_BYTES or (counted and found.f_favail < LOW_FILES):
        return warn("disk_low", told)
    return well(told)


def check_writable(directory: str) -> None:
    """Write a file without a name where a directory is, or will be made.

    Raises OpsError `state_unwritable` naming the directory.
    """
    place = nearest(directory)
    try:
        with tempfile.TemporaryFile(dir=place, buffering=0) as file:
            file.write(bytes(4096))
            os.fsync(file.fileno())
    except OSError as error:
        raise OpsError("state_unwritable", f"{place} cannot be written: {error.strerror}") from error


def exposed(directory: str) -> list[str]:
    """What other users may read or write of a directory and its files: paths with modes; nothing below one
    that lets nobody in. A directory that is not there, or cannot be read, exposes nothing."""
    mode = _mode(directory)
    if not mode & _FOR_OTHERS:
        return []
    try:
        with os.scandir(directory) as entries:
            paths = [entry.path for entry in entries if entry.is_file(follow_symlinks=False)]
    except OSError:
        paths = []
    found = [f"{directory} ({mode:04o})"] if mode & (stat.S_IWGRP | stat.S_IWOTH) else []
    return found + [f"{path} ({_mode(path):04o})" for path in sorted(paths) if _mode(path) & _FOR_OTHERS]


def check_secrets(paths: Iterable[str]) -> Found:
    """The step: files with tokens and keys can be read by us, and not by everybody.

    Raises OpsError `invalid_request` naming the file that cannot be read.
    """
    files = [path for path in paths if path]
    if not files:
        return skip("no file with a token or key is used")
    for path in files:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError as error:
            raise OpsError("invalid_request", f"{path} cannot be read: {error.strerror}") from error
    open_to_all = [f"{path} ({_mode(path):04o})" for path in files if _mode(path) & stat.S_IRWXO]
    if open_to_all:
        return warn("file_exposed", told_files("every user may read", open_to_all))
    return well(f"files with tokens and keys: {len(files)}, none for everybody")


def told_files(what: str, paths: list[str]) -> str:
    """So many files, and the names of the first."""
    shown = ", ".join(printable(path, 4096) for path in paths[:_SHOWN_FILES])
    more = len(paths) - _SHOWN_FILES
    return f"{what}: {shown}{f' and {more} more' if more > 0 else ''}"


def _mode(path: str) -> int:
    try:
        return stat.S_IMODE(os.lstat(path).st_mode)
    except OSError:
        return 0


def _shown(size: int) -> str:
    for unit, name in ((_MEBIBYTE * 1024, "GiB"), (_MEBIBYTE, "MiB"), (1024, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"
