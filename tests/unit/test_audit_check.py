"""Comparing an audit with its chain: every change of either is found, and the right line is named."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manager.audit_check import Checked, check
from manager.audit_faults import AUDIT, CHAIN, Fault
from spritemesh import chaining
from spritemesh.auditchain import Head
from spritemesh.chaining import ChainFiles

LINES = 8
ABOUT = {"at": "2026-01-02T03:04:05.678Z", "requestedBy": "ada", "connected": {"edge": "http"}}


def files_in(directory: Path) -> ChainFiles:
    return ChainFiles(*(str(directory / name) for name in ("audit", "chain", "head")))


def write(paths: ChainFiles, *numbers: int) -> None:
    for number in numbers:
        about = ABOUT | {"idempotencyKey": f"key-{number}"}
        chaining.append(paths, b'{"idempotencyKey":"key-%d"}\n' % number, about)


@pytest.fixture(scope="module")
def written() -> Iterator[dict[str, bytes]]:
    """The three files of a chain of LINES lines."""
    with TemporaryDirectory() as directory:
        paths = files_in(Path(directory))
        write(paths, *range(1, LINES + 1))
        yield {path: Path(path).read_bytes() for path in paths}


@pytest.fixture(scope="module")
def bench() -> Iterator[ChainFiles]:
    """Where files are put to be looked at."""
    with TemporaryDirectory() as directory:
        yield files_in(Path(directory))


def lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


def found_in(
    bench: ChainFiles, audit: bytes, chain: bytes, head: bytes, expected: Head | None = None
) -> Checked:
    for path, data in zip(bench, (audit, chain, head), strict=True):
        Path(path).write_bytes(data)
    return check(bench, expected)


def fault_in(bench: ChainFiles, audit: bytes, chain: bytes, head: bytes) -> Fault:
    fault = found_in(bench, audit, chain, head).fault
    assert fault is not None
    return fault


@pytest.fixture(scope="module")
def files(written: dict[str, bytes]) -> tuple[bytes, bytes, bytes]:
    audit, chain, head = written.values()
    return audit, chain, head


Change = tuple[str, int, int]
PLACES = st.integers(0, LINES - 1)
CHANGES = st.tuples(st.sampled_from(["alter", "drop", "swap", "copy", "insert", "truncate"]), PLACES, PLACES)


def changed(data: bytes, change: Change, byte: int) -> tuple[bytes, int]:
    """`data` after a change, and the number of the first line that is another one then; 0: none is."""
    kind, place, other = change
    before = lines(data)
    after = list(before)
    if kind == "alter":
        line = before[place]
        at = byte % len(line)
        after[place] = line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :]
    elif kind == "drop":
        del after[place]
    elif kind == "swap":
        after[place], after[other] = after[other], after[place]
    elif kind == "copy":
        after.insert(other, before[place])
    elif kind == "insert":
        after.insert(place, b"x\n")
    else:
        length = byte % len(data)
        return data[:length], data[:length].count(b"\n") + 1
    result = b"".join(after)
    if result == data:
        return result, 0
    return result, next(
        (number for number, (a, b) in enumerate(zip(before, after, strict=False), 1) if a != b),
        min(len(before), len(after)) + 1,
    )


@given(change=CHANGES, byte=st.integers(0, 100_000))
@settings(max_examples=60)
def test_any_change_of_the_audit_is_found_and_the_line_is_named(
    files: Any, bench: ChainFiles, change: Change, byte: int
) -> None:
    audit, chain, head = files
    other, line = changed(audit, change, byte)
    found = found_in(bench, other, chain, head)
    if not line:
        assert found.fault is None
    elif line > LINES:
        # Behind the last row: so a v1 tool writes, and it is told.
        assert found.fault is None
        assert [(note.kind, note.first) for note in found.notes] == [("without_row", line)]
    else:
        assert found.fault is not None
        assert (found.fault.file, found.fault.line) == (AUDIT, line)


@given(change=CHANGES, byte=st.integers(0, 100_000))
@settings(max_examples=60)
def test_any_change_of_the_chain_is_found_and_the_line_is_named(
    files: Any, bench: ChainFiles, change: Change, byte: int
) -> None:
    audit, chain, head = files
    other, line = changed(chain, change, byte)
    found = found_in(bench, audit, other, head)
    if not line:
        assert found.fault is None
        return
    assert found.fault is not None
    assert found.fault.file == CHAIN
    # A row that stands once more is named by the line that it tells of.
    copied = change[1] + 1 if found.fault.kind == "chain_row_inserted" else line
    assert found.fault.line in {line, copied}


@given(byte=st.integers(0, 66), cut=st.booleans())
def test_any_change_of_the_head_is_found(files: Any, bench: ChainFiles, byte: int, cut: bool) -> None:
    audit, chain, head = files
    flipped = head[:byte] + bytes([head[byte] ^ 1]) + head[byte + 1 :]
    other = head[:byte] if cut else flipped
    assert found_in(bench, audit, chain, other).fault is not None or other == head.rstrip()


@given(change=CHANGES, byte=st.integers(0, 100_000), more=st.integers(1, 3))
@settings(max_examples=20)
def test_a_change_is_found_though_lines_were_written_since(
    files: Any, bench: ChainFiles, change: Change, byte: int, more: int
) -> None:
    audit, chain, head = files
    other, line = changed(audit, change, byte)
    if audit.startswith(other) and audit[len(other) : len(other) + 1] == b"\n":
        line += 1  # the next row gives the line before its newline back
    found_in(bench, other, chain, head)
    write(bench, *range(20, 20 + more))
    fault = check(bench).fault
    assert (fault is not None) == (0 < line <= LINES)
    assert fault is None or fault.line == line


def cut(data: bytes, *numbers: int) -> bytes:
    return b"".join(line for number, line in enumerate(lines(data), 1) if number not in numbers)


def ordered(data: bytes, *numbers: int) -> bytes:
    return b"".join(lines(data)[number - 1] for number in numbers)


@pytest.mark.parametrize(
    ("numbers", "kind", "line", "what"),
    [
        ((1, 2, 4, 5, 6, 7, 8), "line_removed", 3, "in its place stands line 4"),
        ((1, 2, 7, 8), "line_removed", 3, "in its place stands line 7"),
        ((1, 2, 3), "line_removed", 4, "was removed, and all behind it"),
        ((1, 3, 2, 4, 5, 6, 7, 8), "lines_reordered", 2, "in its place stands line 3"),
        ((1, 7, 3, 4, 5, 6, 2, 8), "lines_reordered", 2, "in its place stands line 7"),
        ((1, 3, 4, 5, 2, 6, 7, 8), "lines_reordered", 2, "in its place stands line 3"),
        ((1, 2, 1, 3, 4, 5, 6, 7, 8), "line_inserted", 3, "a copy of line 1"),
        ((1, 5, 2, 3, 4, 5, 6, 7, 8), "line_inserted", 2, "a copy of line 5"),
    ],
)
def test_what_became_of_a_line_is_told(
    files: Any, bench: ChainFiles, numbers: Any, kind: str, line: int, what: str
) -> None:
    audit, chain, head = files
    fault = fault_in(bench, ordered(audit, *numbers), chain, head)
    assert (fault.kind, fault.line) == (kind, line)
    assert what in fault.what
    assert fault.key == (f"key-{numbers[line - 1]}" if kind == "line_inserted" else f"key-{line}")


@pytest.mark.parametrize(
    ("numbers", "kind", "line"),
    [
        ((1, 2, 4, 5, 6, 7, 8), "chain_row_removed", 3),
        ((1, 2, 3, 4, 5), "chain_row_removed", 6),
        ((), "chain_row_removed", 1),
        ((1, 3, 2, 4, 5, 6, 7, 8), "chain_rows_reordered", 2),
        ((1, 2, 1, 3, 4, 5, 6, 7, 8), "chain_row_inserted", 1),
    ],
)
def test_what_became_of_a_row_is_told(
    files: Any, bench: ChainFiles, numbers: Any, kind: str, line: int
) -> None:
    audit, chain, head = files
    fault = fault_in(bench, audit, ordered(chain, *numbers), head)
    assert (fault.kind, fault.file, fault.line, fault.key) == (kind, CHAIN, line, f"key-{line}")


def test_altered_inserted_and_cut_are_told_apart(files: Any, bench: ChainFiles) -> None:
    audit, chain, head = files
    assert fault_in(bench, audit.replace(b"key-4", b"key-x"), chain, head).kind == "line_altered"
    assert fault_in(bench, audit[:-3], chain, head).kind == "line_removed"
    assert fault_in(bench, audit, chain.replace(b"key-4", b"key-x"), head).kind == "chain_row_altered"
    rows = lines(chain)
    assert (
        fault_in(bench, audit, b"".join([*rows[:3], b"{}\n", *rows[3:]]), head).kind == "chain_row_inserted"
    )
    assert fault_in(bench, audit, chain[:-3], head).kind == "chain_row_removed"


def test_a_row_made_anew_does_not_carry_the_next(files: Any, bench: ChainFiles, tmp_path: Path) -> None:
    audit, chain, head = files
    paths = files_in(tmp_path)
    write(paths, 1, 2, 3, 99)
    forged_line, forged_row = (lines(Path(path).read_bytes())[3] for path in (paths.audit, paths.chain))
    rows, own = lines(chain), lines(audit)
    forged = b"".join([*own[:3], forged_line.replace(b"key-99", b"key-9"), *own[4:]])
    assert fault_in(bench, forged, b"".join([*rows[:3], forged_row, *rows[4:]]), head).line == 4
    # The last one has nothing behind it but the head.
    whole = b"".join([*own[:3], forged_line]), b"".join([*rows[:3], forged_row])
    kept = rows[3].rpartition(b'"chain":"')[2][:64].decode()
    fault = fault_in(bench, *whole, f"4:{kept}\n".encode())
    assert (fault.kind, fault.line) == ("head_altered", 4)


def test_removal_from_the_end_of_all_files_is_found_by_a_head_that_was_kept(
    files: Any, bench: ChainFiles, tmp_path: Path
) -> None:
    audit, chain, head = files
    kept = found_in(bench, audit, chain, head).head
    paths = files_in(tmp_path)
    write(paths, *range(1, 6))
    assert check(paths).fault is None
    fault = check(paths, kept).fault
    assert fault is not None
    assert (fault.kind, fault.line) == ("not_expected", 6)
    write(paths, *range(6, 10))
    assert check(paths, kept).fault is None
    anew = check(paths, kept._replace(chain="0" * 64)).fault
    assert anew is not None
    assert (anew.kind, anew.line) == ("not_expected", LINES)


def test_a_chain_without_its_audit_is_a_fault(files: Any, bench: ChainFiles) -> None:
    found_in(bench, *files)
    Path(bench.audit).unlink()
    for path in (bench.chain, bench.head):
        fault = check(bench).fault
        assert fault is not None
        assert fault.kind == "audit_missing"
        Path(path).unlink()
    assert check(bench) == Checked(0, 0, Head(), False, [], None)


@pytest.mark.parametrize("met", [0, 1, 2])
def test_a_chain_that_begins_while_it_is_verified_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, met: int
) -> None:
    """The first request of all comes before the file is opened that is the `met`th."""
    paths = files_in(tmp_path)
    opened = os.open
    asked: list[str] = []

    def first(path: str, *how: int) -> int:
        asked.append(path)
        if len(asked) == met + 1:
            monkeypatch.setattr(os, "open", opened)
            write(paths, 1, 2)
        return opened(path, *how)

    monkeypatch.setattr(os, "open", first)
    found = check(paths)
    assert asked == list(paths)[: met + 1]
    assert (found.fault, found.chained) == (None, 2)


def test_what_is_no_chain_at_all_ends_in_a_fault(files: Any, bench: ChainFiles) -> None:
    audit, _, head = files
    for chain in (b"\0" * 3_000_000, b"\n" * 100, b"\xff\n", b"[" * 3000 + b"\n"):
        assert fault_in(bench, audit, chain, head).line == 1
