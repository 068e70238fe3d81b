"""JSONL files that move aside when they are large, and reading on in those that did (contract L25).

`name` is the young one; `name.1` held what was written before it, `name.2` what was before that, and so on up
to a number to keep. Whoever appends holds the file's lock and looks, once it has it, whether the path still
names the file: so a row goes to the young one, and two processes never move one file twice.

Readers take no lock. Files only move to higher numbers, and a reader opens them in that order, so that none
slips by; what it met twice it knows by the inode, which no other file can have while it is held open.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from spritemesh import files, modes
from spritemesh.jsontext import JSON

# Old files that stay.
KEEP = 4
# A reader begins again when the young file moved aside meanwhile; it has to be quicker than that once.
_OPENINGS = 20


class Generation(NamedTuple):
    """A file, open for reading. name: its path when it was opened. handle: a descriptor."""

    name: str
    handle: int


def append_rows(path: str, rows: Iterable[JSON], *, limit: int, keep: int = KEEP) -> None:
    """As files.append_rows, after moving the file aside if it has `limit` bytes or more.

    limit: at least 1. keep: old files that stay, at least 1. Raises OSError.
    """
    data = files.row_lines(rows)
    if data:
        append_lines(path, data, limit=limit, keep=keep)


def append_lines(
    path: str, data: bytes, *, limit: int, keep: int = KEEP, make_directory: bool = True
) -> None:
    """As append_rows, of whole lines that are encoded already; all of them in one write, or none.

    make_directory: whether to make that of `path` where it is missing. Raises OSError.
    """
    while True:
        with files.opened_to_append(path, make_directory=make_directory) as handle:
            size = os.fstat(handle).st_size
            if not size:
                # Whoever may read what has moved aside may read on.
                modes.keep_mode(handle, f"{path}.1")
            if size < limit:
                files.append_lines(handle, data)
                return
            _move_aside(path, keep)


@contextmanager
def generations(path: str, *, keep: int = KEEP) -> Iterator[list[Generation]]:
    """The file and the old ones, the youngest first, open while the block runs. Those that are not there, or
    cannot be opened, are left out, except that the young one raises OSError if it is there."""
    opened: list[Generation] = []
    try:
        for _ in range(_OPENINGS):
            _close(opened)
            _open_all(path, keep, opened)
            if not opened or files.has_name(opened[0].handle, opened[0].name):
                break
        yield opened
    finally:
        _close(opened)


def tail_lines(path: str, count: int, *, keep: int = KEEP) -> list[bytes]:
    """As files.tail_lines, going on in the old files when there are too few. Raises OSError."""
    lines: list[bytes] = []
    with generations(path, keep=keep) as opened:
        for generation in opened:
            if len(lines) >= count:
                break
            lines = files.tail_of(generation.handle, count - len(lines)) + lines
    return lines


def _open_all(path: str, keep: int, opened: list[Generation]) -> None:
    for number in range(keep + 1):
        name = f"{path}.{number}" if number else path
        try:
            # Without waiting, if it is a pipe that nobody writes to.
            handle = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            continue
        except OSError:
            if number:
                continue
            raise
        opened.append(Generation(name, handle))
        # One that moves on while they are opened is met at both places.
        if any(_is_same(handle, other.handle) for other in opened[:-1]):
            os.close(opened.pop().handle)


def _is_same(handle: int, other: int) -> bool:
    return os.path.samestat(os.fstat(handle), os.fstat(other))


def _close(opened: list[Generation]) -> None:
    while opened:
        os.close(opened.pop().handle)


def _move_aside(path: str, keep: int) -> None:
    """Make room at `path`, whose lock is held, so that nobody else does the same. Raises OSError."""
    # A gap is what a crash left in the middle of this; nothing beyond it has to move.
    free = next((number for number in range(1, keep) if not os.path.lexists(f"{path}.{number}")), keep)
    for number in range(free, 1, -1):
        os.replace(f"{path}.{number - 1}", f"{path}.{number}")
    os.replace(path, f"{path}.1")
