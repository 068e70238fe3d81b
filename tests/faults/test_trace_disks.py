"""Trace files that cannot be written now, or not at all: the traced program goes on, and lines that are lost
are counted."""

import fcntl
import os
import time
from pathlib import Path

import pytest

from spritemesh.tracing.tracers import Tracer
from spritemesh.tracing.writing.writer import Writer
from tests.harness.disk import SmallDisk
from tests.harness.traced import Traced, events, told
from tests.harness.waiting import wait_for

# A program that soon has too many lines, and says how long it took to tell them.
_FEW = """\
import sys, time
from spritemesh.tracing import tracer
from spritemesh.tracing.writing import carrier
carrier.MAX_LINES = 100
tracer.configure(enabled=True, output=sys.argv[1])
"""
_TELLS = """
began = time.monotonic()
for number in range(1000):
    tracer.event("sys", "tell", "", number)
print(time.monotonic() - began, flush=True)
sys.stdin.readline()
"""
EVENTS = 1000


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


def lost(writer_events: list[dict[str, object]]) -> int:
    """How many lines were dropped, as lines say."""
    return sum(
        event["metadata"]["dropped"]  # type: ignore[index]
        for event in writer_events
        if event["operation"] == "dropped"
    )


def test_pipe_that_nobody_reads_stops_nobody(trace: Path) -> None:
    os.mkfifo(trace)
    with Traced(trace, _TELLS, beginning=_FEW) as traced:
        assert float(traced.says()) < 2
        traced.tell()
        began = time.monotonic()
        assert traced.wait() == 0
        assert time.monotonic() - began < 1
        (warning,) = traced.errors.splitlines()
    assert warning == f"spritemesh: 1000 trace events are missing in {trace}: No such device or address"


def test_reader_of_a_pipe_gets_the_lines_and_how_many_are_missing(trace: Path, tmp_path: Path) -> None:
    os.mkfifo(trace)
    with Traced(trace, _TELLS, beginning=_FEW) as traced:
        assert float(traced.says()) < 2
        with open(trace, "rb") as reader:
            traced.tell()
            copy = tmp_path / "copy.jsonl"
            copy.write_bytes(reader.read())
        assert traced.wait() == 0
        assert traced.errors.count("trace events are missing") == 1
    found = events(copy)
    assert lost(found) > 0
    assert sum(event["operation"] == "tell" for event in found) + lost(found) == EVENTS


def test_file_that_another_process_holds_stops_nobody(trace: Path) -> None:
    with open(trace, "ab") as holder, Traced(trace, _TELLS, beginning=_FEW) as traced:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert float(traced.says()) < 2
        fcntl.flock(holder, fcntl.LOCK_UN)
        wait_for(lambda: lost(events(trace)), what="lines")
        fcntl.flock(holder, fcntl.LOCK_EX)
        traced.tell()
        assert traced.wait() == 0
        assert traced.errors.count("trace events are missing") == 1
    found = events(trace)
    assert sum(event["operation"] == "tell" for event in found) + lost(found) == EVENTS


def test_end_waits_two_seconds_for_a_file_that_another_process_holds(trace: Path) -> None:
    with open(trace, "ab") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with Traced(trace, _TELLS) as traced:
            traced.says()
            began = time.monotonic()
            traced.tell()
            assert traced.wait() == 0
            assert 1.9 < time.monotonic() - began < 4
            (warning,) = traced.errors.splitlines()
    assert warning.endswith(f"1000 trace events are missing in {trace}: writing took too long")
    assert told(trace) == []


def test_full_device_is_counted(trace: Path) -> None:
    with Traced("/dev/full", _TELLS, beginning=_FEW) as traced:
        assert float(traced.says()) < 2
        traced.tell()
        assert traced.wait() == 0
        (warning,) = traced.errors.splitlines()
    assert warning == "spritemesh: 1000 trace events are missing in /dev/full: No space left on device"


def test_disk_that_fills_up_and_has_room_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spritemesh.tracing.writing.carrier.MAX_LINES", 3)
    with SmallDisk(tmp_path, 256 * 1024) as disk:
        path = tmp_path / "trace.jsonl"
        writer = Writer(str(path), max_bytes=1 << 20)
        writer.put(b'{"n":1,"operation":"tell"}\n')
        assert writer.flush(5)
        disk.fill()
        page = b'{"n":2,"operation":"tell","x":"' + b"x" * 5000 + b'"}\n'
        writer.put(page)
        assert not writer.flush(5)
        for _ in range(5):
            writer.put(page)
        assert writer.dropped == 2
        disk.free()
        assert writer.flush(5)
        assert [event.get("n") for event in events(path)] == [1, 2, 2, 2, 2, None]
        assert lost(events(path)) == 2
        writer.close()
    assert "2 trace events are missing" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("directory", "Is a directory"),
        ("missing/trace.jsonl", "No such file or directory"),
        ("file/trace.jsonl", "Not a directory"),
        ("/sys/kernel/trace.jsonl", "Permission denied"),
    ],
)
def test_output_that_cannot_be_written_is_said_once_and_the_program_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, why: str
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    tracer = Tracer()
    tracer.configure(enabled=True, output=str(tmp_path / place))
    assert not tracer.enabled
    with tracer.span("sys", "go on") as ctx:
        assert not ctx
    (warning,) = capsys.readouterr().err.splitlines()
    assert why in warning
    assert not (tmp_path / "missing").exists()


def test_directory_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    directory = tmp_path / "gone"
    directory.mkdir()
    writer = Writer(str(directory / "trace.jsonl"), max_bytes=1 << 20)
    (directory / "trace.jsonl").unlink()
    directory.rmdir()
    writer.put(b"{}\n")
    assert not writer.flush(5)
    assert not directory.exists()
    directory.mkdir()
    assert writer.flush(5)
    assert (directory / "trace.jsonl").read_bytes() == b"{}\n"
    writer.close()
