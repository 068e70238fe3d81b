"""Comparing the audit of invocations with its hash chain: what `ops-manager audit verify` does.

Both files are read once, in step, in the memory of a line or two. What they hold is what they held at one
moment, under the lock of those who append, so that control goes on meanwhile.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from manager.audit_faults import (
    AUDIT,
    CHAIN,
    HEAD,
    Fault,
    Opened,
    RawRow,
    changed_line,
    changed_row,
    misplaced_row,
    named,
)
from spritemesh.auditchain import RECORDED, ChainRow, Head, read_head
from spritemesh.chaining import ChainFiles
from spritemesh.errors import OpsError

# What a line is called that has no row yet, and a piece of the chain that a crash left.
NO_ROW, TORN_ROW = "without_row", "torn_row"

_HEAD_BYTES = 4096
_SEGMENTS = {
    "chain_shorter": "rows at the end of the chain were removed",
    "chain_unreadable": "the last row of the chain was altered",
    "head_unreadable": "the head was altered or removed",
    "audit_changed": "the audit no longer held the line before",
}


class Note(NamedTuple):
    """Lines of one kind that are no fault. kind: where they came from (`spritemesh.auditchain`), NO_ROW or
    TORN_ROW. number: how many there are. first, last: their places, from 1."""

    kind: str
    number: int
    first: int
    last: int


class Checked(NamedTuple):
    """What was found. lines: of the audit, so far as it was read. chained: of them with a row that agrees.
    head: of what agrees. has_audit: whether there is a file. fault: the first one."""

    lines: int
    chained: int
    head: Head
    has_audit: bool
    notes: list[Note]
    fault: Fault | None


def check(paths: ChainFiles, expected: Head | None = None) -> Checked:
    """Compare an audit with its chain. expected: a head that the chain once had, and must have still.

    Raises OpsError `document_invalid` when a file cannot be read.
    """
    with _opened(paths) as opened:
        return _Walk(opened, expected).run()


@contextmanager
def _opened(paths: ChainFiles) -> Iterator[Opened]:
    with ExitStack() as stack:
        audit, chain, head = _open_all(paths, stack)
        if audit < 0 and max(chain, head) >= 0:
            # The first request of all may have come in between.
            audit, chain, head = _open_all(paths, stack)
        try:
            sizes = [os.fstat(handle).st_size if handle >= 0 else 0 for handle in (audit, chain)]
            data = os.pread(head, _HEAD_BYTES, 0) if head >= 0 else b""
            if audit >= 0:
                fcntl.flock(audit, fcntl.LOCK_UN)
            yield Opened(audit, sizes[0], chain, sizes[1], data)
        except OSError as error:
            raise OpsError("document_invalid", f"{paths.audit} cannot be read: {error.strerror}") from error


def _open_all(paths: ChainFiles, stack: ExitStack) -> tuple[int, int, int]:
    """Descriptors of audit, chain and head. Where there is an audit, the others are opened under its lock: a
    chain that begins just now is there as a whole, or not at all."""
    audit = _open(paths.audit, stack)
    if audit >= 0:
        fcntl.flock(audit, fcntl.LOCK_SH)
    return audit, _open(paths.chain, stack), _open(paths.head, stack)


def _open(path: str, stack: ExitStack) -> int:
    """A descriptor, -1 when there is no such file. Raises `document_invalid`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return -1
    except OSError as error:
        raise OpsError("document_invalid", f"{path} cannot be read: {error.strerror}") from error
    stack.callback(os.close, handle)
    return handle


class _Walk:
    """One comparison."""

    def __init__(self, opened: Opened, expected: Head | None) -> None:
        self._opened = opened
        self._expected = expected
        self._head = read_head(opened.head)
        self._rows = opened.rows()
        self._ahead = next(self._rows, None)
        self._lines = opened.lines()
        self._count = self._chained = self._end = 0
        # Of the last row that agrees.
        self._last = Head()
        self._torn = ""
        self._notes: dict[str, Note] = {}

    def run(self) -> Checked:
        fault = self._fault()
        if fault is not None:
            fault = named(self._opened, fault)
        has_audit = self._opened.audit >= 0
        return Checked(self._count, self._chained, self._last, has_audit, list(self._notes.values()), fault)

    def _fault(self) -> Fault | None:
        fault = self._unusable() or self._against(Head())
        while fault is None and (raw := self._ahead) is not None:
            self._ahead = next(self._rows, None)
            if raw.row is None:
                fault = self._no_row(raw)
            else:
                fault = self._misplaced(raw.row) or self._compare(raw.row)
        fault = fault or self._missing()
        if fault is None:
            self._note_rest()
        return fault

    def _unusable(self) -> Fault | None:
        """A fault that is seen before any row."""
        if self._opened.audit < 0 and (self._ahead is not None or self._head not in (None, Head())):
            return Fault(
                "audit_missing", AUDIT, 1, "and all behind it are gone: there is a chain without an audit"
            )
        if self._head is None and self._opened.head:
            return Fault("head_altered", HEAD, 1, "and all behind it: the file with the head was altered")
        if self._head is None and self._ahead is not None:
            return Fault("head_removed", HEAD, 1, "and all behind it: the file with the head was removed")
        return None

    def _no_row(self, raw: RawRow) -> Fault | None:
        """What a crash tore is noted: the row behind it tells of it, or the head never came so far."""
        after = self._ahead.row if self._ahead is not None else None
        is_last = self._ahead is None and not raw.is_whole and not self._is_short()
        if is_last or (after is not None and after.torn == raw.digest and raw.is_whole and not self._torn):
            self._torn = raw.digest
            self._note(TORN_ROW, self._last.line + 1)
            return None
        return changed_row(self._last, raw, self._ahead)

    def _misplaced(self, row: ChainRow) -> Fault | None:
        """Why a row cannot follow the ones before."""
        torn, self._torn = self._torn, ""
        if row.segment:
            what = _SEGMENTS.get(row.segment, "the chain was broken")
            number = min(self._last.line + 1, row.line)
            return Fault("chain_broken", CHAIN, number, f"and others up to {row.line} are in doubt: {what}")
        follows = (row.line, row.previous, row.offset) == (self._last.line + 1, self._last.chain, self._end)
        if not follows:
            return misplaced_row(self._opened, self._last, row)
        if row.torn != torn:
            return Fault("chain_row_removed", CHAIN, row.line, "has lost the torn piece before its row")
        return None

    def _compare(self, row: ChainRow) -> Fault | None:
        """Compare a row with its line, the next one."""
        line = next(self._lines, None)
        if line is None or (line.offset, line.size, line.digest) != (row.offset, row.size, row.digest):
            return changed_line(self._opened, row, line)
        self._count += 1
        self._chained += 1
        self._last, self._end = row.head, row.end
        if row.origin != RECORDED:
            self._note(row.origin, row.line)
        return self._against(row.head)

    def _against(self, met: Head) -> Fault | None:
        """Compare a row with the heads that name its line."""
        if self._head is not None and self._head.line == met.line and self._head.chain != met.chain:
            return Fault("head_altered", HEAD, met.line, "has a row other than the head says")
        if self._expected is not None and self._expected.line == met.line and self._expected != met:
            return Fault(
                "not_expected", CHAIN, met.line, "has a row other than --expect says: it was made anew"
            )
        return None

    def _is_short(self) -> bool:
        return self._head is not None and self._head.line > self._last.line

    def _missing(self) -> Fault | None:
        """What heads tell of, and the chain no longer does."""
        if self._head is not None and self._is_short():
            what = f"and all up to {self._head.line} have lost their rows"
            return Fault("chain_row_removed", CHAIN, self._last.line + 1, what)
        if self._expected is not None and self._expected.line > self._last.line:
            what = f"and all up to {self._expected.line} were removed from audit and chain"
            return Fault("not_expected", CHAIN, self._last.line + 1, what)
        return None

    def _note_rest(self) -> None:
        """Lines behind the last row: of somebody without a chain, or not yet."""
        for _line in self._lines:
            self._count += 1
            self._note(NO_ROW, self._count)

    def _note(self, kind: str, line: int) -> None:
        known = self._notes.get(kind, Note(kind, 0, line, line))
        self._notes[kind] = known._replace(number=known.number + 1, last=line)
