"""Whole passes: command line, real files, real log; and the pass over scripted streams."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from manager.cli import main
from manager.core.facts import Outcome, Settings
from manager.core.thresholds import DEFAULTS
from manager.reconcile import Request, reconcile
from manager.store import LoopStore, loop_files
from spritemesh import times
from spritemesh.errors import OpsError
from tests.fakes.streams import LOOP, FakeLog, ScriptedTransport
from tests.harness.disk import largest_file


def line(event: str = "role_end", **members: Any) -> str:
    stamp = times.format_utc(_now())
    return json.dumps({"timestamp": stamp, "event": event, "run_id": "r", "iteration": 1, **members}) + "\n"


def _now() -> float:
    import time

    return time.time()


class Desk:
    """One repository with the loop alpha, and the command line over it."""

    def __init__(self, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.ops = root / ".superloop/ops-manager/alpha"
        self.log = root / ".superloop/loops/alpha/events.jsonl"
        self._capfd = capfd
        self.log.parent.mkdir(parents=True)
        self.log.write_text(line("loop_start") + line() + line())
        (root / ".superloop/state.json").write_text('{"active":true,"current_loop_id":"alpha"}\n')

    def append(self, *lines: str) -> None:
        with self.log.open("a") as file:
            file.writelines(lines)

    def run(self, *flags: str, loop: str = "alpha") -> tuple[int, Any]:
        """Exit code and printed document; standard error must be empty, as contract G.1 says."""
        code, out, err = self.raw(*flags, loop=loop)
        assert err == ""
        return code, json.loads(out)

    def raw(self, *flags: str, loop: str = "alpha") -> tuple[int, str, str]:
        self._capfd.readouterr()
        code = main(["reconcile", "--repo", str(self.root), "--loop", loop, *flags])
        out, err = self._capfd.readouterr()
        return code, out, err

    def document(self, name: str) -> Any:
        return json.loads((self.ops / name).read_text())

    def rows(self, name: str) -> list[Any]:
        path = self.ops / name
        return [json.loads(row) for row in path.read_text().splitlines()] if path.exists() else []

    def last_row(self) -> Any:
        return self.rows("telemetry/reconcile.jsonl")[-1]

    def listing(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.ops)): path.read_bytes()
            for path in self.ops.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def desk(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    for name in list(os.environ):
        if name.startswith("OPS_MANAGER_"):
            monkeypatch.delenv(name)
    return Desk(tmp_path, capfd)


# --- ordinary passes --------------------------------------------------------------------------------


def test_first_pass_reads_everything_and_the_next_nothing(desk: Desk) -> None:
    code, state = desk.run("--trace-id", "t1")
    assert code == 0
    assert state == desk.document("state.json")
    assert state["evidence"]["lastEventEnvelope"]["sequence"]["value"] == 3
    assert state["evidence"]["lastEventEnvelope"]["traceId"] == "t1"
    assert (desk.last_row()["eventsIngested"], desk.last_row()["cursorOffsetAfter"]) == (3, 3)
    code, state = desk.run()
    assert (code, desk.last_row()["eventsIngested"]) == (0, 0)
    assert state["evidence"]["lastEventEnvelope"] is None
    assert desk.document("sequence-state.json")["violations"] == []


def test_evidence_names_files_that_last(desk: Desk) -> None:
    _, state = desk.run()
    for name in ("snapshotFile", "eventsFile"):
        assert os.path.isabs(state["evidence"][name])
        assert os.path.exists(state["evidence"][name])


def test_event_limit_leaves_the_rest_for_the_next_pass(desk: Desk) -> None:
    desk.run("--max-events", "2")
    assert desk.document("cursor.json")["eventLineOffset"] == 2
    assert desk.document("cursor.json")["eventLineCount"] == 3
    desk.run()
    assert desk.last_row()["eventsIngested"] == 1
    assert desk.document("sequence-state.json")["violations"] == []


def test_trailing_blank_lines_are_verified_but_not_consumed(desk: Desk) -> None:
    desk.append("\n", "  \n")
    desk.run()
    cursor = desk.document("cursor.json")
    assert (cursor["eventLineOffset"], cursor["position"]["line"]) == (3, 5)
    desk.append(line())
    desk.run()
    assert (desk.last_row()["cursorOffsetBefore"], desk.last_row()["cursorOffsetAfter"]) == (3, 6)
    assert "logReset" not in desk.last_row()


def test_unterminated_tail_is_not_yet_written(desk: Desk) -> None:
    desk.append(line().rstrip("\n"))
    desk.run()
    assert desk.document("cursor.json")["eventLineOffset"] == 3


def test_cursor_that_a_v1_tool_wrote_is_read_on(desk: Desk) -> None:
    desk.ops.mkdir(parents=True)
    (desk.ops / "cursor.json").write_text('{"eventLineOffset": "2"}\n')
    code, _ = desk.run()
    assert (code, desk.last_row()["eventsIngested"]) == (0, 1)
    assert desk.document("cursor.json")["position"]["logDigest"]


def test_cursor_moved_by_somebody_else_is_believed(desk: Desk) -> None:
    desk.run()
    cursor = desk.document("cursor.json")
    (desk.ops / "cursor.json").write_text(json.dumps(cursor | {"eventLineOffset": 1}))
    desk.run()
    assert desk.last_row()["eventsIngested"] == 2


# --- logs that change under the cursor --------------------------------------------------------------


def test_replaced_log_is_read_from_its_beginning_without_alarm(desk: Desk) -> None:
    desk.run()
    desk.log.write_text(line("loop_start", message="another") + line())
    code, state = desk.run()
    assert (code, state["health"]["status"]) == (0, "healthy")
    assert not state["divergence"]["any"]
    note = {"verdict": "log_replaced", "previousLine": 3, "line": 2}
    assert desk.last_row()["logReset"] == note
    assert list(desk.last_row())[-1] == "logReset"
    assert desk.document("sequence-state.json")["log"] == note
    assert desk.rows("telemetry/sequence.jsonl")[-1]["log"] == note
    assert desk.rows("escalations.jsonl") == []
    desk.run()
    assert "logReset" not in desk.last_row()


def test_rotation_through_an_empty_log_raises_no_alarm(desk: Desk) -> None:
    desk.run()
    desk.log.unlink()
    desk.log.touch()
    codes = [desk.run()[0]]
    desk.append(line("loop_start"))
    codes.append(desk.run()[0])
    assert (codes, desk.last_row()["eventsIngested"]) == ([0, 0], 1)
    assert desk.document("sequence-state.json")["violations"] == []
    assert all(row["category"] != "ordering_drift_detected" for row in desk.rows("escalations.jsonl"))


@pytest.mark.parametrize("row", [{"status": ["x"]}, {"status": {}}, [], 5])
def test_damaged_intent_does_not_stop_the_pass(desk: Desk, row: Any) -> None:
    desk.ops.mkdir(parents=True)
    (desk.ops / "intents.jsonl").write_text(json.dumps(row) + "\n")
    assert desk.run()[0] == 0


def test_replacement_by_a_longer_log_skips_nothing(desk: Desk) -> None:
    desk.run()
    desk.log.write_text(line("loop_start", message="another") + line() * 6)
    desk.run()
    assert desk.last_row()["eventsIngested"] == 7


def test_rewritten_log_is_read_again_and_escalated_once(desk: Desk) -> None:
    desk.run()
    lines = desk.log.read_text().splitlines(keepends=True)
    desk.log.write_text(lines[0] + line(message="forged") + lines[2] + line())
    code, state = desk.run()
    assert code == 0
    assert state["sequence"]["violations"] == ["log_rewritten"]
    assert state["health"]["reasonCodes"] == ["ordering_drift_detected"]
    assert desk.last_row()["eventsIngested"] == 4
    assert [row["category"] for row in desk.rows("escalations.jsonl")] == [
        "ordering_drift_detected",
        "health_degraded",
    ]
    _, state = desk.run()
    assert state["sequence"]["transition"]["recoveredFromDrift"]


def test_truncated_log_fails_with_proof_until_read_from_the_start(desk: Desk) -> None:
    desk.run()
    before = desk.document("cursor.json")
    kept = desk.log.read_text().splitlines(keepends=True)[:2]
    desk.log.write_text("".join(kept))
    code, health = desk.run()
    assert code == 1
    assert health["transport"]["failureCode"] == "events_unavailable"
    assert health["reasonCodes"] == ["ordering_drift_detected", "transport_unreachable"]
    assert desk.document("cursor.json") == before
    assert desk.last_row()["failureMessage"].startswith("log_truncated: ")
    assert "event_sequence_regression" in desk.document("sequence-state.json")["violations"]
    desk.run()
    categories = [row["category"] for row in desk.rows("escalations.jsonl")]
    assert categories.count("ordering_drift_detected") == 1
    code, _ = desk.run("--from-start")
    assert code == 0
    assert desk.document("cursor.json")["eventLineOffset"] == 2


def test_v1_cursor_beyond_the_log_fails_and_says_no_more(desk: Desk) -> None:
    desk.ops.mkdir(parents=True)
    (desk.ops / "cursor.json").write_text('{"eventLineOffset": 9}\n')
    code, health = desk.run()
    assert (code, health["reasonCodes"]) == (1, ["transport_unreachable"])
    message = desk.last_row()["failureMessage"]
    assert message.startswith("cursor_ahead: ")
    assert "9" in message
    assert "3" in message
    assert not (desk.ops / "sequence-state.json").exists()


def test_requested_replay_of_a_healthy_log_raises_nothing(desk: Desk) -> None:
    desk.run()
    code, state = desk.run("--from-start")
    assert (code, state["health"]["status"]) == (0, "healthy")
    assert state["sequence"]["events"]["previousLast"] == 3
    assert (desk.last_row()["cursorOffsetBefore"], desk.last_row()["eventsIngested"]) == (0, 3)


def test_regression_after_an_idle_pass_is_noticed(desk: Desk) -> None:
    desk.run()
    desk.run()
    cursor = desk.document("cursor.json")
    cursor["position"] |= {"offset": 1, "line": 1}
    del cursor["position"]["logDigest"]
    (desk.ops / "cursor.json").write_text(json.dumps(cursor | {"eventLineOffset": 1}))
    _, state = desk.run()
    assert state["sequence"]["violations"] == ["event_sequence_regression"]


# --- lines that are no events -----------------------------------------------------------------------


def test_invalid_line_stops_the_pass_by_default(desk: Desk) -> None:
    desk.append("{broken\n", line())
    code, health = desk.run()
    assert (code, health["transport"]["failureCode"]) == (1, "events_unavailable")
    assert desk.last_row()["failureMessage"].startswith("invalid_json_line: line 4 ")
    assert desk.last_row()["eventsIngested"] == 3
    assert not (desk.ops / "cursor.json").exists()
    assert not (desk.ops / "state.json").exists()


def test_invalid_line_is_passed_and_recorded_once_on_request(desk: Desk) -> None:
    desk.append("{broken\n", line(), "[]\n", line())
    code, _ = desk.run("--on-invalid-line", "quarantine")
    assert code == 0
    assert desk.document("cursor.json")["eventLineOffset"] == 7
    found = [(row["line"], row["reasonCode"]) for row in desk.rows("telemetry/quarantine.jsonl")]
    assert found == [(4, "invalid_json_line"), (6, "line_not_object")]
    assert desk.rows("telemetry/quarantine.jsonl")[0]["prefix"] == "{broken"
    assert desk.last_row()["linesQuarantined"] == 2
    code, _ = desk.run("--on-invalid-line", "quarantine", "--from-start")
    assert len(desk.rows("telemetry/quarantine.jsonl")) == 2


def test_invalid_line_beyond_the_event_limit_does_not_matter(desk: Desk) -> None:
    desk.append("{broken\n", line())
    code, _ = desk.run("--max-events", "3")
    assert code == 0


# --- files that are damaged or cannot be written ----------------------------------------------------


def test_damaged_documents_count_as_none_and_are_told(desk: Desk) -> None:
    desk.run()
    (desk.ops / "state.json").write_text('"text"')
    (desk.ops / "health.json").write_text("{")
    code, state = desk.run()
    assert (code, state["transition"]["previousState"]) == (0, "none")
    assert desk.last_row()["damagedDocuments"] == ["state.json", "health.json"]
    desk.run()
    assert "damagedDocuments" not in desk.last_row()


def test_damaged_cursor_fails_the_pass_and_stays(desk: Desk) -> None:
    desk.ops.mkdir(parents=True)
    (desk.ops / "cursor.json").write_text("{")
    code, _ = desk.run()
    assert code == 1
    assert desk.last_row()["failureMessage"].startswith("cursor_invalid: ")
    assert "cursor.json" in desk.last_row()["failureMessage"]
    assert (desk.ops / "cursor.json").read_text() == "{"


def test_damaged_telemetry_is_skipped_and_counted(desk: Desk) -> None:
    desk.run()
    with (desk.ops / "telemetry/reconcile.jsonl").open("a") as file:
        file.write("{torn")
    _, state = desk.run()
    observed = state["tuning"]["telemetrySummary"]["observed"]
    assert (observed["reconcileAttempts"], observed["damagedLines"]) == (2, 1)


@pytest.mark.parametrize(
    "name", ["state.json", "health.json", "sequence-state.json", "profile-drift.json", "cursor.json"]
)
def test_unwritable_document_leaves_everything_as_it_was(desk: Desk, name: str, tmp_path: Path) -> None:
    desk.run()
    before = desk.listing()
    desk.append(line())
    flag = {
        "state.json": "--state-file",
        "sequence-state.json": "--sequence-state-file",
        "profile-drift.json": "--drift-state-file",
        "cursor.json": "--cursor-file",
    }.get(name)
    if flag is None:
        (desk.ops / name).unlink()
        (desk.ops / name).mkdir()
        del before[name]
        code, out, err = desk.raw()
    else:
        (tmp_path / "plain").write_text("")
        code, out, err = desk.raw(flag, str(tmp_path / "plain" / name))
        if name == "cursor.json":
            # A cursor below a plain file cannot be read either: that is a failed pass, not a failed write.
            assert code == 1
            return
    assert (code, out) == (1, "")
    assert err.startswith("error: cannot write ")
    assert name in err
    assert desk.listing() == before


def test_unwritable_telemetry_degrades_and_nothing_else(desk: Desk) -> None:
    desk.ops.mkdir(parents=True)
    (desk.ops / "telemetry").write_text("in the way")
    code, state = desk.run()
    assert code == 0
    assert state["health"]["reasonCodes"] == ["telemetry_unwritable"]
    assert desk.document("health.json") == state["health"]
    assert desk.document("cursor.json")["eventLineOffset"] == 3
    assert [row["category"] for row in desk.rows("escalations.jsonl")] == ["health_degraded"]
    (desk.ops / "telemetry").unlink()
    _, state = desk.run()
    assert state["health"]["status"] == "healthy"


def test_full_disk_under_telemetry_leaves_whole_rows_only(desk: Desk) -> None:
    desk.run()
    telemetry = desk.ops / "telemetry/reconcile.jsonl"
    with telemetry.open("a") as file:
        file.writelines(json.dumps({"pad": "x" * 1000}) + "\n" for _ in range(20))
    before = telemetry.read_bytes()
    with largest_file(len(before) + 10):
        code, state = desk.run()
    assert (code, state["health"]["reasonCodes"]) == (0, ["telemetry_unwritable"])
    assert telemetry.read_bytes() == before


def test_full_disk_under_state_leaves_everything_as_it_was(desk: Desk) -> None:
    desk.run()
    before = desk.listing()
    desk.append(line())
    with largest_file(100):
        code, out, err = desk.raw()
    assert (code, out) == (1, "")
    assert err.startswith("error: cannot write ")
    assert desk.listing() == before


def test_no_temporary_file_stays_behind(desk: Desk) -> None:
    desk.run()
    desk.run("--from-start")
    assert [name for name in desk.listing() if name.endswith(".tmp")] == []


# --- one writer -------------------------------------------------------------------------------------


def test_concurrent_passes_take_every_event_once(desk: Desk) -> None:
    desk.append(*(line() for _ in range(200)))
    command = [sys.executable, "-c", "import sys; from manager.cli import main; sys.exit(main())"]
    command += ["reconcile", "--repo", str(desk.root), "--loop", "alpha"]
    passes = [
        subprocess.Popen(
            command, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        )
        for _ in range(3)
    ]
    assert [process.wait(30) for process in passes] == [0, 0, 0]
    rows = desk.rows("telemetry/reconcile.jsonl")
    assert sorted(row["eventsIngested"] for row in rows) == [0, 0, 203]
    assert all(row["sequenceStatus"] == "ok" for row in rows)


def test_held_lock_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manager.store.loop.LOCK_WAIT_SECONDS", 0.05)
    with LoopStore(loop_files(str(desk.root), "alpha")).lock():
        code, out, err = desk.raw()
    assert (code, out) == (1, "")
    assert err.startswith("error: another process holds ")


# --- arguments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--threshold-profile", "nope"), "nope"),
        (("--critical-ingest-lag-seconds", "1"), "--critical-ingest-lag-seconds"),
        (("--drift-min-confidence", "sure"), "--drift-min-confidence"),
        (("--drift-required-streak", "0"), "--drift-required-streak"),
        (("--max-events", "-1"), "--max-events"),
        (("--alerts-enabled", "maybe"), "--alerts-enabled"),
        (("--on-invalid-line", "skip"), "--on-invalid-line"),
        (("--transport", "sprite_service"), "--service-base-url"),
        (("--trace-id", "a\nb"), "--trace-id"),
        (("--thresholds-file", "/nowhere.json"), "/nowhere.json"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_refused_argument_is_named_and_prints_nothing(desk: Desk, flags: tuple[str, ...], named: str) -> None:
    code, out, err = desk.raw(*flags)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert named in err


@pytest.mark.parametrize(
    ("variable", "value"), [("DRIFT_REQUIRED_STREAK", "0"), ("DRIFT_MIN_CONFIDENCE", "sure")]
)
def test_environment_is_checked_as_the_flag(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(f"OPS_MANAGER_{variable}", value)
    code, _, err = desk.raw()
    assert code == 1
    assert variable in err


def test_flag_wins_over_the_environment(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPS_MANAGER_TRACE_ID", "from-env")
    monkeypatch.setenv("OPS_MANAGER_THRESHOLD_PROFILE", "strict")
    monkeypatch.setenv("OPS_MANAGER_ALERTS_ENABLED", "whatever")
    _, state = desk.run()
    assert state["trace"] == {"reconcileTraceId": "from-env"}
    assert state["health"]["thresholds"]["profile"] == "strict"
    _, state = desk.run("--trace-id", "from-flag", "--threshold-profile", "relaxed")
    assert state["trace"] == {"reconcileTraceId": "from-flag"}
    assert state["health"]["thresholds"]["profile"] == "relaxed"


@pytest.mark.parametrize(("version", "taken"), [("00", True), ("ff", False)])
def test_trace_id_of_a_well_formed_traceparent_is_taken(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, version: str, taken: bool
) -> None:
    monkeypatch.delenv("OPS_MANAGER_TRACE_ID", raising=False)
    monkeypatch.setenv("TRACEPARENT", f"{version}-{'ab' * 16}-{'cd' * 8}-01")
    _, state = desk.run()
    assert (state["trace"]["reconcileTraceId"] == "ab" * 16) == taken


def test_missing_loop_fails_with_its_finer_reason(desk: Desk) -> None:
    code, health = desk.run(loop="ghost")
    assert (code, health["transport"]["failureCode"]) == (1, "snapshot_unavailable")
    rows = (desk.root / ".superloop/ops-manager/ghost/telemetry/reconcile.jsonl").read_text()
    assert json.loads(rows)["failureMessage"].startswith("loop_not_found: ")


# --- scripted streams -------------------------------------------------------------------------------


def run_scripted(root: Path, transport: ScriptedTransport, *, service: bool = False, **given: Any) -> Outcome:
    paths = loop_files(str(root), LOOP)
    settings = Settings(
        repo_path=str(root),
        loop_id=LOOP,
        trace_id="t",
        transport="sprite_service" if service else "local",
        thresholds=DEFAULTS,
        profile="balanced",
        profiles=frozenset({"balanced"}),
        min_confidence="medium",
        required_streak=3,
        window=200,
        max_events=0,
        from_start=False,
        retry_attempts=1,
        retry_backoff_seconds=0,
        snapshot_file=paths.state,
        events_file=paths.cursor,
        reconcile_file=paths.reconcile_telemetry,
        control_file=paths.control_telemetry,
        evidence=paths.evidence,
    )
    return reconcile(LoopStore(paths), transport, Request(settings._replace(**given)))


def test_gap_is_answered_by_one_more_stream_from_the_last_line(tmp_path: Path) -> None:
    log = FakeLog(6)
    broken = [log.opened(), log.batch(1, 2), log.batch(4, 6)]
    transport = ScriptedTransport([log.snapshot()], [broken, log.drained(2)])
    outcome = run_scripted(tmp_path, transport)
    assert outcome.failure_code == ""
    assert transport.asked == [None, log.position(2)]
    assert outcome.reconcile_row["eventsIngested"] == 6


def test_gap_that_stays_fails_the_pass(tmp_path: Path) -> None:
    log = FakeLog(6)
    gaps = [[log.opened(), log.batch(1, 2), log.batch(4, 6)], [log.opened(2), log.batch(4, 6)]]
    outcome = run_scripted(tmp_path, ScriptedTransport([log.snapshot()], gaps))
    assert outcome.failure_code == "event_sequence_gap"
    assert outcome.health["reasonCodes"] == ["event_sequence_gap"]
    assert outcome.cursor is None


def test_limit_reached_before_a_gap_needs_no_more_stream(tmp_path: Path) -> None:
    log = FakeLog(6)
    broken = [log.opened(), log.batch(1, 2), log.batch(4, 6)]
    transport = ScriptedTransport([log.snapshot()], [broken])
    outcome = run_scripted(tmp_path, transport, max_events=2)
    assert (outcome.failure_code, outcome.reconcile_row["eventsIngested"]) == ("", 2)


def test_snapshot_of_the_stream_wins_since_it_holds_where_the_events_end(tmp_path: Path) -> None:
    early, late = FakeLog(2), FakeLog(4)
    messages = late.drained()
    messages[-2].bookmark.snapshot.CopyFrom(late.snapshot(status="stopped"))
    outcome = run_scripted(tmp_path, ScriptedTransport([early.snapshot()], [messages]))
    assert outcome.document["transition"]["currentState"] == "stopped"
    assert outcome.document["cursor"]["eventLineOffset"] == 4


@pytest.mark.parametrize(
    ("reason", "local", "service"),
    [
        ("log_unavailable", "events_unavailable", "service_request_failed"),
        ("token_wrong", "events_unavailable", "service_request_failed"),
        ("service_response_invalid", "events_unavailable", "service_response_invalid"),
        ("projection_failed", "projection_failed", "projection_failed"),
    ],
)
def test_failure_of_the_stream_gets_its_coarse_code(
    tmp_path: Path, reason: str, local: str, service: str
) -> None:
    log = FakeLog(2)
    codes = []
    for over_service in (False, True):
        transport = ScriptedTransport([log.snapshot()], [[log.opened(), OpsError(reason, "no")]])
        outcome = run_scripted(tmp_path, transport, service=over_service)
        codes.append(outcome.failure_code)
        assert outcome.reconcile_row["failureMessage"] == f"{reason}: no"
    assert codes == [local, service]


def test_unparsable_heartbeat_of_a_peer_fails_the_pass_with_all_its_documents(tmp_path: Path) -> None:
    log = FakeLog(3)
    snapshot = log.snapshot()
    snapshot.runtime.heartbeat.json = "{half"
    outcome = run_scripted(tmp_path, ScriptedTransport([snapshot], [log.drained()]), service=True)
    assert outcome.failure_code == "service_response_invalid"
    assert "invalid_transport_payload" in outcome.health["reasonCodes"]
    ops = tmp_path / ".superloop/ops-manager" / LOOP
    assert json.loads((ops / "health.json").read_text()) == outcome.health
    assert len((ops / "telemetry/reconcile.jsonl").read_text().splitlines()) == 1
    assert not (ops / "cursor.json").exists()


def test_failed_snapshot_asks_for_no_events(tmp_path: Path) -> None:
    transport = ScriptedTransport([OpsError("artifact_invalid", "state.json")], [])
    outcome = run_scripted(tmp_path, transport)
    assert (outcome.failure_code, transport.asked) == ("snapshot_unavailable", [])


def test_replayed_events_are_dropped_and_counted(tmp_path: Path) -> None:
    log = FakeLog(3)
    messages = [
        log.opened(),
        log.batch(1, 2),
        log.batch(1, 2),
        log.batch(3, 3),
        log.bookmark(),
        log.goodbye(),
    ]
    outcome = run_scripted(tmp_path, ScriptedTransport([log.snapshot()], [messages]))
    assert outcome.reconcile_row["eventsIngested"] == 3
    assert outcome.reconcile_row["eventsReplayed"] == 2
    assert outcome.health["metrics"]["sequenceStatus"] == "ok"


def test_unreadable_cursor_over_the_service_reads_from_the_beginning(tmp_path: Path) -> None:
    log = FakeLog(3)
    cursor = Path(loop_files(str(tmp_path), LOOP).cursor)
    cursor.parent.mkdir(parents=True)
    cursor.write_text("{")
    transport = ScriptedTransport([log.snapshot()], [log.drained()])
    outcome = run_scripted(tmp_path, transport, service=True)
    assert (outcome.failure_code, transport.asked) == ("", [None])
    assert outcome.reconcile_row["damagedDocuments"] == ["cursor.json"]


def test_quarantine_passes_a_bad_last_line_at_once(desk: Desk) -> None:
    """The loop is shown with its last event, though v1 refuses a snapshot of such a log."""
    desk.append("{broken\n")
    assert desk.run()[0] == 1
    code, state = desk.run("--on-invalid-line", "quarantine")
    assert code == 0
    assert state["projection"]["lastEventName"] == "role_end"
    assert state["cursor"] == {"eventLineOffset": 4, "eventLineCount": 4}
    assert [row["line"] for row in desk.rows("telemetry/quarantine.jsonl")] == [4]
    assert desk.run("--on-invalid-line", "quarantine")[0] == 0
    assert len(desk.rows("telemetry/quarantine.jsonl")) == 1
