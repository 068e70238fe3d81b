"""What the commands do with files, where recordings do not reach."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from spritemesh.files import locked_directory
from tests.unit.cli.conftest import Call

SNAPSHOT: dict[str, Any] = {
    "schemaVersion": "v1",
    "envelopeType": "loop_run_snapshot",
    "source": {"repoPath": "/elsewhere", "loopId": "alpha"},
    "run": {"runId": "r", "iteration": 1, "status": "running"},
    "cursor": {"eventLineOffset": 2, "eventLineCount": 2},
}
EVENT: dict[str, Any] = {
    "schemaVersion": "v1",
    "envelopeType": "loop_run_event",
    "source": {"loopId": "alpha"},
    "event": {"name": "x", "raw": {"n": 12345678901234567890, "z": 1, "a": 2}},
    "extra": True,
}
LOOP_COMMANDS = (
    "loop-run-snapshot",
    "poll-events",
    "profile-drift",
    "project-state",
    "reconcile",
    "status",
    "telemetry-summary",
)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / "s.json").write_text(json.dumps(SNAPSHOT))
    (tmp_path / "e.jsonl").write_text(json.dumps(EVENT) + "\n \n")
    return tmp_path


def ops(repo: Path) -> Path:
    return repo / ".superloop" / "ops-manager" / "alpha"


@pytest.mark.parametrize("command", LOOP_COMMANDS)
@pytest.mark.parametrize("loop", ["../alpha", "a/b", "a\\b", ".", "..", "a\nb"])
def test_loop_id_that_could_leave_its_directory_is_refused(
    call: Call, repo: Path, command: str, loop: str
) -> None:
    code, out, err = call(command, "--repo", str(repo), "--loop", loop)
    assert (code, out) == (1, "")
    assert err.startswith("error: --loop")
    assert not (repo / ".superloop").exists()


@pytest.mark.parametrize("command", LOOP_COMMANDS)
def test_missing_repository_is_named(call: Call, repo: Path, command: str) -> None:
    code, out, err = call(command, "--repo", str(repo / "gone"), "--loop", "alpha")
    assert (code, out) == (1, "")
    assert str(repo / "gone") in err


class TestProjectState:
    def test_last_event_goes_through_verbatim(self, call: Call, repo: Path) -> None:
        code, out, _ = call(
            "project-state", "--repo", str(repo), "--loop", "alpha",
            "--snapshot-file", str(repo / "s.json"), "--events-file", str(repo / "e.jsonl"),
        )  # fmt: skip
        assert code == 0
        assert json.dumps(EVENT, separators=(",", ":")) in out
        assert (ops(repo) / "state.json").read_text() == out

    def test_pretty_is_for_the_file_too(self, call: Call, repo: Path) -> None:
        _, out, _ = call(
            "project-state", "--repo", str(repo), "--loop", "alpha",
            "--snapshot-file", str(repo / "s.json"), "--pretty",
        )  # fmt: skip
        assert out.startswith('{\n  "schemaVersion": "v1"')
        assert (ops(repo) / "state.json").read_text() == out

    def test_output_form_changes_nothing_on_disk(self, call: Call, repo: Path) -> None:
        _, out, _ = call(
            "project-state", "--repo", str(repo), "--loop", "alpha",
            "--snapshot-file", str(repo / "s.json"), "--output", "table",
        )  # fmt: skip
        assert "running" in out
        assert json.loads((ops(repo) / "state.json").read_text())["run"]["runId"] == "r"

    def test_odd_members_are_no_reason_to_refuse_a_projection(self, call: Call, repo: Path) -> None:
        odd = {"traceId": 5, "emittedAt": 5, "artifacts": "x", "sequence": "x", "health": {"lastEventAt": 5}}
        run = {"run": {"runId": 5, "iteration": "3", "status": ["x"]}, "cursor": {"eventLineOffset": "5"}}
        event = {**EVENT, "emittedAt": 5, "traceId": 5, "event": {"name": "x", "role": 5}, "cursor": []}
        (repo / "s.json").write_text(json.dumps(SNAPSHOT | odd | run))
        (repo / "e.jsonl").write_text(json.dumps(event) + "\n")
        for output in ("json", "table"):
            code, out, err = call(
                "project-state", "--repo", str(repo), "--loop", "alpha", "--output", output,
                "--snapshot-file", str(repo / "s.json"), "--events-file", str(repo / "e.jsonl"),
            )  # fmt: skip
            assert (code, err) == (0, "")
            assert out
        state = json.loads((ops(repo) / "state.json").read_text())
        assert state["run"] == {"runId": 5, "iteration": "3"}
        assert state["projection"]["lastEventAt"] == 5
        assert state["cursor"] == {"eventLineOffset": "5", "eventLineCount": 0}
        assert state["evidence"]["lastEventEnvelope"] == event

    @pytest.mark.parametrize("name", ["", None, 5])
    def test_event_without_a_name_is_refused(self, call: Call, repo: Path, name: Any) -> None:
        (repo / "e.jsonl").write_text(json.dumps({**EVENT, "event": {"name": name}}) + "\n")
        code, out, err = call(
            "project-state", "--repo", str(repo), "--loop", "alpha",
            "--snapshot-file", str(repo / "s.json"), "--events-file", str(repo / "e.jsonl"),
        )  # fmt: skip
        assert (code, out) == (1, "")
        assert "event.name" in err

    @pytest.mark.parametrize("line", ["{", "[]", "{}", json.dumps({**EVENT, "source": {"loopId": "beta"}})])
    def test_bad_event_is_named_by_line_and_nothing_is_made(self, call: Call, repo: Path, line: str) -> None:
        (repo / "e.jsonl").write_text(f"{line}\n{json.dumps(EVENT)}\n")
        code, out, err = call(
            "project-state", "--repo", str(repo), "--loop", "alpha",
            "--snapshot-file", str(repo / "s.json"), "--events-file", str(repo / "e.jsonl"),
        )  # fmt: skip
        assert (code, out) == (1, "")
        assert "e.jsonl line 1" in err
        assert not (repo / ".superloop").exists()

    def test_unreadable_previous_state_counts_as_none(self, call: Call, repo: Path) -> None:
        state = repo / "state.json"
        state.write_text("{")
        _, out, _ = call(
            "project-state", "--repo", str(repo), "--loop", "alpha",
            "--snapshot-file", str(repo / "s.json"), "--state-file", str(state),
        )  # fmt: skip
        assert json.loads(out)["transition"]["previousState"] == "none"

    def test_another_writer_is_waited_for_and_then_told(
        self, call: Call, repo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("manager.store.loop.LOCK_WAIT_SECONDS", 0.05)
        with locked_directory(str(ops(repo)), wait_seconds=0):
            code, out, err = call(
                "project-state",
                "--repo",
                str(repo),
                "--loop",
                "alpha",
                "--snapshot-file",
                str(repo / "s.json"),
            )
        assert (code, out) == (1, "")
        assert "another process" in err
        assert os.listdir(ops(repo)) == []


class TestHealth:
    @pytest.mark.parametrize("form", ["2024-03-11T09:00:00.5Z", "2024-03-11T09:00:00+00:00", "2024-03-11"])
    def test_now_is_strict(self, call: Call, form: str) -> None:
        code, out, err = call("health", "--now", form)
        assert (code, out) == (1, "")
        assert err.startswith("error: --now")

    @pytest.mark.parametrize("content", ["", "[]", '"text"', "{} {}"])
    def test_document_that_is_no_object_is_named(self, call: Call, tmp_path: Path, content: str) -> None:
        path = tmp_path / "th.json"
        path.write_text(content)
        code, _, err = call("health", "--transport-health-file", str(path))
        assert code == 1
        assert str(path) in err

    @pytest.mark.parametrize("tail", ["{broken\n", "{broken", "\n"])
    def test_damaged_last_intent_is_ignored(self, call: Call, tmp_path: Path, tail: str) -> None:
        path = tmp_path / "i.jsonl"
        path.write_text('{"status":"ambiguous"}\n' + tail)
        code, out, _ = call("health", "--intents-file", str(path))
        assert (code, json.loads(out)["status"]) == (0, "healthy")

    @pytest.mark.parametrize("status", [["x"], {"a": 1}, 5, True])
    def test_intent_status_of_another_kind_is_no_failure(
        self, call: Call, tmp_path: Path, status: Any
    ) -> None:
        path = tmp_path / "i.jsonl"
        path.write_text(json.dumps({"status": status}) + "\n")
        code, out, _ = call("health", "--intents-file", str(path))
        assert (code, json.loads(out)["status"]) == (0, "healthy")

    def test_files_that_do_not_exist_are_no_error(self, call: Call, tmp_path: Path) -> None:
        code, out, _ = call(
            "health", "--state-file", str(tmp_path / "a"), "--intents-file", str(tmp_path / "b")
        )
        assert (code, json.loads(out)["status"]) == (0, "healthy")
        assert os.listdir(tmp_path) == []


class TestStatus:
    def test_flags_name_other_files(self, call: Call, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(repo)
        (repo / "other.json").write_text('{"transition":{"currentState":"stopped"}}')
        code, out, _ = call("status", "--repo", ".", "--loop", "alpha", "--state-file", "other.json")
        assert code == 0
        assert json.loads(out)["lifecycle"]["state"] == "stopped"
        assert json.loads(out)["files"]["stateFile"] == str(repo / "other.json")

    @pytest.mark.parametrize(
        "name",
        ["state", "cursor", "health", "heartbeat", "sequence-state", "profile-drift", "alert-dispatch-state"],
    )
    def test_damaged_document_is_named(self, call: Call, repo: Path, name: str) -> None:
        ops(repo).mkdir(parents=True)
        (ops(repo) / "health.json").write_text("{}")
        (ops(repo) / f"{name}.json").write_text("{")
        code, out, err = call("status", "--repo", str(repo), "--loop", "alpha")
        assert (code, out) == (1, "")
        assert str(ops(repo) / f"{name}.json") in err

    def test_damaged_rows_are_passed_over_and_nothing_is_written(self, call: Call, repo: Path) -> None:
        telemetry = ops(repo) / "telemetry"
        telemetry.mkdir(parents=True)
        (ops(repo) / "health.json").write_text("{}")
        for name in ("reconcile", "control", "heartbeat", "sequence", "alerts", "control-invocations"):
            (telemetry / f"{name}.jsonl").write_text('{"status":"success"}\n{torn')
        before = sorted(repo.rglob("*"))
        code, out, _ = call("status", "--repo", str(repo), "--loop", "alpha")
        assert code == 0
        document = json.loads(out)
        assert document["reconcile"]["lastStatus"] is None
        assert document["tuning"]["telemetrySummary"]["observed"]["damagedLines"] == 2
        assert sorted(repo.rglob("*")) == before


class TestProfileDrift:
    def test_history_that_cannot_be_written_is_told_and_no_failure(self, call: Call, repo: Path) -> None:
        (repo / "history").mkdir()
        code, out, err = call(
            "profile-drift",
            "--repo",
            str(repo),
            "--loop",
            "alpha",
            "--drift-history-file",
            str(repo / "history"),
        )
        assert code == 0
        assert json.loads(out)["status"] == "no_recommendation"
        assert err.startswith("warning: telemetry_unwritable")

    def test_damaged_drift_state_is_named_and_kept(self, call: Call, repo: Path) -> None:
        path = repo / "drift.json"
        path.write_text("{")
        code, _, err = call(
            "profile-drift", "--repo", str(repo), "--loop", "alpha", "--drift-state-file", str(path)
        )
        assert code == 1
        assert str(path) in err
        assert path.read_text() == "{"

    @pytest.mark.parametrize("catalog", [{"profiles": {}}, {"schemaVersion": "v2", "profiles": {"a": 1}}])
    def test_catalog_needs_no_more_than_an_object_of_profiles(
        self, call: Call, repo: Path, catalog: dict[str, Any]
    ) -> None:
        (repo / "c.json").write_text(json.dumps(catalog))
        words = ["profile-drift", "--repo", str(repo), "--loop", "alpha", "--thresholds-file"]
        code, out, _ = call(*words, str(repo / "c.json"))
        assert (code, json.loads(out)["status"]) == (0, "no_recommendation")
        code, _, err = call(*words, str(repo / "c.json"), "--applied-profile", "ghost")
        assert code == 1
        assert "ghost" in err

    @pytest.mark.parametrize("profiles", [None, [], "x"])
    def test_catalog_without_an_object_of_profiles_is_refused(
        self, call: Call, repo: Path, profiles: Any
    ) -> None:
        (repo / "c.json").write_text(json.dumps({"schemaVersion": "v1", "profiles": profiles}))
        code, out, err = call(
            "profile-drift", "--repo", str(repo), "--loop", "alpha", "--thresholds-file", str(repo / "c.json")
        )
        assert (code, out) == (1, "")
        assert "c.json" in err

    @pytest.mark.parametrize("flag", ["--required-streak", "--summary-window"])
    def test_zero_is_refused(self, call: Call, repo: Path, flag: str) -> None:
        code, _, err = call("profile-drift", "--repo", str(repo), "--loop", "alpha", flag, "0")
        assert code == 1
        assert flag in err


class TestTelemetrySummary:
    def test_damaged_lines_are_counted(self, call: Call, repo: Path) -> None:
        (repo / "r.jsonl").write_text('{"status":"success"}\n{torn\n[]\n')
        code, out, _ = call(
            "telemetry-summary", "--repo", str(repo), "--loop", "alpha",
            "--reconcile-telemetry-file", str(repo / "r.jsonl"),
        )  # fmt: skip
        assert code == 0
        observed = json.loads(out)["observed"]
        assert (observed["reconcileAttempts"], observed["damagedLines"]) == (1, 2)


class TestThresholdProfile:
    def test_catalog_that_is_no_json_is_named(self, call: Call, repo: Path) -> None:
        (repo / "c.json").write_text("{")
        code, _, err = call("threshold-profile", "--profiles-file", str(repo / "c.json"))
        assert code == 1
        assert "c.json" in err
