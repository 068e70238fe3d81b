"""Reading on in a file over all that happens to it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from spritemesh.tracing.reading.follow import Follower, followers
from spritemesh.tracing.reading.reader import MAX_LINE_BYTES, opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t"


@pytest.fixture
def follower(path: Path) -> Iterator[Follower]:
    follower = Follower(str(path))
    yield follower
    follower.close()


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def rotate(path: Path) -> None:
    for number in (3, 2, 1):
        old = path.with_name(f"t.{number}")
        if old.exists():
            old.rename(path.with_name(f"t.{number + 1}"))
    path.rename(path.with_name("t.1"))


def test_lines_come_when_they_are_complete(path: Path, follower: Follower) -> None:
    assert list(follower.read()) == []
    append(path, b"one\ntw")
    assert list(follower.read()) == [b"one"]
    append(path, b"o\n\n \nthree\n")
    assert list(follower.read()) == [b"two", b"three"]
    assert list(follower.read()) == []


def test_nothing_is_lost_or_doubled_over_rotations(path: Path, follower: Follower) -> None:
    append(path, b"0\n")
    assert list(follower.read()) == [b"0"]
    for number in range(1, 4):
        append(path, b"%d old\n" % number)
        os.utime(path, ns=(number * 10**9, number * 10**9))
        rotate(path)
    append(path, b"new\n")
    assert list(follower.read()) == [b"1 old", b"2 old", b"3 old", b"new"]
    rotate(path)
    assert list(follower.read()) == []
    append(path, b"newest\n")
    assert list(follower.read()) == [b"newest"]


def test_file_that_is_truncated_or_replaced_is_read_from_its_start(path: Path, follower: Follower) -> None:
    path.with_name("t.1").write_bytes(b"long ago\n")
    append(path, b"a long line\n")
    assert list(follower.read()) == [b"a long line"]
    path.write_bytes(b"short\n")
    assert list(follower.read()) == [b"short"]
    path.unlink()
    assert list(follower.read()) == []
    path.with_name("new").write_bytes(b"other\n")
    path.with_name("new").rename(path)
    assert list(follower.read()) == [b"other"]


def test_line_that_is_too_long_is_cut_and_the_next_one_is_whole(path: Path, follower: Follower) -> None:
    append(path, b"x" * (3 * MAX_LINE_BYTES))
    (cut,) = follower.read()
    assert len(cut) == MAX_LINE_BYTES + 1
    append(path, b"yyy\nnext\n")
    assert list(follower.read()) == [b"next"]


def test_reading_goes_on_behind_what_was_read(path: Path, tmp_path: Path) -> None:
    path.with_name("t.1").write_bytes(b"old\n")
    append(path, b"one\ntw")
    missing = tmp_path / "missing"
    names = [str(path), str(missing)]
    with opened(names, may_lack=True) as files:
        append(path, b"o\n")
        rotate(path)
        append(path, b"three\n")
        append(missing, b"here\n")
        first, second = followers(names, files)
    assert list(first.read()) == [b"two", b"three"]
    assert list(second.read()) == [b"here"]
    first.close()
    second.close()
