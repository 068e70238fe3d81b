"""Reading escalations.jsonl from a line on, and the offset that tells which (contract I.3)."""

import hashlib
from collections.abc import Iterator
from typing import IO

from spritemesh import files
from spritemesh.errors import OpsError
from spritemesh.values import digits, get

_BLOCK_BYTES = 1024 * 1024


def read_offset(state_path: str) -> int:
    """Lines passed so far: 0 without a state, or when what it says is no number.

    Raises OpsError `document_invalid`, naming the path, when the state is no JSON.
    """
    return digits(get(files.read_json(state_path, what="dispatch state"), "escalationsLineOffset")) or 0


def count_lines(path: str) -> int | None:
    """Complete lines in the file; None when there is no file. Raises OpsError `document_invalid`."""
    try:
        with open(path, "rb") as file:
            return sum(block.count(b"\n") for block in _blocks(file))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error


def read_lines(path: str, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Number, from 1, and bytes of each line after `offset` up to line `end`. Errors as count_lines."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if number > end:
                    return
                if number > offset:
                    yield number, line
    except OSError as error:
        raise _unreadable(path, error) from error


def digest_of(line: bytes) -> str:
    """Tells one line from another that has the same number in another file."""
    return hashlib.sha256(line.rstrip(b"\r\n")).hexdigest()[:32]


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(_BLOCK_BYTES):
        yield block


def _unreadable(path: str, error: OSError) -> OpsError:
    return OpsError("document_invalid", f"escalations {path} cannot be read: {error.strerror}")
