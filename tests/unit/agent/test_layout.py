"""Paths of a loop, and which loops there are."""

import os
from pathlib import Path

import pytest

from sprite_agent.runtime.layout import list_loop_ids, loop_paths, resolve_repo, trace_files
from sprite_agent.runtime.repository import Repository
from spritemesh.errors import OpsError
from tests.harness.loops import Repo


def test_paths_are_relative_to_the_repository() -> None:
    paths = loop_paths("über 1")
    assert paths.events == ".superloop/loops/über 1/events.jsonl"
    assert paths.state == ".superloop/state.json"
    assert not any(os.path.isabs(path) for path in paths)


@pytest.mark.parametrize(
    "loop_id", ["", ".", "..", "a/b", "../x", "a\\b", "a\0", "a\n", "x" * 256, "é" * 128]
)
def test_id_that_could_leave_its_directory_makes_no_path(loop_id: str) -> None:
    with pytest.raises(OpsError) as caught:
        loop_paths(loop_id)
    assert caught.value.reason == "invalid_loop_id"


def test_trace_files_are_those_of_repository_and_loop_and_those_that_are_named() -> None:
    shared = ("trace.jsonl", ".superloop/trace.jsonl")
    assert trace_files("/repo") == shared
    assert trace_files("/repo", "alpha") == (*shared, ".superloop/loops/alpha/trace.jsonl")
    named = ("logs/./a.jsonl", "/repo/logs/a.jsonl", "/var/b.jsonl", "../c.jsonl", "/repository/d.jsonl")
    found = trace_files("/repo", "", (*named, "trace.jsonl"))
    assert found == (*shared, "logs/a.jsonl", "/var/b.jsonl", "/c.jsonl", "/repository/d.jsonl")
    with pytest.raises(OpsError):
        trace_files("/repo", "../x")


def test_repository_keeps_links_in_its_path(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert resolve_repo(str(tmp_path / "link")) == str(tmp_path / "link")


@pytest.mark.parametrize("name", ["missing", "file", "nul\0"])
def test_repository_must_be_a_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OpsError) as caught:
        resolve_repo(str(tmp_path / name))
    assert caught.value.reason == "repo_not_found"


def test_loops_are_the_directories_in_order(repo: Repo) -> None:
    for loop_id in ("b", "a c", "é", "B"):
        repo.loop(loop_id)
    (repo.root / ".superloop" / "loops" / "file").write_text("")
    assert list_loop_ids(str(repo.root)) == ["B", "a c", "b", "é"]


def test_name_that_no_message_can_hold_is_left_out(repo: Repo) -> None:
    repo.loop("good")
    os.mkdir(os.fsencode(repo.root) + b"/.superloop/loops/bad\xff")
    assert list_loop_ids(str(repo.root)) == ["good"]


def test_repository_where_nothing_ever_ran_has_no_loops(tmp_path: Path) -> None:
    assert list_loop_ids(str(tmp_path)) == []


def test_readers_are_shared_and_bounded(repo: Repo) -> None:
    repository = Repository(str(repo.root))
    for number in range(1100):
        repo.loop(f"a{number}", None)
    first = repository.loop("a0")
    assert repository.loop("a0") is first
    for number in range(1, 1100):
        repository.loop(f"a{number}")
    assert len(repository._readers) <= 1024
    assert repository.loop("a0") is not first
    repository.close()


def test_log_that_is_still_read_outlives_its_place_in_the_cache(repo: Repo) -> None:
    """A stream goes on through the reader that it has, however many loops are asked for meanwhile."""
    repo.loop("busy", b"{}\n")
    repository = Repository(str(repo.root))
    reader = repository.loop("busy")
    head = reader.head()
    for number in range(1100):
        repo.loop(f"other-{number}", None)
        repository.loop(f"other-{number}")
    assert repository.loop("busy") is not reader
    assert reader.log.read(head, 0, head.size)


def test_loop_that_does_not_exist_takes_nobodys_place_in_the_cache(repo: Repo) -> None:
    repo.loop("real", b"{}\n")
    repository = Repository(str(repo.root))
    real = repository.loop("real")
    for number in range(2000):
        repository.loop(f"made-up-{number}")
    assert repository.loop("real") is real
