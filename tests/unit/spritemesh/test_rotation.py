"""spritemesh.rotation: files that move aside lose no row, double none, and stay in order (contract L25)."""

import json
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from spritemesh import files, rotation

DEADLINE_SECONDS = 30
WRITERS, ROWS = 3, 800
# So small that the writers of a test move the file aside a hundred times.
LIMIT = 1_000


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "telemetry" / "rows.jsonl")


def append(path: str, *numbers: int, keep: int = rotation.KEEP) -> None:
    """Rows of eight bytes, three of which fill a file."""
    for number in numbers:
        rotation.append_rows(path, [{"n": f"{number:02}"[-2:]}], limit=24, keep=keep)


def tail(path: str, count: int) -> list[int]:
    return [int(json.loads(line)["n"]) for line in rotation.tail_lines(path, count)]


def names(path: str) -> list[str]:
    return sorted(os.listdir(os.path.dirname(path)))


# --- moving aside ---------------------------------------------------------------------------------------


def test_file_moves_aside_when_it_is_large_and_the_oldest_goes(path: str) -> None:
    append(path, *range(50), keep=3)
    assert names(path) == ["rows.jsonl", "rows.jsonl.1", "rows.jsonl.2", "rows.jsonl.3"]
    assert len({*tail(path, 100)}) == len(tail(path, 100)) >= 7
    assert tail(path, 100)[-1] == 49
    assert max(os.path.getsize(f"{os.path.dirname(path)}/{name}") for name in names(path)) <= 40


def test_rows_of_one_call_stay_together(path: str) -> None:
    append(path, 1, 2, 3)
    rotation.append_rows(path, [{"n": number} for number in range(10, 20)], limit=24)
    assert Path(path).read_bytes().count(b"\n") == 10
    assert names(path) == ["rows.jsonl", "rows.jsonl.1"]


def test_nothing_to_append_moves_nothing(path: str) -> None:
    append(path, 1, 2, 3)
    rotation.append_rows(path, [], limit=1)
    assert names(path) == ["rows.jsonl"]


def test_lines_that_are_encoded_go_the_same_way_and_make_no_directory_unasked(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        rotation.append_lines(path, b'{"n":1}\n', limit=8, make_directory=False)
    for number in range(3):
        rotation.append_lines(path, b'{"n":%d}\n' % number, limit=8)
    assert names(path) == ["rows.jsonl", "rows.jsonl.1", "rows.jsonl.2"]
    assert tail(path, 10) == [0, 1, 2]


def test_torn_last_line_stays_alone_where_the_file_moves_aside(path: str) -> None:
    append(path, 1, 2)
    with open(path, "ab") as file:
        file.write(b'{"n":"torn')
    append(path, 3)
    assert rotation.tail_lines(path, 10) == [b'{"n":"01"}', b'{"n":"02"}', b'{"n":"torn', b'{"n":"03"}']


def test_crash_between_moving_and_the_first_row_loses_nothing(path: str) -> None:
    append(path, *range(1, 7))
    os.replace(path, f"{path}.9")
    os.replace(f"{path}.1", f"{path}.2")
    os.replace(f"{path}.9", f"{path}.1")
    assert tail(path, 10) == [1, 2, 3, 4, 5, 6]
    append(path, 7)
    assert tail(path, 10) == [1, 2, 3, 4, 5, 6, 7]


def test_crash_among_the_moves_leaves_a_gap_that_costs_nothing(path: str) -> None:
    append(path, *range(1, 16))
    assert names(path)[-1] == "rows.jsonl.4"
    os.unlink(f"{path}.4")
    os.replace(f"{path}.3", f"{path}.4")
    known = tail(path, 100)
    assert len(known) >= 12
    append(path, 16, 17, 18)
    assert tail(path, 100) == [*known, 16, 17, 18]


def test_file_that_moved_aside_while_its_lock_was_waited_for_is_let_go(path: str) -> None:
    append(path, 1)
    context = multiprocessing.get_context("spawn")
    with files.opened_to_append(path) as handle:
        writer = context.Process(target=files.append_rows, args=(path, [{"n": "02"}]))
        writer.start()
        # It waits for the lock of the file that moves away now.
        _wait_for_waiter(handle, writer)
        os.replace(path, f"{path}.1")
    writer.join(DEADLINE_SECONDS)
    assert writer.exitcode == 0
    assert Path(f"{path}.1").read_bytes() == b'{"n":"01"}\n'
    assert Path(path).read_bytes() == b'{"n":"02"}\n'


def _wait_for_waiter(handle: int, writer: Any) -> None:
    """Until a process waits for the lock of a file, as the kernel's list of locks says."""
    inode = f":{os.fstat(handle).st_ino} "
    while not any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines()):
        assert writer.is_alive()


# --- reading --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7, 11, 99])
def test_tail_goes_on_in_the_files_that_moved_aside(path: str, count: int) -> None:
    append(path, *range(1, 12))
    assert tail(path, count) == list(range(1, 12))[max(0, 11 - count) :] if count else tail(path, 0) == []


def test_no_file_has_no_lines(path: str) -> None:
    assert rotation.tail_lines(path, 5) == []


def test_file_that_moves_while_it_is_opened_is_read_once(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    append(path, *range(1, 12))
    whole = tail(path, 100)
    opened, moves = os.open, iter(range(5))

    def open_and_move(name: str, *arguments: Any, **settings: Any) -> int:
        """As os.open; after each of the first ones, another process moves the file aside and writes on."""
        handle = opened(name, *arguments, **settings)
        if next(moves, None) is not None:
            monkeypatch.setattr(os, "open", opened)
            rotation.append_rows(path, [{"n": "77"}] * 3, limit=1, keep=20)
            monkeypatch.setattr(os, "open", open_and_move)
        return handle

    monkeypatch.setattr(os, "open", open_and_move)
    with rotation.generations(path, keep=20) as found:
        lines = [line for generation in reversed(found) for line in files.tail_of(generation.handle, 99)]
    numbers = [json.loads(line)["n"] for line in lines]
    assert numbers == [f"{number:02}" for number in whole] + ["77"] * (len(numbers) - len(whole))
    # What was written before the last opening is there.
    assert numbers.count("77") == 15


def test_reader_leaves_no_file_open(path: str) -> None:
    append(path, *range(1, 12))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        tail(path, 5)
    assert len(os.listdir("/proc/self/fd")) == before


# --- several processes ----------------------------------------------------------------------------------


def _write(path: str, writer: int) -> None:
    for number in range(0, ROWS, 2):
        rows = [{"writer": writer, "number": number + more} for more in range(2)]
        rotation.append_rows(path, rows, limit=LIMIT, keep=ROWS)


@contextmanager
def _writing(path: str) -> Iterator[list[Any]]:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(path, writer)) for writer in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        yield writers
    finally:
        for writer in writers:
            writer.join(DEADLINE_SECONDS)
    assert [writer.exitcode for writer in writers] == [0] * WRITERS


class _Follower:
    """Reads a file from the beginning, wherever it moves, by its inode and the offset in it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._inode, self._offset = 0, 0
        self.rows: list[dict[str, int]] = []

    def read(self) -> None:
        with rotation.generations(self._path, keep=ROWS) as found:
            inodes = [os.fstat(generation.handle).st_ino for generation in found]
            # From the one that it is in up to the youngest.
            first = inodes.index(self._inode) if self._inode else len(inodes) - 1
            for generation, inode in zip(found[first::-1], inodes[first::-1], strict=True):
                if inode != self._inode:
                    self._inode, self._offset = inode, 0
                data = os.pread(generation.handle, 1 << 20, self._offset)
                whole = data[: data.rfind(b"\n") + 1]
                self._offset += len(whole)
                self.rows += [json.loads(line) for line in whole.splitlines()]


def test_follower_meets_each_row_of_several_writers_once_and_in_order(path: str) -> None:
    follower = _Follower(path)
    with _writing(path) as writers:
        while any(writer.is_alive() for writer in writers):
            if os.path.exists(path) or follower.rows:
                follower.read()
    follower.read()
    assert len(names(path)) > 50
    for writer in range(WRITERS):
        numbers = [row["number"] for row in follower.rows if row["writer"] == writer]
        assert numbers == list(range(ROWS))


def test_tail_has_no_hole_and_nothing_twice_while_several_write(path: str) -> None:
    looks = 0
    with _writing(path) as writers:
        while any(writer.is_alive() for writer in writers):
            rows = [json.loads(line) for line in rotation.tail_lines(path, 200, keep=ROWS)]
            for writer in range(WRITERS):
                numbers = [row["number"] for row in rows if row["writer"] == writer]
                assert numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else True
            looks += bool(rows)
    assert looks
    assert len(rotation.tail_lines(path, 10 * ROWS, keep=ROWS)) == WRITERS * ROWS
