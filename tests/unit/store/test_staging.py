"""Documents replaced together."""

import os
from pathlib import Path

import pytest

from manager.store.staging import Staging
from spritemesh.errors import OpsError


def staged(directory: Path, *names: str) -> Staging:
    staging = Staging()
    for name in names:
        staging.add(str(directory / name), b"new\n")
    return staging


def test_nothing_is_in_place_before_the_commit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old\n")
    staging = staged(tmp_path, "a", "deep/b")
    assert (tmp_path / "a").read_bytes() == b"old\n"
    staging.commit()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "deep/b").read_bytes() == b"new\n"
    assert sorted(os.listdir(tmp_path)) == ["a", "deep"]


def test_discard_leaves_no_trace(tmp_path: Path) -> None:
    staged(tmp_path, "a", "b").discard()
    assert os.listdir(tmp_path) == []


def test_one_document_in_the_way_keeps_all_the_old_ones(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old\n")
    (tmp_path / "b").mkdir()
    with pytest.raises(OpsError, match="b") as caught:
        staged(tmp_path, "a", "b")
    assert caught.value.reason == "state_unwritable"
    assert (tmp_path / "a").read_bytes() == b"old\n"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_commit_tells_which_document_failed(tmp_path: Path) -> None:
    staging = staged(tmp_path, "a", "b")
    (tmp_path / "b").mkdir()
    with pytest.raises(OpsError, match="/b"):
        staging.commit()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
