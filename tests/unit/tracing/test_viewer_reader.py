"""Lines of rotated files, forward and from the end."""

import os
import random
from pathlib import Path

import pytest

from spritemesh.errors import OpsError
from spritemesh.tracing.reading import reader
from spritemesh.tracing.reading.reader import Chunk, LineFiles, opened


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "BLOCK_BYTES", 64)


def placed(chunk: Chunk) -> list[tuple[int, bytes]]:
    return [(chunk.position, b"cut")] if chunk.is_cut else list(chunk.placed())


def both_ways(files: LineFiles, start: int = 0, end: int | None = None) -> list[tuple[int, bytes]]:
    """Position and bytes of all lines, which are the same whichever way they are read."""
    forward = [item for chunk in files.forward(start, end) for item in placed(chunk)]
    backward = [item for chunk in files.backward(start, end) for item in reversed(placed(chunk))]
    assert backward[::-1] == forward
    return forward


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("seed", range(20))
def test_every_line_is_read_once_either_way(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    lines = [b"%d:" % number + b"x" * chance.choice((0, 5, 40, 59, 60)) for number in range(60)]
    first, second = b"\n".join(lines[:30]) + b"\n", b"\n".join(lines[30:])
    (tmp_path / "t.1").write_bytes(first)
    (tmp_path / "t").write_bytes(second)
    with opened([str(tmp_path / "t")]) as files:
        found = both_ways(files)
        assert [line for _, line in found] == lines
        whole = first + second
        assert all(whole[position : position + len(line)] == line for position, line in found)
        assert both_ways(files, found[20][0], found[40][0]) == found[20:40]
        assert files.place(found[0][0]) == (str(tmp_path / "t.1"), 1)
        assert files.place(found[45][0]) == (str(tmp_path / "t"), 16)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("tail", [b"", b"\n", b"\nlast"])
def test_line_longer_than_a_block_is_cut_and_its_neighbours_are_whole(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"first\n" + b"x" * 1000 + b"\nsecond\n" + b"y" * 200 + tail)
    with opened([str(path)]) as files:
        found = [line for _, line in both_ways(files)]
    assert found == [b"first", b"cut", b"second", b"cut", *([b"last"] if tail.strip() else [])]


@pytest.mark.usefixtures("small_blocks")
def test_lines_that_hold_a_needle_are_found_once(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"aa b\n\nb a a\nc\na b")
    with opened([str(path)]) as files:
        (chunk,) = files.forward()
        assert chunk.holding([b"a"]) == [(0, b"aa b"), (6, b"b a a"), (14, b"a b")]
        assert chunk.holding([b"c", b"b"]) == [(0, b"aa b"), (6, b"b a a"), (12, b"c"), (14, b"a b")]
        (chunk,) = files.backward(6, 12)
        assert chunk.holding([b"a"]) == [(6, b"b a a")]


def test_several_paths_are_one_behind_the_other(tmp_path: Path) -> None:
    for name in ("a", "a.1", "b"):
        (tmp_path / name).write_text(f"{name}\n")
    with opened([str(tmp_path / "a"), str(tmp_path / "b")]) as files:
        assert [line for _, line in both_ways(files)] == [b"a.1", b"a", b"b"]
        assert files.regions == [(0, 6), (6, 8)]


def test_unfinished_line_is_outside_of_the_whole_ones(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"one\ntwo\nthr")
    (tmp_path / "u").write_bytes(b"thr")
    with opened([str(tmp_path / "t"), str(tmp_path / "u")]) as files:
        assert [files.whole(region) for region in files.regions] == [(0, 8), (11, 11)]


def test_file_that_moves_aside_while_it_is_read_is_read_on(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("one\n")
    with opened([str(path)]) as files:
        path.rename(tmp_path / "t.1")
        path.write_text("two\n")
        assert [line for _, line in both_ways(files)] == [b"one"]


def test_no_file_and_what_is_no_file_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (
        ("none", "trace_file_not_found"),
        ("pipe", "document_invalid"),
        ("", "document_invalid"),
    ):
        with pytest.raises(OpsError) as refused, opened([str(tmp_path / name)]):
            pass
        assert refused.value.reason == reason
    with opened([str(tmp_path / "none")], may_lack=True) as files:
        assert (files.size, list(files.forward()), list(files.backward())) == (0, [], [])
