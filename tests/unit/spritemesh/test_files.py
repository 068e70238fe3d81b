"""Files are never seen half written, and locks hold between processes (contract L8, L9)."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spritemesh import files, jsontext
from spritemesh.errors import OpsError
from tests.harness.disk import largest_file
from tests.unit.bridge.strategies import THOROUGH

DEADLINE_SECONDS = 20


# --- reading ------------------------------------------------------------------------------------------


def test_absent_file_reads_as_none(tmp_path: Path) -> None:
    path = str(tmp_path / "none.json")
    assert files.read_bytes(path) is None
    assert files.read_json(path) is None
    assert files.read_object(path) is None
    assert files.tail_lines(path, 3) == []


@pytest.mark.parametrize("content", [b"", b"{", b"{} {}", b"\xff"])
def test_file_that_is_no_json_is_refused_by_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(OpsError) as caught:
        files.read_json(str(path), what="state")
    assert caught.value.reason == "document_invalid"
    assert caught.value.message.startswith(f"state {path} is not valid JSON")


@pytest.mark.parametrize(
    ("content", "kind"), [("[]", "array"), ("1", "number"), ('"x"', "string"), ("true", "boolean")]
)
def test_document_of_another_kind_is_refused_by_path_and_kind(
    tmp_path: Path, content: str, kind: str
) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(OpsError, match=f"state {path} holds {kind} where an object is expected") as caught:
        files.read_object(str(path), what="state")
    assert caught.value.reason == "document_invalid"


@pytest.mark.parametrize("content", ["null", "null\n"])
def test_null_document_reads_as_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    assert files.read_object(str(path)) is None


def test_directory_or_path_below_a_file_is_refused_by_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "x"):
        with pytest.raises(OpsError, match=str(path)) as caught:
            files.read_json(str(path))
        assert caught.value.reason == "document_invalid"


def test_document_around_the_deepest_source_is_read_again(tmp_path: Path) -> None:
    source = jsontext.parse("[" * jsontext.MAX_DEPTH + "]" * jsontext.MAX_DEPTH)
    document = {"evidence": {"lastEventEnvelope": {"event": {"raw": source}}}}
    path = str(tmp_path / "state.json")
    files.write_atomic(path, jsontext.encode(document))
    assert files.read_json(path) == document


# --- replacing ----------------------------------------------------------------------------------------


def test_replacing_makes_missing_directories_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "state.json"
    files.write_atomic(str(path), b"one")
    files.write_atomic(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["state.json"]


def test_reader_sees_the_old_or_the_new_content_and_never_a_part(tmp_path: Path) -> None:
    path = str(tmp_path / "state.json")
    contents = [bytes([letter]) * 300_000 for letter in b"ab"]
    files.write_atomic(path, contents[0])
    done = threading.Event()

    def write() -> None:
        for number in range(30):
            files.write_atomic(path, contents[number % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert files.read_bytes(path) in contents
    writer.join()


def test_replacing_on_a_full_disk_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(b"old")
    with largest_file(1000), pytest.raises(OpsError) as caught:
        files.write_atomic(str(path), b"x" * 5000)
    assert caught.value.reason == "state_unwritable"
    assert str(path) in caught.value.message
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state.json"]


def test_replacing_where_no_directory_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OpsError) as caught:
        files.write_atomic(str(tmp_path / "file" / "state.json"), b"x")
    assert caught.value.reason == "state_unwritable"


def test_what_a_killed_writer_left_is_taken_up_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    left, temporary = files.open_temporary(str(path))
    os.write(left, b"half of somet")
    os.close(left)
    files.write_atomic(str(path), b"whole")
    assert path.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["state.json"]
    assert temporary.startswith(str(path))


def test_writers_of_one_file_at_a_time_do_not_meet(tmp_path: Path) -> None:
    path = str(tmp_path / "state.json")
    contents = [bytes([letter]) * 100_000 for letter in b"abcd"]

    def write(data: bytes) -> None:
        for _ in range(20):
            files.write_atomic(path, data)
            assert files.read_bytes(path) in contents

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, contents))
    assert os.listdir(tmp_path) == ["state.json"]


def test_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    code = (
        "import sys; from spritemesh.files import write_atomic\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    for letter in b'ab': write_atomic(sys.argv[1], bytes([letter]) * 200_000)\n"
    )
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        while not path.exists():
            assert writer.poll() is None
        writer.kill()
        writer.communicate(timeout=DEADLINE_SECONDS)
        data = path.read_bytes()
        assert (len(data), len(set(data))) == (200_000, 1)
        path.unlink()


# --- appending ----------------------------------------------------------------------------------------


def test_rows_are_appended_as_compact_lines(tmp_path: Path) -> None:
    path = tmp_path / "telemetry" / "rows.jsonl"
    files.append_rows(str(path), [{"a": 1.0}, {"b": "\x7f\ud800"}])
    files.append_rows(str(path), [])
    files.append_rows(str(path), [3], sync=True)
    assert path.read_bytes() == b'{"a":1.0}\n{"b":"\\u007f\\ud800"}\n3\n'


def test_no_rows_make_no_file(tmp_path: Path) -> None:
    files.append_rows(str(tmp_path / "telemetry" / "rows.jsonl"), [])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("tail", [b'{"torn', b'{"whole":1}'])
def test_torn_last_line_gets_its_newline_and_stays_alone(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"{}\n" + tail)
    files.append_rows(str(path), [{"a": 1}])
    files.append_rows(str(path), [{"a": 2}])
    assert path.read_bytes() == b"{}\n" + tail + b'\n{"a":1}\n{"a":2}\n'


@pytest.mark.parametrize("before", [b"{}\n", b'{"torn'])
def test_appending_on_a_full_disk_appends_nothing(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(before)
    with largest_file(1000), pytest.raises(OSError) as caught:  # noqa: PT011 - the number is checked below
        files.append_rows(str(path), [{"a": "x" * 300}] * 10)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == before


def test_appending_tells_why_it_failed_even_where_nothing_can_be_undone() -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is checked below
        files.append_rows("/dev/full", [1])
    assert caught.value.errno == errno.ENOSPC


def _append_many(path: str, writer: int) -> None:
    for number in range(100):
        files.append_rows(path, [{"writer": writer, "number": number}, {"pad": "x" * 500}])


def test_processes_that_append_at_once_mix_no_lines(tmp_path: Path) -> None:
    path = str(tmp_path / "rows.jsonl")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(path, writer)) for writer in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(DEADLINE_SECONDS)
        assert writer.exitcode == 0
    rows = [json.loads(line) for line in Path(path).read_bytes().splitlines()]
    assert len(rows) == 600
    for number in range(3):
        assert [row["number"] for row in rows if row.get("writer") == number] == list(range(100))


# --- last lines ---------------------------------------------------------------------------------------


def _last_lines(data: bytes, count: int) -> list[bytes]:
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines[max(0, len(lines) - count) :]


@THOROUGH
@given(
    st.lists(st.sampled_from([b"\n", b"a", b"bc", b"\r", b"\n\n", b"d" * 9]), max_size=30), st.integers(0, 12)
)
def test_last_lines_are_those_of_reading_the_whole_file(pieces: list[bytes], count: int) -> None:
    data = b"".join(pieces)
    with tempfile.NamedTemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
        # Small blocks, so that every way a line can lie across their borders comes up.
        patch.setattr(files, "_TAIL_BLOCK_BYTES", 5)
        file.write(data)
        file.flush()
        assert files.tail_lines(file.name, count) == _last_lines(data, count)


@pytest.mark.parametrize("count", [0, 1, 2, 700, 3_000, 10_000])
def test_last_lines_of_a_file_of_many_blocks(tmp_path: Path, count: int) -> None:
    path = tmp_path / "rows.jsonl"
    data = b"".join(b"%d:%s\n" % (number, b"x" * (number % 200)) for number in range(3_000))
    path.write_bytes(data)
    assert files.tail_lines(str(path), count) == _last_lines(data, count)


def test_last_line_costs_no_more_in_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast\n")
    assert files.tail_lines(str(path), 1) == [b"last"]


def test_process_that_was_forked_meanwhile_keeps_nobody_from_appending(tmp_path: Path) -> None:
    """It has all descriptors of its parent, and with one goes its lock."""
    path = str(tmp_path / "rows.jsonl")
    end, other = os.pipe()
    with files.opened_to_append(path):
        child = os.fork()
        if not child:
            os.close(other)
            os.read(end, 1)
            os._exit(0)
    os.close(end)
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
    os.waitpid(child, 0)


# --- locks --------------------------------------------------------------------------------------------

_HOLD = (
    "import sys; from spritemesh.files import locked_directory\n"
    "with locked_directory(sys.argv[1], wait_seconds=0):\n"
    "    print('held', flush=True); sys.stdin.read()\n"
)


@contextmanager
def another_process_holding(directory: Path) -> Iterator["subprocess.Popen[bytes]"]:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield holder
    finally:
        holder.kill()
        holder.wait(DEADLINE_SECONDS)
        for pipe in (holder.stdin, holder.stdout):
            if pipe is not None:
                pipe.close()


def test_lock_held_by_another_process_is_refused_at_the_deadline(tmp_path: Path) -> None:
    with another_process_holding(tmp_path), pytest.raises(OpsError) as caught:
        files.locked_directory(str(tmp_path), wait_seconds=0.05).__enter__()
    assert caught.value.reason == "state_locked"
    assert caught.value.retry_after is not None
    assert str(tmp_path) in caught.value.message


def test_lock_is_got_as_soon_as_the_other_process_lets_go(tmp_path: Path) -> None:
    with another_process_holding(tmp_path) as holder:
        assert holder.stdin is not None
        closing = threading.Timer(0.1, holder.stdin.close)
        closing.start()
        with files.locked_directory(str(tmp_path), wait_seconds=DEADLINE_SECONDS):
            assert holder.wait(DEADLINE_SECONDS) == 0
        closing.join()


def test_lock_dies_with_its_process(tmp_path: Path) -> None:
    with another_process_holding(tmp_path) as holder:
        holder.send_signal(signal.SIGKILL)
        with files.locked_directory(str(tmp_path), wait_seconds=DEADLINE_SECONDS):
            assert os.listdir(tmp_path) == []


def test_lock_is_one_a_directory_even_within_a_process(tmp_path: Path) -> None:
    with files.locked_directory(str(tmp_path / "a"), wait_seconds=0):
        with files.locked_directory(str(tmp_path / "b"), wait_seconds=0):
            pass
        with pytest.raises(OpsError, match="another process"):
            files.locked_directory(str(tmp_path / "a"), wait_seconds=0).__enter__()
    with files.locked_directory(str(tmp_path / "a"), wait_seconds=0):
        pass


def test_lock_is_let_go_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.locked_directory(str(tmp_path), wait_seconds=0):
        raise ZeroDivisionError
    with files.locked_directory(str(tmp_path), wait_seconds=0):
        pass


def test_lock_where_no_directory_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "ops"):
        with pytest.raises(OpsError) as caught:
            files.locked_directory(str(path), wait_seconds=0).__enter__()
        assert caught.value.reason == "state_unwritable"


def test_directory_can_be_synced(tmp_path: Path) -> None:
    files.sync_directory(str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        files.sync_directory(str(tmp_path / "file"))
