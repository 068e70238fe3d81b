"""spritemesh.tracing.writing.writer: lines reach their file, and people what they are to see."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from spritemesh.tracing.reading.records import facts_of
from spritemesh.tracing.writing import carrier
from spritemesh.tracing.writing.writer import Writer
from tests.harness.traced import events

MIB = 1 << 20


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def writer_at(path: Path | str, stack: ExitStack, *, max_bytes: int = MIB, keep: int = 4) -> Writer:
    made = Writer(str(path), max_bytes=max_bytes, keep=keep)
    stack.callback(made.close)
    return made


def test_lines_go_behind_those_that_are_there(tmp_path: Path, stack: ExitStack) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(b'{"n":1}\n')
    writer = writer_at(path, stack)
    writer.put(b'{"n":2}\n')
    assert writer.flush(5)
    assert path.read_bytes() == b'{"n":1}\n{"n":2}\n'


def test_torn_last_line_stays_alone(tmp_path: Path, stack: ExitStack) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(b'{"n":')
    writer = writer_at(path, stack)
    writer.put(b'{"n":2}\n')
    assert writer.flush(5)
    assert path.read_bytes() == b'{"n":\n{"n":2}\n'


def test_file_is_there_from_the_beginning_and_its_owners_alone(tmp_path: Path, stack: ExitStack) -> None:
    path = tmp_path / "trace.jsonl"
    mask = os.umask(0)
    stack.callback(os.umask, mask)
    writer_at(path, stack)
    assert path.stat().st_mode & 0o777 == 0o600


def test_large_file_moves_aside_and_the_oldest_goes(tmp_path: Path, stack: ExitStack) -> None:
    path = tmp_path / "trace.jsonl"
    writer = writer_at(path, stack, max_bytes=30, keep=2)
    for number in range(12):
        writer.put(b'{"number":%d}\n' % number)
        assert writer.flush(5)
    assert sorted(os.listdir(tmp_path)) == ["trace.jsonl", "trace.jsonl.1", "trace.jsonl.2"]
    assert [event["number"] for event in events(path)] == list(range(12))[-len(events(path)) :]
    assert len(events(path)) >= 5


def test_program_that_goes_elsewhere_writes_on_where_it_began(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    writer = writer_at("trace.jsonl", stack)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    writer.put(b"{}\n")
    assert writer.flush(5)
    assert (tmp_path / "trace.jsonl").read_bytes() == b"{}\n"


def test_file_that_is_removed_is_made_again(tmp_path: Path, stack: ExitStack) -> None:
    path = tmp_path / "trace.jsonl"
    writer = writer_at(path, stack)
    path.unlink()
    writer.put(b"{}\n")
    assert writer.flush(5)
    assert path.read_bytes() == b"{}\n"


def test_program_that_closes_its_descriptors_loses_nothing(tmp_path: Path, stack: ExitStack) -> None:
    """As daemons do; what then has the number of ours gets none of our lines."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    stack.callback(os.close, reader)
    writer = writer_at(pipe, stack)
    before = _descriptors()
    writer.put(b"one\n")
    assert writer.flush(5)
    (ours,) = _descriptors() - before
    os.close(ours)
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    stack.callback(os.close, other)
    assert other == ours
    writer.put(b"two\n")
    assert writer.flush(5)
    assert os.read(reader, 100) == b"one\ntwo\n"
    assert (tmp_path / "other").read_bytes() == b""


def test_reader_of_a_pipe_that_goes_is_waited_for(tmp_path: Path, stack: ExitStack) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = writer_at(pipe, stack)
    writer.put(b"before\n")
    assert not writer.flush(5)
    for expected in (b"before\n", b"between\n"):
        with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as reader:
            assert writer.flush(5)
            assert reader.read(100) == expected
        writer.put(b"between\n")
        assert not writer.flush(5)


def test_devices_are_written_and_never_moved(stack: ExitStack) -> None:
    writer = writer_at("/dev/null", stack, max_bytes=1)
    for _ in range(3):
        writer.put(b"{}\n")
        assert writer.flush(5)
    assert not os.path.exists("/dev/null.1")


def test_standard_output_may_be_the_file(
    tmp_path: Path, stack: ExitStack, capfd: pytest.CaptureFixture[str]
) -> None:
    writer = writer_at("/dev/stdout", stack, max_bytes=1)
    for number in range(3):
        writer.put(b"%d\n" % number)
        assert writer.flush(5)
    assert capfd.readouterr().out == "0\n1\n2\n"


def test_lines_that_were_dropped_are_told_in_the_file_and_at_the_end(
    tmp_path: Path, stack: ExitStack, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier, "MAX_LINES", 2)
    path = tmp_path / "trace.jsonl"
    writer = writer_at(path, stack)
    path.unlink()
    path.mkdir()
    for _ in range(5):
        writer.put(b"{}\n")
    assert not writer.flush(5)
    assert writer.dropped >= 2
    path.rmdir()
    assert writer.flush(5)
    lines = path.read_bytes().splitlines()
    (told,) = [line for line in lines if line != b"{}"]
    record = facts_of(told)
    assert (record.hrm_layer, record.operation, record.parent_id) == ("system", "dropped", None)
    assert json.loads(told)["metadata"]["dropped"] == writer.dropped == 5 - lines.count(b"{}")
    writer.close()
    writer.close()
    (warning,) = capfd.readouterr().err.splitlines()
    assert warning.startswith(f"spritemesh: {writer.dropped} trace events are missing in {path}")


def test_warning_names_what_kept_lines_from_being_written_and_comes_again_for_more(
    tmp_path: Path, stack: ExitStack, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier, "MAX_LINES", 2)
    path = tmp_path / "trace.jsonl"
    writer = writer_at(path, stack)
    path.unlink()
    path.mkdir()
    writer.put(b"{}\n")
    assert not writer.flush(5)
    for _ in range(3):
        writer.put(b"{}\n")
    path.rmdir()
    assert writer.flush(5)
    lost = writer.dropped
    for _ in range(2):
        writer.finish(5)
    path.unlink()
    path.mkdir()
    writer.put(b"{}\n")
    writer.finish(5)
    path.rmdir()
    warnings = capfd.readouterr().err.splitlines()
    assert warnings == [
        f"spritemesh: {count} trace events are missing in {path}: Is a directory"
        for count in (lost, lost + 1)
    ]


def test_texts_are_shown_in_order(
    tmp_path: Path, stack: ExitStack, capfd: pytest.CaptureFixture[str]
) -> None:
    writer = writer_at(tmp_path / "trace.jsonl", stack)
    for number in range(100):
        writer.show(f"→ {number} \udc80")
    assert writer.flush(5)
    assert capfd.readouterr().err.splitlines() == [f"→ {number} ?" for number in range(100)]


def test_terminal_that_nobody_reads_keeps_no_line_from_the_file(tmp_path: Path, stack: ExitStack) -> None:
    reader, end = os.pipe()
    screen = stack.enter_context(os.fdopen(end, "w"))
    writer = Writer(str(tmp_path / "trace.jsonl"), max_bytes=MIB, console=screen)
    stack.callback(writer.close)
    for _ in range(3000):
        writer.show("x" * 100)
    writer.put(b"{}\n")
    assert not writer.flush(0.2)
    assert (tmp_path / "trace.jsonl").read_bytes() == b"{}\n"
    # Nobody is there any more: that is no reason to stop.
    os.close(reader)
    assert writer.flush(5)


def _descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}
