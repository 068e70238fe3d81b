"""ControlPlane among many who ask at once: who waits, who is refused, and what is left open."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sprite_agent.control import ControlPlane
from sprite_agent.control import execution as executions
from sprite_agent.control.lock import key_lock, loop_lock
from sprite_agent.runtime.layout import agent_directory
from spritemesh import audit
from spritemesh.control import Confirmation
from spritemesh.errors import OpsError
from superloop.ops.v1 import control_pb2 as pb
from tests.harness.control import LOOK, Runtime, audit_of, request
from tests.harness.loops import LoopFiles, Repo
from tests.harness.waiting import wait_for
from tests.unit.agent.control.conftest import MakePlane

ASK = """
import sys
from sprite_agent.control import ControlPlane
from sprite_agent.runtime.repository import Repository
from spritemesh.control import Confirmation
from tests.harness.control import request
plane = ControlPlane(Repository(sys.argv[1]), runtime=sys.argv[2])
plane.execute(request(key="key", confirmation=Confirmation(timeout_seconds=30)))
"""
ACTIVE = {"active": True, "current_loop_id": "alpha"}


def locks(repo: Repo) -> str:
    return os.path.join(agent_directory(str(repo.root)), "locks")


def test_request_waits_while_its_own_key_is_being_claimed(
    plane: ControlPlane, repo: Repo, runtime: Runtime
) -> None:
    """However long that takes: another process may be slow, or its disk."""
    with ThreadPoolExecutor(1) as pool:
        with key_lock(locks(repo), "key"), loop_lock(locks(repo), "alpha"):
            waiting = pool.submit(plane.execute, request(key="key"))
            with pytest.raises(TimeoutError):
                waiting.result(0.6)
        # Whoever claimed it was refused in the end, and recorded nothing.
        assert not waiting.result().replayed
    assert len(runtime.calls) == 1


def test_all_who_wait_for_a_refused_request_are_refused_themselves(
    make_plane: MakePlane, repo: Repo, runtime: Runtime
) -> None:
    made = [make_plane(), make_plane()]

    def ask(number: int) -> str:
        try:
            made[number % 2].execute(request("approve", key="key"))
        except OpsError as error:
            return error.reason
        return ""

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {"nothing_pending"}
    assert runtime.calls == []
    assert audit_of(repo).of("key") == ["refused"] * 8


def test_waiting_for_a_key_ends_when_another_request_takes_it(
    make_plane: MakePlane, repo: Repo, runtime: Runtime
) -> None:
    runtime.does(runtime.waits())
    plane, other = make_plane(), make_plane()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(plane.execute, request(key="key"))
        runtime.wait_until_it_runs()
        with pytest.raises(OpsError) as caught:
            other.execute(request(key="key", note="another"))
        assert caught.value.reason == "idempotency_key_conflict"
        runtime.go()
        assert not first.result().replayed


def test_key_of_another_loop_is_a_conflict(plane: ControlPlane, repo: Repo, runtime: Runtime) -> None:
    repo.loop("beta")
    plane.execute(request(key="key"))
    with pytest.raises(OpsError) as caught:
        plane.execute(request(key="key", loop_id="beta"))
    assert caught.value.reason == "idempotency_key_conflict"
    assert len(runtime.calls) == 1


def test_absent_program_answers_all_who_wait(make_plane: MakePlane, tmp_path: Path, repo: Repo) -> None:
    plane = make_plane(runtime=str(tmp_path / "absent"))
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: plane.execute(request(key="key")), range(8)))
    assert {outcome.reason for outcome in outcomes} == {"runtime_not_found"}
    with pytest.raises(OpsError):
        plane.invocation("key")


def test_loop_that_is_settled_at_the_moment_is_waited_for(
    plane: ControlPlane, repo: Repo, runtime: Runtime
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with loop_lock(locks(repo), "alpha") as held:
            assert held
            waiting = pool.submit(plane.execute, request(key="key"))
            with pytest.raises(TimeoutError):
                waiting.result(0.05)
        assert waiting.result().exit_code == 0


def test_nothing_stays_open(plane: ControlPlane, runtime: Runtime, repo: Repo) -> None:
    def ask(number: int) -> None:
        confirmation = LOOK if number % 2 else Confirmation(skip=True)
        plane.execute(request(key=f"key-{number}", confirmation=confirmation))

    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    for number in range(4):
        ask(number)
    before = opened(), threading.active_count()
    for number in range(4, 64):
        ask(number)
    assert (opened(), threading.active_count()) == before
    assert [name for name in os.listdir(locks(repo)) if name.startswith("key-")] == []


def test_reads_at_the_same_time_disturb_nobody(
    make_plane: MakePlane, loop: LoopFiles, runtime: Runtime
) -> None:
    plane = make_plane()
    reader = plane._executor._repository.loop("alpha")
    runtime.does(runtime.logs(loop, "approval_decision", status="rejected"))
    stop = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        while not stop.is_set():
            try:
                reader.snapshot(pass_invalid_lines=True)
            except BaseException as error:
                failures.append(error)
                return

    with ThreadPoolExecutor(2) as pool:
        pool.submit(read)
        pool.submit(read)
        for number in range(5):
            asked = request("reject", key=f"r-{number}", even_if_nothing_pending=True, confirmation=LOOK)
            outcome = plane.execute(asked)
            assert outcome.effect.event.position.line == number + 2
        stop.set()
    assert failures == []


def test_time_that_goes_backwards_is_no_fault(make_plane: MakePlane, repo: Repo) -> None:
    times = iter(range(1_700_000_000, 0, -1000))
    plane = make_plane(clock=lambda: float(next(times)))
    outcome = plane.execute(request(key="key", confirmation=LOOK))
    assert outcome.finished_at.ToSeconds() < outcome.started_at.ToSeconds()
    assert plane.execute(request(key="key", confirmation=LOOK)).replayed
    assert [row["durationSeconds"] for row in audit_of(repo).control] == [0]


def test_interrupted_confirmation_is_told_as_far_as_it_came(repo: Repo, runtime: Runtime) -> None:
    """Ctrl-C at a terminal: what ran is on record at once."""
    repo.put("state.json", ACTIVE)
    with subprocess.Popen(
        [sys.executable, "-c", ASK, str(repo.root), str(runtime.path)], stderr=subprocess.PIPE
    ) as asking:
        wait_for(lambda: runtime.calls, what="the command to run")
        wait_for(lambda: b"inotify" in _links(asking.pid), what="the confirmation to begin")
        asking.send_signal(signal.SIGINT)
        asking.wait(10)
    assert asking.returncode not in {0, None}
    assert audit_of(repo).of("key") == ["ambiguous"] * 3


def test_interrupted_command_is_ended_and_told(repo: Repo, runtime: Runtime) -> None:
    runtime.does(f"echo $$ > '{runtime.file('pid')}'", runtime.waits())
    with subprocess.Popen(
        [sys.executable, "-c", ASK, str(repo.root), str(runtime.path)], stderr=subprocess.PIPE
    ) as asking:
        runtime.wait_until_it_runs()
        # It may still be busy with the start of what runs already.
        wait_for(lambda: b"pidfd" in _links(asking.pid), what="it to follow the command")
        asking.send_signal(signal.SIGINT)
        asking.wait(10)
    pid = int(runtime.file("pid").read_text())
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), what="the command to end")
    assert audit_of(repo).of("key") == ["ambiguous"] * 3
    assert audit_of(repo).invocations[0]["execution"]["reasonCode"] == "control_interrupted"


def test_record_that_fails_after_the_run_frees_no_key(
    plane: ControlPlane, repo: Repo, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of ours in the middle: the row stays, and tells."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(executions, "run", fail)
        with pytest.raises(RuntimeError):
            plane.execute(request(key="key"))
    outcome = plane.execute(request(key="key"))
    assert (outcome.reason, outcome.replayed) == ("control_interrupted", True)
    assert runtime.calls == []


def test_audit_rows_of_one_request_are_written_under_a_lock_of_their_file(
    plane: ControlPlane, repo: Repo
) -> None:
    plane.execute(request(key="before"))
    path = audit.audit_files(str(repo.root / ".superloop" / "ops-manager" / "alpha")).intents
    with ThreadPoolExecutor(1) as pool, open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = pool.submit(plane.execute, request(key="key"))
        wait_for(lambda: _state(plane, "key") == pb.INVOCATION_STATE_FINISHED)
        assert not waiting.done()
        fcntl.flock(file, fcntl.LOCK_UN)
        assert waiting.result().exit_code == 0


def test_plane_may_be_stopped_and_closed_in_any_order(make_plane: MakePlane) -> None:
    plane = make_plane()
    plane.close()
    plane.stop()
    plane.stop()
    plane.close()
    with pytest.raises(OpsError) as caught:
        plane.execute(request())
    assert caught.value.reason == "agent_draining"


def _state(plane: ControlPlane, key: str) -> int:
    try:
        return plane.invocation(key).state
    except OpsError:
        return 0


def _links(pid: int) -> bytes:
    """What a process has open."""
    directory, found = f"/proc/{pid}/fd", b""
    for name in os.listdir(directory):
        try:
            found += os.readlink(os.path.join(directory, name)).encode()
        except OSError:
            time.sleep(0)
    return found
