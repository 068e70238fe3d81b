"""Files are their owner's alone, and keep the mode that their owner gives them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manager.store.staging import Staging
from manager.store.swap import Swap
from spritemesh import files, modes, rotation
from spritemesh.errors import OpsError

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
SOMEBODY_ELSE = 12345


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def write(path: Path) -> None:
    files.write_atomic(str(path), b"{}\n")


def append(path: Path) -> None:
    files.append_rows(str(path), [{}])


def rotate(path: Path) -> None:
    """Append to a file that moves aside whenever something is in it."""
    rotation.append_rows(str(path), [{}], limit=1)


def swap(path: Path) -> None:
    swap = Swap()
    swap.add(str(path), b"{}\n")
    swap.commit()


def stage(path: Path) -> None:
    staging = Staging()
    staging.add(str(path), b"{}\n")
    staging.commit()


WRITERS = pytest.mark.parametrize("put", [write, append, rotate, swap, stage])
Put = Callable[[Path], None]


@WRITERS
def test_files_and_directories_are_made_for_their_owner_alone(tmp_path: Path, put: Put) -> None:
    path = tmp_path / "one" / "two" / "file"
    for _ in range(3):
        put(path)
    found = {str(item.relative_to(tmp_path)): mode(item) for item in tmp_path.rglob("*")}
    assert {found.pop("one"), found.pop("one/two")} == {0o700}
    assert set(found.values()) == {0o600}


@WRITERS
@pytest.mark.parametrize("given", [0o640, 0o644, 0o400])
def test_a_mode_that_was_given_stays(tmp_path: Path, put: Put, given: int) -> None:
    path = tmp_path / "file"
    put(path)
    path.chmod(given)
    for _ in range(3):
        if given & 0o200 or put not in (append, rotate) or os.geteuid() == 0:
            put(path)
        assert mode(path) == given


@WRITERS
def test_a_directory_that_is_there_keeps_its_mode(tmp_path: Path, put: Put) -> None:
    tmp_path.chmod(0o755)
    put(tmp_path / "file")
    assert mode(tmp_path) == 0o755


@ROOT_ONLY
@pytest.mark.parametrize("put", [write, rotate, swap, stage])
def test_a_group_that_may_read_may_read_on(tmp_path: Path, put: Put) -> None:
    path = tmp_path / "file"
    put(path)
    os.chown(path, -1, SOMEBODY_ELSE)
    path.chmod(0o640)
    for _ in range(3):
        put(path)
        assert (path.stat().st_gid, mode(path)) == (SOMEBODY_ELSE, 0o640)


@ROOT_ONLY
@pytest.mark.parametrize("put", [write, swap, stage])
def test_whoever_else_laid_a_file_there_does_not_decide_who_reads_ours(tmp_path: Path, put: Put) -> None:
    path = tmp_path / "file"
    path.write_text("{}")
    path.chmod(0o666)
    os.chown(path, SOMEBODY_ELSE, -1)
    put(path)
    assert (path.stat().st_uid, mode(path)) == (0, 0o600)


@pytest.mark.parametrize("put", [write, stage])
def test_the_mode_of_a_link_is_none(tmp_path: Path, put: Put) -> None:
    path = tmp_path / "file"
    path.symlink_to("elsewhere")
    put(path)
    assert mode(path) == 0o600


def test_where_it_shall_the_umask_decides(tmp_path: Path) -> None:
    os.umask(0o027)
    path = tmp_path / "directory" / "file"
    files.write_atomic(str(path), b"", private=False)
    assert (mode(path), mode(path.parent)) == (0o640, 0o750)
    with files.locked_directory(str(tmp_path / "locked"), wait_seconds=0, private=False):
        assert mode(tmp_path / "locked") == 0o750


def test_a_file_or_a_link_to_nowhere_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link", "file/below", "link/below", ""):
        with pytest.raises(OSError, match=r"exists|directory"):
            modes.make_directory(name and str(tmp_path / name))
    with pytest.raises(OpsError, match="cannot write"):
        files.write_atomic(str(tmp_path / "link" / "file"), b"")
    (tmp_path / "there").mkdir()
    (tmp_path / "way").symlink_to("there")
    modes.make_directory(f"{tmp_path}/way/below/")
    modes.make_directory("/")
    assert (tmp_path / "there" / "below").is_dir()
