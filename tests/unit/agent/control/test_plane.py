"""ControlPlane: one execution of a request, whoever asks and how often, and what it answers."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sprite_agent.control import Caller, ControlPlane
from sprite_agent.control import plane as planes
from sprite_agent.provenance import Provenance
from spritemesh import audit, traceindex
from spritemesh.control import Confirmation, ControlRequest
from spritemesh.errors import OpsError
from superloop.ops.v1 import control_pb2 as pb
from tests.harness.control import (
    LOOK,
    Runtime,
    audit_directory,
    audit_of,
    refusals_of,
    refusals_path,
    request,
)
from tests.harness.loops import LoopFiles, Repo
from tests.harness.waiting import wait_for
from tests.unit.agent.control.conftest import MakePlane

ACTIVE = {"active": True, "current_loop_id": "alpha"}
CONFIRMED = pb.CONTROL_STATUS_CONFIRMED
UNCONFIRMED = pb.CONTROL_STATUS_EXECUTED_UNCONFIRMED
AMBIGUOUS = pb.CONTROL_STATUS_AMBIGUOUS
FAILED = pb.CONTROL_STATUS_FAILED_COMMAND

ASK_IN_A_PROCESS = """
import sys
from sprite_agent.control import ControlPlane
from sprite_agent.runtime.repository import Repository
from tests.harness.control import SKIP, request
plane = ControlPlane(Repository(sys.argv[1]), runtime=sys.argv[2])
print(plane.execute(request(key="shared", confirmation=SKIP)).replayed)
plane.close()
"""


def refusal(plane: ControlPlane, asked: ControlRequest, caller: Caller | None = None) -> OpsError:
    with pytest.raises(OpsError) as caught:
        plane.execute(asked, caller)
    return caught.value


def test_confirmed_request_is_told_audited_and_traced(
    plane: ControlPlane, repo: Repo, runtime: Runtime
) -> None:
    repo.put("state.json", ACTIVE)
    state = repo.root / ".superloop" / "state.json"
    runtime.does("echo cancelled", runtime.puts(state, {"active": False}))
    asked = request(key="key", note="why", trace_id="t-1", confirmation=Confirmation())
    outcome = plane.execute(asked)
    assert (outcome.status, outcome.reason, outcome.exit_code) == (CONFIRMED, "", 0)
    assert (outcome.output_tail, outcome.output_truncated, outcome.replayed) == ("cancelled", False, False)
    assert (outcome.loop_id, outcome.intent) == ("alpha", pb.CONTROL_INTENT_CANCEL)
    assert (outcome.requested_by, outcome.note, outcome.trace_id) == ("op", "why", "t-1")
    assert outcome.command == f"{runtime.path} cancel --repo {repo.root}"
    assert outcome.confirmation.reason == "inactive_not_running"
    assert outcome.confirmation.timeout.ToSeconds() == 30
    assert (outcome.effect.state.before, outcome.effect.state.after) == ("true", "false")
    assert outcome.started_at.ToNanoseconds() < outcome.finished_at.ToNanoseconds()
    assert runtime.calls == [f"cancel --repo {repo.root}"]
    assert audit_of(repo).of("key") == ["confirmed"] * 3
    steps = traceindex.find(str(repo.root), "t-1").entries
    assert [step.kind for step in steps] == ["intent", "runtime", "confirmation", "effect"]
    assert {step.loop_id for step in steps} == {"alpha"}
    assert all(isinstance(step.detail, dict) and step.detail["idempotencyKey"] == "key" for step in steps)


def test_trace_reaches_the_command_and_is_made_when_none_is_given(
    plane: ControlPlane, runtime: Runtime
) -> None:
    runtime.does('echo "$OPS_MANAGER_TRACE_ID"')
    assert plane.execute(request(trace_id="t-1")).output_tail == "t-1"
    outcome = plane.execute(request())
    assert outcome.trace_id
    assert outcome.output_tail == outcome.trace_id


def test_same_request_again_is_a_replay(
    plane: ControlPlane, make_plane: MakePlane, runtime: Runtime, repo: Repo
) -> None:
    first = plane.execute(request(key="key", trace_id="t-1"))
    again = make_plane().execute(
        request(key="key", trace_id="t-2", confirmation=Confirmation(True, 1.0, 1.0))
    )
    assert again.replayed
    again.replayed = False
    assert again == first
    assert len(runtime.calls) == 1
    assert audit_of(repo).of("key") == ["executed_unconfirmed"] * 3


def test_replay_is_audited_for_those_who_want_that(plane: ControlPlane, repo: Repo) -> None:
    plane.execute(request(key="key"))
    again = Caller(audit_replays=True, provenance=Provenance("local", address="uid 7"))
    assert plane.execute(request(key="key", trace_id="t-2"), again).provenance.address == ""
    with open(audit.audit_files(str(audit_directory(repo))).chained.chain, encoding="utf-8") as file:
        connected = [json.loads(line)["connected"] for line in file]
    # The outcome tells who had it executed; on record is who asked again.
    assert connected == [{"edge": "local"}, {"edge": "local", "address": "uid 7"}]
    rows = audit_of(repo).invocations
    assert [row["execution"]["replayed"] for row in rows] == [False, True]
    assert len(audit_of(repo).intents) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"note": "other"},
        {"requested_by": "other"},
        {"intent": "approve"},
        {"loop_id": "beta"},
        {"confirmation": LOOK},
        {"expected_run_id": "other"},
    ],
)
def test_key_stands_for_one_request(
    plane: ControlPlane, repo: Repo, runtime: Runtime, other: dict[str, object]
) -> None:
    repo.loop("beta")
    plane.execute(request(key="key"))
    error = refusal(plane, request(**({"key": "key"} | other)))  # type: ignore[arg-type]
    assert (error.reason, error.field) == ("idempotency_key_conflict", "idempotency_key")
    assert len(runtime.calls) == 1


def test_replay_needs_no_loop_any_more(plane: ControlPlane, loop: LoopFiles) -> None:
    plane.execute(request(key="key"))
    loop.directory.rename(loop.directory.with_name("gone"))
    assert plane.execute(request(key="key")).replayed
    assert refusal(plane, request()).reason == "loop_not_found"


def test_unknown_loop_is_noted_without_files_of_its_own(
    plane: ControlPlane, repo: Repo, runtime: Runtime
) -> None:
    asked = request(loop_id="nowhere", trace_id="t")
    assert refusal(plane, asked, Caller(provenance=Provenance("grpc"))).reason == "loop_not_found"
    assert sorted(path.name for path in (repo.root / ".superloop").iterdir()) == ["loops", "sprite-agent"]
    [row] = refusals_of(repo)
    assert row.pop("timestamp")
    assert row == {
        "transport": "grpc",
        "reasonCode": "loop_not_found",
        "field": "loop_id",
        "message": "loop 'nowhere' not found; nothing was run",
        "loopId": "nowhere",
        "intent": "cancel",
        "requestedBy": "op",
        "traceId": "t",
    }
    assert runtime.calls == []


def test_malformed_requests_are_noted_cut_and_in_one_line(plane: ControlPlane, repo: Repo) -> None:
    refusal(plane, request("pause", requested_by="x\ny" * 200, loop_id="a"))
    refusal(plane, request(loop_id="../\udc80", key=""))
    first, second = refusals_of(repo)
    assert (first["transport"], first["reasonCode"], first["intent"]) == ("local", "unknown_intent", "pause")
    assert len(first["requestedBy"]) == 128
    assert second["loopId"] == "../\\udc80"
    assert audit_of(repo, "a").invocations == []


def test_notes_of_refusals_are_bounded_and_fail_nothing(
    plane: ControlPlane, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sprite_agent.control.refusals.MAX_BYTES", 1000)
    for number in range(10):
        refusal(plane, request("pause", trace_id=f"t-{number}"))
    path = refusals_path(repo)
    assert path.stat().st_size < 1500
    assert path.with_name("refusals.jsonl.1").stat().st_size < 1500
    assert refusals_of(repo)[-1]["traceId"] == "t-9"
    path.unlink()
    path.mkdir()
    assert refusal(plane, request("pause")).reason == "unknown_intent"


def test_failed_decision_without_anything_pending_says_so(
    plane: ControlPlane, repo: Repo, loop: LoopFiles, runtime: Runtime
) -> None:
    runtime.does("exit 3")
    outcome = plane.execute(request("approve", key="none", even_if_nothing_pending=True))
    assert (outcome.status, outcome.reason, outcome.exit_code) == (FAILED, "nothing_pending", 3)
    assert audit_of(repo).control[-1]["reasonCode"] == "control_failed_command"
    assert plane.execute(request("cancel")).reason == "control_failed_command"
    loop.put("approval.json", {"status": "pending"})
    assert plane.execute(request("approve")).reason == "control_failed_command"


def test_fifty_at_once_are_executed_once(make_plane: MakePlane, runtime: Runtime, repo: Repo) -> None:
    runtime.does("sleep 0.1; echo done")
    made = [make_plane(), make_plane()]
    with ThreadPoolExecutor(50) as pool:
        outcomes = list(pool.map(lambda number: made[number % 2].execute(request(key="key")), range(50)))
    assert len(runtime.calls) == 1
    assert [outcome.output_tail for outcome in outcomes] == ["done"] * 50
    assert [outcome.replayed for outcome in outcomes].count(False) == 1
    assert audit_of(repo).of("key") == ["executed_unconfirmed"] * 3


def test_processes_execute_a_request_once(repo: Repo, runtime: Runtime) -> None:
    runtime.does("sleep 0.3")
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", ASK_IN_A_PROCESS, str(repo.root), str(runtime.path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    told = [process.communicate(timeout=30)[0].strip() for process in asking]
    assert sorted(told) == ["False", "True", "True", "True"]
    assert len(runtime.calls) == 1


def test_one_operation_at_a_time_on_a_loop_and_none_waits_for_another_loop(
    make_plane: MakePlane, runtime: Runtime, repo: Repo
) -> None:
    repo.loop("beta")
    plane, other = make_plane(), make_plane()
    runtime.does('case "$*" in *"--loop alpha"*)', runtime.waits(), ";; esac")
    approve = {"intent": "approve", "even_if_nothing_pending": True}
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(plane.execute, request(key="first", **approve))  # type: ignore[arg-type]
        runtime.wait_until_it_runs()
        for asked in (plane, other):
            error = refusal(asked, request(key="second", **approve))  # type: ignore[arg-type]
            assert (error.reason, error.retry_after) == ("control_in_progress", 1.0)
        assert other.execute(request(loop_id="beta", **approve)).exit_code == 0  # type: ignore[arg-type]
        runtime.go()
        assert under_way.result().exit_code == 0
    assert plane.execute(request(key="second", **approve)).exit_code == 0  # type: ignore[arg-type]
    assert audit_of(repo).of("second") == ["executed_unconfirmed"] * 2 + ["refused"] * 2 + [
        "executed_unconfirmed"
    ]


def test_waiting_for_the_same_request_has_an_end(
    make_plane: MakePlane, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planes, "_WAIT_MARGIN_SECONDS", 0.0)
    plane, impatient = make_plane(), make_plane(runtime_timeout=0.1)
    runtime.does(runtime.waits())
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(plane.execute, request(key="key"))
        runtime.wait_until_it_runs()
        assert refusal(impatient, request(key="key")).reason == "control_in_progress"
        runtime.go()
        assert not under_way.result().replayed


def test_command_that_fails_is_an_outcome_and_is_replayed(
    plane: ControlPlane, runtime: Runtime, repo: Repo
) -> None:
    runtime.does("echo cannot; exit 9")
    outcome = plane.execute(request(key="key", confirmation=Confirmation()))
    assert (outcome.status, outcome.reason, outcome.exit_code) == (FAILED, "control_failed_command", 9)
    assert not outcome.HasField("confirmation")
    assert plane.execute(request(key="key", confirmation=Confirmation())).replayed
    assert len(runtime.calls) == 1
    assert audit_of(repo).of("key") == ["failed_command"] * 3


def test_program_that_never_ran_gives_its_key_back(
    make_plane: MakePlane, runtime: Runtime, repo: Repo
) -> None:
    outcome = make_plane(runtime="/nowhere/runtime").execute(request(key="key"))
    assert (outcome.status, outcome.reason, outcome.exit_code) == (FAILED, "runtime_not_found", 127)
    assert "[runtime_not_found]" in outcome.output_tail
    outcome = make_plane().execute(request(key="key"))
    assert (outcome.exit_code, outcome.replayed) == (0, False)
    assert audit_of(repo).of("key") == ["failed_command", "executed_unconfirmed"] * 3


def test_command_that_hangs_leaves_it_ambiguous_and_is_not_repeated(
    make_plane: MakePlane, runtime: Runtime
) -> None:
    runtime.does("sleep 60")
    plane = make_plane(runtime_timeout=0.2)
    outcome = plane.execute(request(key="key", confirmation=Confirmation()))
    assert (outcome.status, outcome.reason) == (AMBIGUOUS, "runtime_timeout")
    assert not outcome.HasField("confirmation")
    assert plane.execute(request(key="key", confirmation=Confirmation())).replayed
    assert len(runtime.calls) == 1


def test_output_that_is_cut_is_the_reason_only_when_there_is_no_other(
    plane: ControlPlane, runtime: Runtime, repo: Repo
) -> None:
    runtime.does("seq 100")
    assert plane.execute(request()).reason == "runtime_output_truncated"
    outcome = plane.execute(request(confirmation=LOOK))
    assert (outcome.status, outcome.reason) == (CONFIRMED, "runtime_output_truncated")
    repo.put("state.json", ACTIVE)
    assert plane.execute(request(confirmation=LOOK)).reason == "control_ambiguous"


def test_refusal_is_recorded_once_and_leaves_the_key_free(
    plane: ControlPlane, repo: Repo, runtime: Runtime
) -> None:
    asked = request("approve", key="key", trace_id="t-1")
    assert refusal(plane, asked).reason == "nothing_pending"
    audit = audit_of(repo)
    assert (audit.intents, audit.control) == ([], [])
    assert [row["outcome"]["reasonCode"] for row in audit.invocations] == ["nothing_pending"]
    with pytest.raises(OpsError) as caught:
        plane.invocation("key")
    assert caught.value.reason == "invocation_not_found"
    assert not plane.execute(asked._replace(even_if_nothing_pending=True)).replayed
    assert len(runtime.calls) == 1


def test_request_that_is_malformed_leaves_no_trace(plane: ControlPlane, repo: Repo) -> None:
    assert refusal(plane, request(key="")).reason == "idempotency_key_missing"
    assert refusal(plane, request(loop_id="../alpha")).reason == "invalid_loop_id"
    assert not audit_directory(repo).exists()


def test_caller_is_in_the_rows(plane: ControlPlane, repo: Repo) -> None:
    caller = Caller(transport="sprite_service", retry_attempts=7, retry_backoff_seconds=4, shown_key="shown")
    plane.execute(request(key="key"), caller)
    row = audit_of(repo).invocations[0]
    assert (row["transport"], row["idempotencyKey"]) == ("sprite_service", "shown")
    assert (row["request"]["retryAttempts"], row["request"]["retryBackoffSeconds"]) == (7, 4)


def test_invocation_tells_how_far_it_came(plane: ControlPlane, runtime: Runtime, repo: Repo) -> None:
    repo.put("state.json", ACTIVE)
    runtime.does(runtime.waits())
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(plane.execute, request(key="key", confirmation=Confirmation()))
        runtime.wait_until_it_runs()
        told = plane.invocation("key")
        assert (told.state, told.outcome.status) == (pb.INVOCATION_STATE_STARTED, AMBIGUOUS)
        runtime.go()
        wait_for(lambda: plane.invocation("key").state == pb.INVOCATION_STATE_CONFIRMING)
        assert plane.invocation("key").outcome.exit_code == 0
        repo.put("state.json", {"active": False})
        outcome = under_way.result()
    told = plane.invocation("key")
    assert told.state == pb.INVOCATION_STATE_FINISHED
    assert told.outcome == outcome


def test_stop_ends_confirmations_and_refuses_what_comes(
    plane: ControlPlane, runtime: Runtime, repo: Repo
) -> None:
    repo.put("state.json", ACTIVE)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(plane.execute, request(key="key", confirmation=Confirmation()))
        wait_for(lambda: runtime.calls, what="the command")
        threading.Timer(0.1, plane.stop).start()
        outcome = under_way.result(timeout=10)
    assert (outcome.status, outcome.reason) == (AMBIGUOUS, "control_ambiguous")
    assert refusal(plane, request()).reason == "agent_draining"
    assert len(runtime.calls) == 1


def test_path_that_is_no_text_is_told(make_plane: MakePlane, tmp_path: Path, runtime: Runtime) -> None:
    strange = tmp_path / "strange\udcff"
    runtime.path.rename(strange)
    outcome = make_plane(runtime=str(strange)).execute(request())
    assert outcome.exit_code == 0
    assert "strange\\377'" in outcome.command
