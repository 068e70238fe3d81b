"""Documents that change names with their spares."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from manager.store.swap import Swap
from spritemesh.errors import OpsError


def replace(path: Path, data: bytes) -> None:
    """Make `data` the document in `path`."""
    swap = Swap()
    swap.add(str(path), data)
    swap.commit()


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """A document that was replaced before, so that it has a spare."""
    path = tmp_path / "state.json"
    for data in (b"first\n", b"second\n"):
        replace(path, data)
    assert sorted(os.listdir(tmp_path)) == [".state.json.spare", "state.json"]
    return path


def test_shorter_document_holds_nothing_of_a_longer_one(document: Path) -> None:
    replace(document, b"a long one, longer than those before\n")
    replace(document, b"4\n")
    replace(document, b"5\n")
    assert document.read_bytes() == b"5\n"


def test_nothing_is_in_place_before_the_commit(document: Path) -> None:
    swap = Swap()
    swap.add(str(document), b"third\n")
    assert document.read_bytes() == b"second\n"
    swap.discard()
    swap.commit()
    assert document.read_bytes() == b"second\n"


def test_slow_reader_reads_to_its_end_what_it_opened(document: Path) -> None:
    with document.open("rb") as slow:
        for number in range(5):
            replace(document, b"%d\n" % number)
        assert slow.read() == b"second\n"
    assert document.read_bytes() == b"4\n"


def test_copy_by_hard_link_stays_what_it_was(document: Path, tmp_path: Path) -> None:
    os.link(document, tmp_path / "backup")
    for number in range(3):
        replace(document, b"%d\n" % number)
    assert (tmp_path / "backup").read_bytes() == b"second\n"


def test_link_in_place_of_a_document_is_replaced_and_its_target_is_not_written(
    document: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"another's\n")
    document.unlink()
    document.symlink_to(target)
    for number in range(3):
        replace(document, b"%d\n" % number)
    assert (document.read_bytes(), document.is_symlink()) == (b"2\n", False)
    assert target.read_bytes() == b"another's\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user")
def test_documents_of_another_user_are_replaced_where_the_directory_allows_it(tmp_path: Path) -> None:
    """As by a one-shot pass of root before; whoever reads them must be able to afterwards, too."""
    directory = Path("/dev/shm") / f"swap-{os.getpid()}"
    directory.mkdir()
    document = directory / "state.json"
    try:
        directory.chmod(0o777)
        document.write_bytes(b"of root\n")
        document.chmod(0o600)
        code = (
            "import os, sys; sys.path[:0] = sys.argv[2:]\n"
            "from manager.store.swap import Swap\n"
            "os.setgid(65534); os.setuid(65534)\n"
            "for data in (b'1', b'2', b'3'):\n"
            "    swap = Swap(); swap.add(sys.argv[1], data); swap.commit()\n"
        )
        subprocess.run([sys.executable, "-c", code, str(document), *sys.path], check=True, cwd=os.getcwd())
        assert document.read_bytes() == b"3"
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


def test_directory_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / ".state.json.spare").mkdir()
    with pytest.raises(OpsError, match=r"state\.json") as caught:
        Swap().add(str(tmp_path / "state.json"), b"1\n")
    assert caught.value.reason == "state_unwritable"
