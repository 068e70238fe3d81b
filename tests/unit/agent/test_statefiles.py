"""StateFiles: the runtime's JSON files, read when they changed and only then."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from sprite_agent.runtime.statefiles import MAX_STATE_BYTES, StateFiles
from spritemesh.errors import OpsError
from spritemesh.files import UNSETTLED_NS


@pytest.fixture
def files(tmp_path: Path) -> StateFiles:
    return StateFiles(str(tmp_path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def settle(path: Path) -> None:
    """Let the file be older than the moment in which a second change would look like none."""
    moment = time.time_ns() - 10 * UNSETTLED_NS
    os.utime(path, ns=(moment, moment))


def reason_of(files: StateFiles, **settings: int) -> tuple[str, str]:
    with pytest.raises(OpsError) as caught:
        files.read("state.json", **settings)
    return caught.value.reason, caught.value.message


def test_missing_file_is_null_and_referenced_as_missing(files: StateFiles) -> None:
    found = files.read("state.json")
    assert (found.value, found.text, found.message) == (None, "", None)
    assert (found.reference.path, found.reference.exists) == ("state.json", False)
    assert not found.reference.HasField("sha256")
    assert not found.reference.HasField("mtime_epoch")


def test_content_is_kept_as_written(files: StateFiles, path: Path) -> None:
    text = '{ "b": 1.0,\n  "a": 12345678901234567890 }\n'
    path.write_text(text)
    found = files.read("state.json")
    assert found.message is not None
    assert found.message.json == text
    assert found.reference.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert (found.reference.size_bytes, found.reference.line_count) == (len(text), 2)
    assert found.reference.mtime_epoch == int(path.stat().st_mtime)


def test_null_in_a_file_is_no_message_but_exists(files: StateFiles, path: Path) -> None:
    path.write_text("null\n")
    found = files.read("state.json")
    assert (found.message, found.reference.exists) == (None, True)


def test_invalid_utf8_is_repaired(files: StateFiles, path: Path) -> None:
    path.write_bytes(b'{"a":"\xff"}')
    assert files.read("state.json").text == '{"a":"\ufffd"}'


def test_unchanged_file_is_not_read_again(files: StateFiles, path: Path) -> None:
    path.write_text("{}")
    settle(path)
    assert files.read("state.json") is files.read("state.json")


def test_change_within_one_tick_of_the_clock_is_seen(files: StateFiles, path: Path) -> None:
    moment = time.time_ns()
    path.write_text('{"iteration":1}')
    os.utime(path, ns=(moment, moment))
    assert files.read("state.json").value == {"iteration": 1}
    # Written in place: same inode, same size, and the clock that stamps files has not ticked.
    path.write_text('{"iteration":2}')
    os.utime(path, ns=(moment, moment))
    assert files.read("state.json").value == {"iteration": 2}


def test_removed_file_is_missing_again(files: StateFiles, path: Path) -> None:
    path.write_text("{}")
    files.read("state.json")
    path.unlink()
    assert files.read("state.json").reference.exists is False


@pytest.mark.parametrize("content", ["", "{", "{}{}", "NaN", "[" * 257 + "]" * 257, "[" * 100_000])
def test_file_that_is_no_json_is_refused_by_name(files: StateFiles, path: Path, content: str) -> None:
    path.write_text(content)
    reason, message = reason_of(files)
    assert reason == "artifact_invalid"
    assert "state.json" in message


def test_refused_file_is_read_again_once_mended(files: StateFiles, path: Path) -> None:
    path.write_text("{")
    reason_of(files)
    path.write_text("{}")
    assert files.read("state.json").value == {}


def test_file_larger_than_its_limit_is_refused_by_name(files: StateFiles, path: Path) -> None:
    path.write_text('"' + "x" * (MAX_STATE_BYTES - 2) + '"')
    assert files.read("state.json").reference.size_bytes == MAX_STATE_BYTES
    path.write_text('"' + "x" * (MAX_STATE_BYTES - 1) + '"')
    reason, message = reason_of(files)
    assert reason == "artifact_too_large"
    assert "state.json" in message


@pytest.mark.parametrize("kind", ["directory", "pipe", "dangling link"])
def test_what_is_no_regular_file_counts_as_missing(files: StateFiles, path: Path, kind: str) -> None:
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere")
    assert files.read("state.json").reference.exists is False


def test_link_to_a_file_is_followed(files: StateFiles, path: Path) -> None:
    path.with_name("real").write_text("[1]")
    path.symlink_to("real")
    assert files.read("state.json").value == [1]
