"""Writing the invocation audit and its hash chain (`spritemesh.auditchain`) together.

The line is synced first, then its row, then the head is put down. So whoever is killed in between leaves a
line without a row, or a head that lags: both are what a crash may leave, and the next row makes up for it.
The head is never ahead of the chain, unless somebody cut the chain.

A damaged chain does not stop control: a new segment begins, whose first row says why, and `ops-manager audit
verify` says so from then on. A chain that cannot be written does, as an audit that cannot be.

What is read is the end of each file, however long they are; lines without rows are read once, to get theirs.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import NamedTuple

from spritemesh import files, modes
from spritemesh.auditchain import (
    BEFORE_CHAIN,
    NOTHING,
    RECORDED,
    UNCHAINED,
    ChainRow,
    Head,
    read_head,
    read_row,
    sealed,
)
from spritemesh.jsontext import JSON
from spritemesh.values import drop, nz

_BLOCK_BYTES = 1024 * 1024
# Rows of old lines are written by so many bytes.
_BATCH_BYTES = 256 * 1024
_HEAD_BYTES = 256


class ChainFiles(NamedTuple):
    """Absolute paths of an audit, its chain and its head."""

    audit: str
    chain: str
    head: str


class Line(NamedTuple):
    """A line of an open file. size: with its newline, if it has one. digest: SHA-256 of its bytes."""

    offset: int
    size: int
    digest: str


class _Tail(NamedTuple):
    """Where a chain goes on. line: number of the last one with a row. end: where the next one begins, bytes.
    others: what lines are called that have no row and are not ours. segment, torn: as in ChainRow."""

    line: int
    end: int
    chain: str
    others: str = UNCHAINED
    segment: str = ""
    torn: str = ""


def append(paths: ChainFiles, line: bytes, about: Mapping[str, JSON]) -> None:
    """Append a line, newline included, to the audit, and a row to its chain; both are on disk then.

    about: what the row says beside the line: the time, who asked, who connected. Raises OSError with the name
    of the file; the line may be there without its row.
    """
    with files.opened_to_append(paths.audit) as audit:
        files.append_lines(audit, line)
        # Others may append without a lock, as v1 does: where ours ended, this descriptor knows.
        end = os.lseek(audit, 0, os.SEEK_CUR)
        os.fsync(audit)
        with _opened(paths, audit) as (chain, head):
            start = end - len(line)
            tail = _tail(audit, chain, head, start)
            if tail.segment:
                # Which lines of those before had rows cannot be told any more.
                tail = tail._replace(line=_count_lines(audit, start), end=start)
            _extend(audit, chain, head, tail, end, line, about)


def complete(paths: ChainFiles, line: bytes, about: Mapping[str, JSON]) -> None:
    """Give a line that was appended before its row, if it has none; others like it get theirs.

    For what a crash, or a full disk, left. A broken chain stays as it is. Raises OSError as `append`.
    """
    with files.opened_to_append(paths.audit) as audit, _opened(paths, audit) as (chain, head):
        end = os.fstat(audit).st_size
        tail = _tail(audit, chain, head, end)
        # A torn one grows by a newline yet.
        if tail.end < end and not tail.segment and not files.is_torn(audit, end):
            # Whoever wrote it may have died before its sync, and a row without its line would accuse.
            os.fsync(audit)
            _extend(audit, chain, head, tail, end, line, about)


def lines_of(handle: int, begin: int, end: int) -> Iterator[Line]:
    """The lines of a file between two offsets, in the memory of a block. Raises OSError."""
    offset, place, digest = begin, begin, sha256()
    while place < end:
        block = os.pread(handle, min(_BLOCK_BYTES, end - place), place)
        if not block:
            break
        start = 0
        while stop := block.find(b"\n", start) + 1:
            digest.update(block[start:stop])
            yield Line(offset, place + stop - offset, digest.hexdigest())
            start, offset, digest = stop, place + stop, sha256()
        digest.update(block[start:])
        place += len(block)
    if place > offset:
        yield Line(offset, place - offset, digest.hexdigest())


@contextmanager
def _opened(paths: ChainFiles, audit: int) -> Iterator[tuple[int, int]]:
    """Descriptors of chain and head. An OSError of the block gets the chain's name."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    chain = os.open(paths.chain, flags | os.O_APPEND, modes.FILE)
    try:
        head = os.open(paths.head, flags, modes.FILE)
        try:
            for handle in (chain, head):
                if not os.fstat(handle).st_size:
                    modes.share_writing(handle, audit)
            yield chain, head
        finally:
            os.close(head)
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or paths.chain) from error
    finally:
        os.close(chain)


def _extend(
    audit: int, chain: int, head: int, tail: _Tail, end: int, line: bytes, about: Mapping[str, JSON]
) -> None:
    """Add rows for the lines from `tail` to `end`, of which one is ours."""
    own = len(line), sha256(line).hexdigest()
    others = {"at": about.get("at")}
    number, previous, torn = tail.line, tail.chain, tail.torn
    rows = bytearray()
    for found in lines_of(audit, tail.end, end):
        number += 1
        is_ours = (found.size, found.digest) == own
        members: dict[str, JSON] = {
            "line": number,
            "offset": found.offset,
            "bytes": found.size,
            "sha256": found.digest,
            "origin": RECORDED if is_ours else tail.others,
            "segment": nz(tail.segment),
            "torn": nz(torn),
            **(about if is_ours else others),
            "previous": previous,
        }
        row, previous = sealed(drop(members))
        torn = ""
        rows += row
        if len(rows) >= _BATCH_BYTES:
            files.append_lines(chain, bytes(rows))
            rows.clear()
    files.append_lines(chain, bytes(rows))
    os.fsync(chain)
    _put_head(head, Head(number, previous))


def _tail(audit: int, chain: int, head: int, start: int) -> _Tail:
    """Where the chain goes on, and whether it can. start: where our line begins."""
    said = os.pread(head, _HEAD_BYTES, 0)
    lines = files.tail_of(chain, 2)
    size = os.fstat(chain).st_size
    piece = lines.pop() if files.is_torn(chain, size) else b""
    torn = sha256(piece).hexdigest() if piece else ""
    if not lines:
        if not said:
            # Before the first row: from then on, a chain without a head has lost it.
            _put_head(head, Head())
        elif read_head(said) != Head():
            return _Tail(0, 0, NOTHING, segment="chain_shorter", torn=torn)
        return _Tail(0, 0, NOTHING, others=BEFORE_CHAIN, torn=torn)
    last = read_row(lines[-1] + b"\n")
    if last is None:
        return _Tail(0, 0, NOTHING, segment="chain_unreadable", torn=torn)
    return _Tail(last.line, last.end, last.chain, segment=_break(audit, last, said, start), torn=torn)


def _break(audit: int, last: ChainRow, said: bytes, start: int) -> str:
    """Why no row can follow the last one; "" as a rule."""
    head = read_head(said)
    if head is None:
        return "head_unreadable"
    # A head that lags is what a crash leaves.
    if head.line > last.line or (head.line == last.line and head.chain != last.chain):
        return "chain_shorter"
    line = next(lines_of(audit, last.offset, last.end), None) if last.end <= start else None
    if line != (last.offset, last.size, last.digest):
        return "audit_changed"
    return ""


def _count_lines(audit: int, end: int) -> int:
    count = place = 0
    while place < end and (block := os.pread(audit, min(_BLOCK_BYTES, end - place), place)):
        count += block.count(b"\n")
        place += len(block)
    return count


def _put_head(handle: int, head: Head) -> None:
    """Write the head over the one before, and leave it to the system when that is on disk: after a power cut
    it lags. One of another length is synced: a new length that outlives its bytes would be no head at all."""
    data = f"{head.text()}\n".encode()
    size = os.fstat(handle).st_size
    os.pwrite(handle, data, 0)
    if size == len(data):
        return
    if size > len(data):
        os.ftruncate(handle, len(data))
    os.fsync(handle)
