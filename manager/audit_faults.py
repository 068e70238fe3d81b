"""What is wrong with an audit or its chain, told from what stands elsewhere in the two files.

Only asked for once a fault is met, so it may read the files again.
"""

import os
from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple

from spritemesh import jsontext
from spritemesh.auditchain import ChainRow, Head, read_row
from spritemesh.chaining import Line, lines_of
from spritemesh.jsontext import JSON
from spritemesh.values import get

AUDIT, CHAIN, HEAD = "audit", "chain", "head"

# A row is shorter; of what is longer each part counts as a row that is none.
_ROW_BYTES = 1024 * 1024
_BLOCK_BYTES = 256 * 1024
# A line is parsed to name its key, if it is no longer.
_SHOWN_BYTES = 256 * 1024


class Fault(NamedTuple):
    """What is wrong. kind: a word, such as `line_removed`. file: AUDIT, CHAIN or HEAD. line: number in the
    audit, from 1, of the first line that is in doubt. what: the rest of a sentence that begins with the line.
    key, at: of that line's request, "" where they are not known."""

    kind: str
    file: str
    line: int
    what: str
    key: str = ""
    at: str = ""


class RawRow(NamedTuple):
    """A line of the chain's file, and the row that it holds, if any."""

    data: bytes
    row: ChainRow | None

    @property
    def is_whole(self) -> bool:
        """Whether it has its newline."""
        return self.data.endswith(b"\n")

    @property
    def digest(self) -> str:
        """As `torn` of the row behind it tells."""
        return sha256(self.data.removesuffix(b"\n")).hexdigest()


class Opened(NamedTuple):
    """The files as they were at one moment. audit, chain: descriptors, -1 for none. Sizes: bytes. head:
    content, empty for none."""

    audit: int
    audit_size: int
    chain: int
    chain_size: int
    head: bytes

    def lines(self, offset: int = 0) -> Iterator[Line]:
        """The lines of the audit from an offset on."""
        return iter(()) if self.audit < 0 else lines_of(self.audit, offset, self.audit_size)

    def rows(self) -> Iterator[RawRow]:
        """The lines of the chain's file."""
        if self.chain < 0:
            return
        place, rest = 0, b""
        while place < self.chain_size:
            block = os.pread(self.chain, min(_BLOCK_BYTES, self.chain_size - place), place)
            if not block:
                break
            place += len(block)
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                yield RawRow(line + b"\n", read_row(line + b"\n"))
            if len(rest) > _ROW_BYTES:
                yield RawRow(rest, None)
                rest = b""
        if rest:
            yield RawRow(rest, None)


def changed_line(opened: Opened, row: ChainRow, line: Line | None) -> Fault:
    """What became of the line that `row` tells of, where `line` stands now; None: nothing does."""
    key, at = _text(row.members, "idempotencyKey"), _text(row.members, "at")

    def fault(kind: str, what: str) -> Fault:
        return Fault(kind, AUDIT, row.line, what, key, at)

    if line is None:
        return fault("line_removed", "was removed, and all behind it")
    later = [place for place, other in enumerate(opened.lines(line.offset + line.size)) if _is(other, row)][
        :1
    ]
    again = any(other.digest == line.digest for other in opened.lines(line.offset + line.size))
    known = _line_with(opened, line.digest)
    if later:
        if known > row.line and not again:
            return fault("lines_reordered", f"stands elsewhere now; in its place stands line {known}")
        inserted = f"a copy of line {known}" if known else "a line that has no row"
        shown_key, shown_at = _of_line(opened, line)
        return Fault("line_inserted", AUDIT, row.line, f"is {inserted}; it was inserted", shown_key, shown_at)
    if known > row.line:
        return fault("line_removed", f"was removed; in its place stands line {known}")
    if not _ends(opened, line):
        return fault("line_removed", "was cut short, and all behind it removed")
    return fault("line_altered", "was altered")


def changed_row(before: Head, raw: RawRow, after: RawRow | None) -> Fault:
    """What became of a line of the chain's file that holds no row as it was sealed."""
    number = before.line + 1
    following = after.row if after is not None else None
    if following is not None and (following.line, following.previous) == (number, before.chain):
        return Fault("chain_row_inserted", CHAIN, number, "has something before its row that is none")
    try:
        members = jsontext.parse(raw.data)
    except jsontext.JSONError:
        members = None
    key, at = _text(members, "idempotencyKey"), _text(members, "at")
    if not raw.is_whole:
        return Fault("chain_row_removed", CHAIN, number, "has a row that was cut short", key, at)
    return Fault("chain_row_altered", CHAIN, number, "has a row that was altered", key, at)


def misplaced_row(opened: Opened, before: Head, row: ChainRow) -> Fault:
    """Why a row that is whole does not follow the one before."""
    number = before.line + 1
    key, at = _text(row.members, "idempotencyKey"), _text(row.members, "at")
    if row.line > number:
        rows = (raw.row for raw in opened.rows())
        if any(other and (other.line, other.previous) == (number, before.chain) for other in rows):
            what = f"has its row elsewhere; in its place stands that of line {row.line}"
            return Fault("chain_rows_reordered", CHAIN, number, what)
        last = row.line - 1
        what = "has lost its row" if last == number else f"to line {last} have lost their rows"
        return Fault("chain_row_removed", CHAIN, number, what)
    if row.line < number:
        return Fault("chain_row_inserted", CHAIN, row.line, "has a row once more", key, at)
    if before.line:
        what = "has a row that the next one does not follow: it was made anew"
        return Fault("chain_row_altered", CHAIN, before.line, what)
    return Fault("chain_row_altered", CHAIN, number, "has a first row that was made anew", key, at)


def named(opened: Opened, fault: Fault) -> Fault:
    """`fault` with key and time of its line, where only the audit still tells them."""
    if fault.key or fault.at:
        return fault
    for number, line in enumerate(opened.lines(), 1):
        if number == fault.line:
            key, at = _of_line(opened, line)
            return fault._replace(key=key, at=at)
    return fault


def _is(line: Line, row: ChainRow) -> bool:
    return (line.size, line.digest) == (row.size, row.digest)


def _line_with(opened: Opened, digest: str) -> int:
    """The number of the line that had this digest; the last one of several; 0 for none."""
    rows = (raw.row for raw in opened.rows())
    return max((row.line for row in rows if row and row.digest == digest), default=0)


def _ends(opened: Opened, line: Line) -> bool:
    """Whether a line has its newline."""
    return os.pread(opened.audit, 1, line.offset + line.size - 1) == b"\n"


def _of_line(opened: Opened, line: Line) -> tuple[str, str]:
    """Key and time of a line of the audit, "" where it does not tell them."""
    if line.size > _SHOWN_BYTES:
        return "", ""
    try:
        row = jsontext.parse(os.pread(opened.audit, line.size, line.offset))
    except jsontext.JSONError:
        return "", ""
    return _text(row, "idempotencyKey"), _text(row, "timestamp")


def _text(members: JSON, name: str) -> str:
    value = get(members, name)
    return value if isinstance(value, str) else ""
