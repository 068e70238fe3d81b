"""The id of a sprite: made once, kept, and never taken from what is no id."""

import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sprite_agent.identity import kept_sprite_id, validate_sprite_id
from sprite_agent.runtime.feed import FeedOptions
from sprite_agent.runtime.identity import Identity
from sprite_agent.runtime.repository import Repository
from spritemesh.errors import OpsError
from tests.harness.loops import Repo


@pytest.fixture
def file(repo: Repo) -> Path:
    """Where the repository keeps the id."""
    return repo.root / ".superloop" / "sprite-agent" / "sprite-id"


def test_id_is_made_once_and_a_copy_has_the_same(repo: Repo, file: Path, tmp_path: Path) -> None:
    made = kept_sprite_id(str(repo.root))
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert file.read_text() == made + "\n"
    assert os.listdir(file.parent) == ["sprite-id"]
    assert kept_sprite_id(str(repo.root)) == made
    shutil.copytree(repo.root, tmp_path / "copy")
    assert kept_sprite_id(str(tmp_path / "copy")) == made
    assert kept_sprite_id(str(tmp_path)) != made


def test_agents_that_start_together_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            found = set(pool.map(kept_sprite_id, [str(tmp_path / str(number))] * 8))
            assert len(found) == 1


def test_id_that_somebody_wrote_is_taken(repo: Repo, file: Path) -> None:
    file.parent.mkdir()
    file.write_text("sprite-7/eu:blue")
    assert kept_sprite_id(str(repo.root)) == "sprite-7/eu:blue"


@pytest.mark.parametrize("text", ["", "\n", "a b", "a\nb\n", "é", "\x7f", "x" * 129, "x" * 100_000])
def test_file_that_holds_no_id_is_left_alone(
    repo: Repo, file: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    file.parent.mkdir()
    file.write_text(text)
    assert kept_sprite_id(str(repo.root)) == ""
    assert file.read_text() == text
    assert "artifact_invalid" in caplog.text


@pytest.mark.parametrize("kind", ["no directory", "pipe", "directory"])
def test_place_that_can_hold_no_id_leaves_the_sprite_without(
    repo: Repo, file: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    if kind == "no directory":
        file.parent.write_text("")
    else:
        file.parent.mkdir()
        os.mkfifo(file) if kind == "pipe" else file.mkdir()
    assert kept_sprite_id(str(repo.root)) == ""
    assert "the sprite has no id" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_repository_that_cannot_be_written_has_none(repo: Repo) -> None:
    (repo.root / ".superloop").chmod(0o500)
    assert kept_sprite_id(str(repo.root)) == ""


@pytest.mark.parametrize("sprite_id", ["a", "x" * 128, "!~", "sprite-7/eu:blue"])
def test_printable_id_is_taken(sprite_id: str) -> None:
    assert validate_sprite_id(sprite_id) == sprite_id


@pytest.mark.parametrize("sprite_id", ["", "x" * 129, "a b", "a\t", "\n", "é", "\x7f", "\udc80"])
def test_other_id_is_refused(sprite_id: str) -> None:
    with pytest.raises(OpsError) as caught:
        validate_sprite_id(sprite_id)
    assert (caught.value.reason, caught.value.field) == ("invalid_request", "--sprite-id")


def test_renewed_boot_id_is_told_by_feeds_opened_from_then_on(repo: Repo) -> None:
    repo.loop("alpha")
    repository = Repository(str(repo.root), boot_id="a", sprite_id="s")
    reader = repository.loop("alpha")
    repository.renew("b")
    assert repository.identity == Identity("b", "s")
    (message,) = reader.feed(FeedOptions()).open(None)
    assert (message.opened.boot_id, message.opened.sprite_id) == ("b", "s")
    repository.close()
