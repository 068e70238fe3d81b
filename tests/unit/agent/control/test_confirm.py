"""Looking for an effect: how often, how long, and what is told of it (contract E.3)."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from sprite_agent.control.confirm import ChangeWait, StopSignal, confirm
from sprite_agent.control.observation import Observation, observe
from sprite_agent.runtime.loop import LoopReader
from sprite_agent.runtime.watch import loop_directories
from spritemesh.errors import OpsError
from superloop.ops.v1 import control_pb2 as pb
from tests.harness.loops import LoopFiles, Repo, event

ACTIVE = {"active": True, "current_loop_id": "alpha"}


@pytest.fixture
def reader(loop: LoopFiles) -> Iterator[LoopReader]:
    loop.append(event(1))
    found = LoopReader(str(loop.repo), loop.loop_id)
    yield found
    found.close()


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    found = StopSignal()
    yield found
    found.close()


class Waits:
    """Waits of no length; notes how long each would have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        return True


def test_loop_that_is_as_wanted_is_looked_at_once(reader: LoopReader) -> None:
    result, seen = confirm(
        "cancel", lambda: observe(reader), timeout_seconds=30, interval_seconds=2, clock=lambda: 1_700_000_000
    )
    assert result == pb.ControlConfirmation(
        confirmed=True,
        reason="inactive_not_running",
        attempts=1,
        timeout=Duration(seconds=30),
        observed_status="unknown",
        observed_last_event="role_end",
        observed_active=False,
        observed_at="2023-11-14T22:13:20Z",
    )
    assert seen is not None


def test_no_time_is_one_look(reader: LoopReader, repo: Repo) -> None:
    repo.put("state.json", ACTIVE)
    waits = Waits()
    result, _ = confirm("cancel", lambda: observe(reader), timeout_seconds=0, interval_seconds=1, wait=waits)
    assert (result.confirmed, result.reason, result.attempts) == (False, "timeout", 1)
    assert (result.observed_status, result.observed_active) == ("running", True)
    assert waits.seconds == []


def test_look_that_fails_counts_and_tells_nothing(reader: LoopReader, loop: LoopFiles) -> None:
    loop.directory.joinpath("approval.json").write_text("torn {")
    result, seen = confirm("cancel", lambda: observe(reader), timeout_seconds=0, interval_seconds=1)
    assert (result.confirmed, result.attempts, result.observed_status) == (False, 1, "unknown")
    assert not result.HasField("observed_last_event")
    assert not result.HasField("observed_approval_status")
    assert seen is None


def test_what_was_seen_before_a_look_that_fails_is_kept(reader: LoopReader) -> None:
    looks = iter([observe(reader)])

    def look() -> Observation:
        found = next(looks, None)
        if found is None:
            raise OpsError("artifact_invalid", "torn")
        return found

    result, seen = confirm("approve", look, timeout_seconds=0.12, interval_seconds=0.05)
    assert result.attempts > 1
    assert result.observed_last_event == "role_end"
    assert seen is not None


def test_interval_of_zero_is_a_second(reader: LoopReader, repo: Repo) -> None:
    repo.put("state.json", ACTIVE)
    waits = Waits()

    def look() -> Observation:
        if len(waits.seconds) == 3:
            repo.put("state.json", {})
        return observe(reader)

    result, _ = confirm("cancel", look, timeout_seconds=60, interval_seconds=0, wait=waits)
    assert (result.confirmed, result.attempts) == (True, 4)
    assert waits.seconds == [1.0, 1.0, 1.0]


def test_interval_has_a_floor(reader: LoopReader, repo: Repo) -> None:
    repo.put("state.json", ACTIVE)
    waits = Waits()

    def look() -> Observation:
        if waits.seconds:
            repo.put("state.json", {})
        return observe(reader)

    confirm("cancel", look, timeout_seconds=60, interval_seconds=0.001, wait=waits)
    assert waits.seconds == [0.05]


def test_wait_is_no_longer_than_the_time_that_is_left(reader: LoopReader, repo: Repo) -> None:
    repo.put("state.json", ACTIVE)
    started = time.monotonic()
    result, _ = confirm("cancel", lambda: observe(reader), timeout_seconds=0.05, interval_seconds=60)
    assert (result.confirmed, result.attempts) == (False, 2)
    assert time.monotonic() - started < 5


def test_change_of_a_file_is_seen_at_once(reader: LoopReader, repo: Repo, stop: StopSignal) -> None:
    repo.put("state.json", ACTIVE)
    with ChangeWait(loop_directories(reader.repo, reader.paths.directory), stop.fileno()) as wait:
        threading.Timer(0.1, repo.put, ("state.json", {"active": False})).start()
        started = time.monotonic()
        result, _ = confirm(
            "cancel", lambda: observe(reader), timeout_seconds=60, interval_seconds=30, wait=wait
        )
    assert result.confirmed
    assert time.monotonic() - started < 5


def test_wait_ends_when_it_is_told_to(reader: LoopReader, repo: Repo, stop: StopSignal) -> None:
    repo.put("state.json", ACTIVE)
    with ChangeWait(loop_directories(reader.repo, reader.paths.directory), stop.fileno()) as wait:
        threading.Timer(0.1, stop.set).start()
        result, _ = confirm(
            "cancel", lambda: observe(reader), timeout_seconds=60, interval_seconds=30, wait=wait
        )
    assert (result.confirmed, result.attempts) == (False, 1)


def test_directories_that_are_missing_are_no_fault(tmp_path: Path) -> None:
    with ChangeWait((str(tmp_path / "missing"),)) as wait:
        assert wait(0.01)
        (tmp_path / "missing").mkdir()
        assert wait(0.01)


def test_changes_without_pause_do_not_make_it_look_without_pause(tmp_path: Path) -> None:
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            (tmp_path / "file").write_text("x")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        started, looks = time.monotonic(), 0
        with ChangeWait((str(tmp_path),)) as wait:
            while time.monotonic() - started < 0.2:
                wait(1.0)
                looks += 1
    finally:
        done.set()
        writer.join()
    assert 1 <= looks <= 15
