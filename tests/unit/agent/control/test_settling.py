"""What a crash or a full disk left is finished by whoever comes next; nothing is run twice."""

import json
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from manager.audit_check import check
from sprite_agent.control import ControlPlane
from sprite_agent.control.ledger import (
    CONFIRMING,
    FINISHED,
    STARTED,
    Entry,
    Ledger,
    baseline_text,
    request_text,
)
from sprite_agent.control.lock import loop_lock
from sprite_agent.control.mark import process_mark
from sprite_agent.control.observation import observe
from sprite_agent.control.record import Caller, caller_text, read_caller
from sprite_agent.provenance import Provenance
from sprite_agent.runtime.layout import agent_directory
from sprite_agent.runtime.loop import LoopReader
from spritemesh import audit
from spritemesh.bridge.control import facts_of_outcome
from spritemesh.bridge.told import told_by_outcome
from spritemesh.control import Confirmation, ControlRequest
from spritemesh.errors import OpsError
from superloop.ops.v1 import control_pb2 as pb
from tests.harness.control import LOOK, Runtime, audit_directory, audit_of, request
from tests.harness.loops import LoopFiles, Repo, event
from tests.harness.waiting import wait_for
from tests.unit.agent.control.conftest import MakePlane

ACTIVE = {"active": True, "current_loop_id": "alpha"}
AMBIGUOUS = pb.CONTROL_STATUS_AMBIGUOUS
CONFIRMED = pb.CONTROL_STATUS_CONFIRMED
KEY = "left"


@pytest.fixture
def ledger(repo: Repo) -> Iterator[Ledger]:
    """The ledger as another process has it."""
    found = Ledger(str(ledger_path(repo)))
    yield found
    found.close()


LEFT_BY = Caller(provenance=Provenance("grpc", address="127.0.0.1:4711"))


def ledger_path(repo: Repo) -> Path:
    return Path(agent_directory(str(repo.root)), "ledger.db")


def begun(asked: ControlRequest) -> pb.ControlOutcome:
    outcome = pb.ControlOutcome(
        loop_id=asked.loop_id,
        intent=pb.CONTROL_INTENT_CANCEL,
        trace_id="t-first",
        idempotency_key=asked.idempotency_key,
        requested_by=asked.requested_by,
        status=AMBIGUOUS,
        command="runtime",
    )
    outcome.started_at.FromSeconds(1_700_000_000)
    return outcome


def leave(
    ledger: Ledger, loop: LoopFiles, asked: ControlRequest, state: int = STARTED, process: str = ""
) -> None:
    """Leave a row behind as a process that died does. process: the mark of its command."""
    outcome = begun(asked)
    if state != STARTED:
        outcome.exit_code, outcome.reason = 0, ""
    reader = LoopReader(str(loop.repo), loop.loop_id)
    ledger.insert(
        Entry(
            key=asked.idempotency_key,
            fingerprint=asked.fingerprint,
            loop_id=asked.loop_id,
            request=request_text(asked),
            caller=caller_text(LEFT_BY),
            baseline=baseline_text(observe(reader)),
            state=state,
            outcome=outcome.SerializeToString(),
            audited=False,
            started_at=1_700_000_000.0,
            finished_at=0.0,
            process=process,
        )
    )
    reader.close()


@contextmanager
def orphan() -> Iterator["subprocess.Popen[bytes]"]:
    """A command whose starter is dead, as far as the ledger tells."""
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            yield process
        finally:
            process.kill()


def refusal(plane: ControlPlane, asked: ControlRequest) -> OpsError:
    with pytest.raises(OpsError) as caught:
        plane.execute(asked)
    return caught.value


@contextmanager
def no_writes(repo: Repo) -> Iterator[None]:
    """A ledger that nobody can write to."""
    connection = sqlite3.connect(ledger_path(repo), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


def test_command_that_may_have_run_is_not_run_again(
    plane: ControlPlane, ledger: Ledger, loop: LoopFiles, runtime: Runtime, repo: Repo
) -> None:
    asked = request(key=KEY, trace_id="t-first")
    leave(ledger, loop, asked)
    assert plane.settle() == 1
    assert plane.settle() == 0
    told = plane.invocation(KEY)
    assert (told.state, told.outcome.reason) == (pb.INVOCATION_STATE_FINISHED, "control_interrupted")
    outcome = plane.execute(asked._replace(trace_id="t-second"))
    assert (outcome.status, outcome.replayed, outcome.trace_id) == (AMBIGUOUS, True, "t-first")
    assert not outcome.HasField("exit_code")
    assert runtime.calls == []
    assert audit_of(repo).of(KEY) == ["ambiguous"] * 3
    assert {row["traceId"] for row in audit_of(repo).intents} == {"t-first"}


@pytest.mark.parametrize("state", [{"active": False}, ACTIVE])
def test_effect_is_looked_for_once_more(
    plane: ControlPlane,
    ledger: Ledger,
    loop: LoopFiles,
    runtime: Runtime,
    repo: Repo,
    state: dict[str, object],
) -> None:
    repo.put("state.json", ACTIVE)
    asked = request(key=KEY, confirmation=Confirmation())
    leave(ledger, loop, asked, CONFIRMING)
    repo.put("state.json", state)
    outcome = plane.execute(asked)
    assert outcome.replayed
    assert (outcome.confirmation.attempts, outcome.confirmation.timeout.ToSeconds()) == (1, 30)
    if state is ACTIVE:
        assert (outcome.status, outcome.reason) == (AMBIGUOUS, "control_ambiguous")
    else:
        assert (outcome.status, outcome.reason) == (CONFIRMED, "")
        assert (outcome.effect.state.before, outcome.effect.state.after) == ("true", "false")
    assert runtime.calls == []


def test_next_request_of_the_loop_finishes_what_was_left(
    plane: ControlPlane, ledger: Ledger, loop: LoopFiles, runtime: Runtime, repo: Repo
) -> None:
    leave(ledger, loop, request(key=KEY))
    assert plane.execute(request(key="next")).exit_code == 0
    assert len(runtime.calls) == 1
    assert audit_of(repo).of(KEY) == ["ambiguous"] * 3
    assert [row["idempotencyKey"] for row in audit_of(repo).intents] == [KEY, "next"]


def test_what_somebody_works_on_is_left_alone(
    plane: ControlPlane, ledger: Ledger, loop: LoopFiles, repo: Repo
) -> None:
    leave(ledger, loop, request(key=KEY))
    locks = os.path.join(agent_directory(str(repo.root)), "locks")
    with loop_lock(locks, "alpha") as held:
        assert held
        assert plane.settle() == 0
        told = plane.invocation(KEY)
        assert told.state == pb.INVOCATION_STATE_STARTED
        assert refusal(plane, request(key="next")).reason == "control_in_progress"
    assert plane.settle() == 1


def test_command_that_outlived_its_starter_keeps_its_loop(
    plane: ControlPlane, ledger: Ledger, loop: LoopFiles, runtime: Runtime, repo: Repo
) -> None:
    repo.loop("beta")
    with orphan() as process:
        leave(ledger, loop, request(key=KEY), process=process_mark(process.pid))
        assert plane.settle() == 0
        assert plane.has_left()
        error = refusal(plane, request(key="next"))
        assert error.reason == "control_in_progress"
        assert str(process.pid) in error.message
        told = plane.invocation(KEY)
        assert (told.state, told.outcome.reason) == (pb.INVOCATION_STATE_STARTED, "")
        assert plane.execute(request(loop_id="beta")).exit_code == 0
    assert not plane.has_left()
    assert plane.execute(request(key="next")).exit_code == 0
    assert plane.invocation(KEY).outcome.reason == "control_interrupted"
    assert len(runtime.calls) == 2


def test_same_request_waits_for_a_command_that_outlived_its_starter(
    plane: ControlPlane, ledger: Ledger, loop: LoopFiles, runtime: Runtime
) -> None:
    asked = request(key=KEY)
    with orphan() as process, ThreadPoolExecutor(1) as pool:
        leave(ledger, loop, asked, process=process_mark(process.pid))
        joined = pool.submit(plane.execute, asked)
        # Nor do others, who look at the loop meanwhile, make it give up.
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            assert plane.settle() == 0
            assert not joined.done()
        process.kill()
        outcome = joined.result()
    assert (outcome.status, outcome.reason, outcome.replayed) == (AMBIGUOUS, "control_interrupted", True)
    assert runtime.calls == []


def test_same_request_does_not_wait_for_ever(
    make_plane: MakePlane, ledger: Ledger, loop: LoopFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sprite_agent.control.plane._WAIT_MARGIN_SECONDS", 0.1)
    with orphan() as process:
        leave(ledger, loop, request(key=KEY), process=process_mark(process.pid))
        error = refusal(make_plane(runtime_timeout=0.1), request(key=KEY))
    assert error.reason == "control_in_progress"


def test_later_process_with_the_same_number_is_another(
    plane: ControlPlane, ledger: Ledger, loop: LoopFiles
) -> None:
    with orphan() as process:
        leave(ledger, loop, request(key=KEY), process=process_mark(process.pid) + "0")
        assert plane.settle() == 1


def test_rows_that_are_written_already_are_not_written_again(
    plane: ControlPlane, ledger: Ledger, loop: LoopFiles, repo: Repo
) -> None:
    asked = request(key=KEY, trace_id="t-first")
    leave(ledger, loop, asked, CONFIRMING)
    outcome = begun(asked)
    outcome.status, outcome.reason = pb.CONTROL_STATUS_EXECUTED_UNCONFIRMED, ""
    outcome.finished_at.FromSeconds(1_700_000_001)
    ledger.update(outcome, FINISHED)
    files = audit.audit_files(str(audit_directory(repo)))
    audit.record(files, told_by_outcome(outcome), facts_of_outcome(outcome, asked.confirmation))
    Path(files.invocations).unlink()
    assert plane.settle() == 1
    assert audit_of(repo).of(KEY) == ["executed_unconfirmed"] * 3


@pytest.mark.parametrize("has_line", [False, True])
def test_who_connected_outlives_the_process_that_let_them_in(
    plane: ControlPlane, ledger: Ledger, loop: LoopFiles, repo: Repo, has_line: bool
) -> None:
    """It died before the audit, or between the line of the audit and its row in the chain."""
    asked = request(key=KEY, trace_id="t-first")
    leave(ledger, loop, asked)
    paths = audit.audit_files(str(audit_directory(repo)))
    if has_line:
        outcome = begun(asked)
        outcome.finished_at.FromSeconds(1_700_000_001)
        audit.record(paths, told_by_outcome(outcome), facts_of_outcome(outcome, asked.confirmation))
        for path in paths.chained[1:]:
            Path(path).unlink()
    assert plane.settle() == 1
    [row] = [json.loads(line) for line in Path(paths.chained.chain).read_text().splitlines()]
    assert row["origin"] == "recorded"
    assert row["connected"] == {"edge": "grpc", "address": "127.0.0.1:4711"}
    found = check(paths.chained)
    assert (found.lines, found.chained, found.fault) == (1, 1, None)


def test_key_of_what_never_ran_is_given_back_after_a_crash(
    plane: ControlPlane, ledger: Ledger, loop: LoopFiles, runtime: Runtime
) -> None:
    asked = request(key=KEY)
    leave(ledger, loop, asked)
    outcome = begun(asked)
    outcome.status, outcome.reason = pb.CONTROL_STATUS_FAILED_COMMAND, "runtime_not_found"
    ledger.update(outcome, FINISHED)
    assert not plane.execute(asked).replayed
    assert len(runtime.calls) == 1


def test_damaged_row_stops_control_of_its_loop_and_no_other(
    plane: ControlPlane, ledger: Ledger, loop: LoopFiles, runtime: Runtime, repo: Repo
) -> None:
    repo.loop("beta")
    leave(ledger, loop, request(key=KEY))
    with sqlite3.connect(ledger_path(repo)) as connection:
        connection.execute("UPDATE invocations SET outcome = x'ffff'")
    connection.close()
    assert plane.settle() == 0
    assert refusal(plane, request()).reason == "ledger_corrupt"
    assert plane.execute(request(loop_id="beta")).exit_code == 0
    assert len(runtime.calls) == 1


@pytest.mark.parametrize(
    "name", ["intents.jsonl", "telemetry/control.jsonl", "telemetry/control-invocations.jsonl"]
)
def test_nothing_is_run_that_cannot_be_audited(
    plane: ControlPlane, repo: Repo, runtime: Runtime, name: str
) -> None:
    path = audit_directory(repo) / name
    path.mkdir(parents=True)
    error = refusal(plane, request(key=KEY))
    assert error.reason == "audit_unavailable"
    assert "nothing was run" in error.message
    assert runtime.calls == []
    path.rmdir()
    assert not plane.execute(request(key=KEY)).replayed


def test_audit_that_fails_after_the_command_is_made_good_by_a_repetition(
    plane: ControlPlane, repo: Repo, runtime: Runtime
) -> None:
    telemetry = audit_directory(repo) / "telemetry"
    telemetry.mkdir(parents=True)
    runtime.does(f"mv '{telemetry}' '{telemetry}-away'; : > '{telemetry}'")
    asked = request(key=KEY, confirmation=LOOK)
    error = refusal(plane, asked)
    assert error.reason == "audit_unavailable"
    assert "confirmed" in error.message
    assert refusal(plane, asked).reason == "audit_unavailable"
    telemetry.unlink()
    outcome = plane.execute(asked)
    assert (outcome.status, outcome.replayed) == (CONFIRMED, True)
    assert len(runtime.calls) == 1
    assert audit_of(repo).of(KEY) == ["confirmed"] * 3


def test_ledger_that_fails_after_the_command_does_not_hide_the_outcome(
    make_plane: MakePlane, repo: Repo, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sprite_agent.control.ledger._BUSY_SECONDS", 0.05)
    plane = make_plane()
    asked = request(key=KEY, confirmation=LOOK)
    runtime.does(runtime.waits())
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(plane.execute, asked)
        runtime.wait_until_it_runs()
        with no_writes(repo):
            runtime.go()
            with pytest.raises(OpsError) as caught:
                under_way.result()
    assert caught.value.reason == "audit_unavailable"
    assert f"the request with key {KEY} was run and ended: confirmed, exit code 0" in caught.value.message
    assert "nothing" not in caught.value.message
    # No refusal is among the rows.
    assert audit_of(repo).of(KEY) == ["confirmed"] * 3
    # Who was there still knows.
    again = plane.execute(asked)
    assert (again.status, again.replayed) == (CONFIRMED, True)
    assert audit_of(repo).of(KEY) == ["confirmed"] * 3
    assert len(runtime.calls) == 1


def test_ledger_that_failed_after_the_command_leaves_doubt_to_others(
    make_plane: MakePlane, repo: Repo, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sprite_agent.control.ledger._BUSY_SECONDS", 0.05)
    plane = make_plane()
    asked = request(key=KEY)
    runtime.does(runtime.waits())
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(plane.execute, asked)
        runtime.wait_until_it_runs()
        with no_writes(repo):
            runtime.go()
            with pytest.raises(OpsError, match="was run and ended: executed_unconfirmed"):
                under_way.result()
    outcome = make_plane().execute(asked)
    assert (outcome.status, outcome.reason, outcome.replayed) == (AMBIGUOUS, "control_interrupted", True)
    assert len(runtime.calls) == 1


# An interrupt may fall between the opening of a file and the block that closes it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("begins", ["the command", "the confirmation"])
def test_operator_who_ends_it_leaves_the_truth_on_record(
    plane: ControlPlane, runtime: Runtime, repo: Repo, begins: str
) -> None:
    repo.put("state.json", ACTIVE)
    if begins == "the command":
        runtime.does(runtime.waits())
    asked = request(key=KEY, confirmation=Confirmation())

    def interrupt() -> None:
        state = {"the command": pb.INVOCATION_STATE_STARTED}.get(begins, pb.INVOCATION_STATE_CONFIRMING)
        wait_for(lambda: runtime.calls and plane.invocation(KEY).state == state, what=begins)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        plane.execute(asked)
    interrupter.join()
    runtime.go()
    assert audit_of(repo).of(KEY) == ["ambiguous"] * 3
    outcome = plane.execute(asked)
    assert (outcome.status, outcome.replayed) == (AMBIGUOUS, True)
    assert outcome.reason == ("control_interrupted" if begins == "the command" else "control_ambiguous")
    assert len(runtime.calls) == 1


def test_effect_after_a_crash_is_the_event_that_came(
    plane: ControlPlane, ledger: Ledger, loop: LoopFiles, runtime: Runtime
) -> None:
    asked = request("approve", key=KEY, confirmation=Confirmation())
    leave(ledger, loop, asked, CONFIRMING)
    loop.append(event(2) + event(3, "loop_complete"))
    outcome = plane.execute(asked)
    assert (outcome.status, outcome.effect.event.position.line) == (CONFIRMED, 3)
    assert runtime.calls == []


@pytest.mark.parametrize("more", [[], ["http"], [True, "http"]])
def test_caller_that_another_version_wrote_is_understood(more: list[object]) -> None:
    caller = Caller("sprite_service", 7, 4, "shown", audit_replays=True, provenance=Provenance(""))
    assert read_caller(json.dumps([*caller[:5], *more])) == caller


def test_caller_is_kept_with_who_connected() -> None:
    provenance = Provenance("grpc", "0123456789ab", "k1", ("spiffe://mesh/ops", "ops"), "127.0.0.1:4711")
    caller = Caller("sprite_service", 7, 4, "shown", audit_replays=True, provenance=provenance)
    assert read_caller(caller_text(caller)) == caller
