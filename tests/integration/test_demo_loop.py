"""The demo loop as a process: its files, its command lines, its ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sprite_agent.demo.running import is_demo_of

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 20.0
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def words(text: str) -> list[str]:
    """The names in `text`, for tables that would fill a page one name a line."""
    return text.split()


EVENT_NAMES = frozenset(
    words(
        """
        approval_consumed approval_decision approval_rejected approval_requested approval_wait
        auto_commit_failed auto_commit_message_fallback auto_commit_message_generated auto_commit_skipped
        auto_commit_success checklist_end checklist_start delegation_adaptation_end
        delegation_adaptation_skipped delegation_adaptation_start delegation_child_end
        delegation_child_start delegation_fail_role delegation_policy_decision delegation_recon_violation
        delegation_request_pass_end delegation_request_pass_start delegation_wave_dispatch
        delegation_wave_end delegation_wave_queue_drain delegation_wave_start evidence_end evidence_start
        gates_evaluated iteration_end iteration_start lifecycle_end lifecycle_start loop_complete loop_start
        loop_stop no_progress_stop pre_commit_executed prerequisites_end prerequisites_start promise_checked
        rate_limit_stop recovery_approved recovery_blocked recovery_denied recovery_escalated
        recovery_executed recovery_failed recovery_proposed recovery_skipped rlms_decision rlms_end
        rlms_start role_end role_start role_timeout stuck_checked tests_end tests_rerun_end
        tests_rerun_start tests_start usage_limit_blocked validation_end validation_start
        """
    )
)
EVENT_KEYS = ["timestamp", "event", "loop_id", "run_id", "iteration", "role", "status", "message", "data"]
STATE_KEYS = ["active", "loop_index", "iteration", "current_loop_id", "updated_at"]
ACTIVE_RUN_KEYS = ["repo", "pid", "pgid", "loop_id", "iteration", "stage", "updated_at"]
SUMMARY_KEYS = ["version", "loop_id", "updated_at", "entries"]
ENTRY_KEYS = words(
    """
    run_id iteration started_at ended_at promise gates tests_mode stuck delegation completion_ok
    artifacts
    """
)
GATE_KEYS = ["tests", "validation", "prerequisites", "checklist", "evidence", "lifecycle", "approval"]
ARTIFACT_NAMES = words(
    """
    plan implementer test_report reviewer test_output test_status prerequisites_status
    prerequisites_results checklist_status checklist_remaining evidence lifecycle_status lifecycle_audit
    validation_status validation_results gate_summary iteration_notes events reviewer_packet approval
    decisions decisions_md rlms_index delegation_index
    """
)
REQUEST_KEYS = words(
    """
    status loop_id run_id iteration requested_at iteration_started_at iteration_ended_at candidate files
    """
)
DECIDED_KEYS = [*REQUEST_KEYS, "decision", "decided_at", "decided_by", "decided_note"]


class Demo:
    """One repository and the demo processes in it."""

    def __init__(self, repo: Path) -> None:
        self.repo = repo
        self.root = repo / ".superloop"
        self.loop = self.root / "loops" / "demo"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *flags: str) -> subprocess.Popen[str]:
        """Start a run and wait for its first line."""
        process = subprocess.Popen(
            [sys.executable, "-m", "sprite_agent.demo", "--repo", str(self.repo), *flags],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        assert started == {"demo": True, "repo": str(self.repo), "loop": started["loop"], "pid": process.pid}
        return process

    def call(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sprite_agent.demo", *words],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )

    def cancel(self) -> subprocess.CompletedProcess[str]:
        return self.call("cancel", "--repo", str(self.repo))

    def approve(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return self.call("approve", "--repo", str(self.repo), "--loop", "demo", *flags)

    def events(self) -> list[dict[str, Any]]:
        """All lines that end in a newline; every one must be whole."""
        path = self.loop / "events.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]

    def names(self) -> list[str]:
        return [event["event"] for event in self.events()]

    def state(self) -> dict[str, Any]:
        return read(self.root / "state.json")

    def entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = read(self.loop / "run-summary.json")["entries"]
        return entries

    def waits_for_decision(self) -> bool:
        approval = self.loop / "approval.json"
        return approval.exists() and read(approval)["status"] == "pending" and not self.state()["active"]


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "condition did not come true in time"
        time.sleep(0.01)


def ends(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=DEADLINE_SECONDS)
    return process.returncode, out, err


def assert_refused(result: subprocess.CompletedProcess[str], *details: str) -> None:
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for detail in details:
        assert detail in result.stderr


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path)
    yield running
    for process in running.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_healthy_run_writes_every_file_in_the_shape_of_the_contract(demo: Demo) -> None:
    assert ends(demo.start("--pace", "0", "--iterations", "2")) == (0, "", "")

    data = (demo.loop / "events.jsonl").read_bytes()
    assert data.endswith(b"\n")
    events = demo.events()
    run_ids = {event["run_id"] for event in events}
    assert len(run_ids) == 1
    assert TIME.fullmatch(run_ids.pop())
    for event, line in zip(events, data.split(b"\n"), strict=False):
        assert event["event"] in EVENT_NAMES
        assert list(event) == [key for key in EVENT_KEYS if key in event]
        assert all(event[key] for key in ("role", "status", "message", "data") if key in event)
        assert TIME.fullmatch(event["timestamp"])
        assert event["loop_id"] == "demo"
        assert json.dumps(event, separators=(",", ":")).encode() == line
    assert demo.names()[-1] == "loop_complete"

    assert list(demo.state()) == STATE_KEYS
    assert demo.state() == {
        "active": False,
        "loop_index": 0,
        "iteration": 2,
        "current_loop_id": "",
        "updated_at": demo.state()["updated_at"],
    }
    assert not (demo.root / "active-run.json").exists()
    assert not (demo.loop / "approval.json").exists()
    assert not list(demo.root.rglob("*.tmp"))


def test_summary_entries_have_all_members_and_true_references(demo: Demo) -> None:
    ends(demo.start("--pace", "0", "--iterations", "2"))

    summary = read(demo.loop / "run-summary.json")
    assert list(summary) == SUMMARY_KEYS
    assert (summary["version"], summary["loop_id"]) == (1, "demo")
    assert [(entry["iteration"], entry["completion_ok"]) for entry in summary["entries"]] == [
        (1, False),
        (2, True),
    ]
    for entry in summary["entries"]:
        assert list(entry) == ENTRY_KEYS
        assert list(entry["promise"]) == ["expected", "text", "matched"]
        assert list(entry["gates"]) == GATE_KEYS
        assert list(entry["stuck"]) == ["streak", "threshold"]
        assert list(entry["artifacts"]) == ARTIFACT_NAMES
    for reference in summary["entries"][-1]["artifacts"].values():
        exists = (demo.repo / reference["path"]).is_file()
        assert reference["exists"] is exists
        assert list(reference) == (["path", "exists", "sha256", "mtime"] if exists else ["path", "exists"])


def test_later_run_adds_to_log_and_summary(demo: Demo) -> None:
    ends(demo.start("--pace", "0", "--iterations", "1"))
    lines = len(demo.events())
    ends(demo.start("--pace", "0", "--iterations", "1"))

    assert len(demo.events()) == 2 * lines
    assert len(demo.entries()) == 2


def test_running_loop_is_described_by_state_and_active_run(demo: Demo) -> None:
    process = demo.start("--pace", "0.01", "--iterations", "0")
    until(lambda: "iteration_start" in demo.names())

    active = (demo.root / "active-run.json").read_text()
    document = json.loads(active)
    assert list(document) == ACTIVE_RUN_KEYS
    assert active == json.dumps(document, indent=2) + "\n"
    assert (document["repo"], document["pid"]) == (str(demo.repo), process.pid)
    assert (document["loop_id"], document["stage"]) == ("demo", "loop_start")
    assert document["pgid"] == os.getpgid(process.pid)
    assert demo.state()["active"] is True
    assert demo.state()["current_loop_id"] == "demo"


def test_failing_run_ends_with_a_stop(demo: Demo) -> None:
    assert ends(demo.start("--pace", "0", "--scenario", "failing"))[0] == 0

    stop, last = demo.events()[-2:]
    assert (stop["event"], stop["status"]) == ("no_progress_stop", "blocked")
    assert last["event"] == "loop_stop"
    assert last["data"]["reason"] == "no_progress"
    assert demo.entries()[-1]["gates"]["tests"] == "failed"
    assert demo.state()["active"] is False


def test_crashing_run_leaves_everything_as_if_it_ran(demo: Demo) -> None:
    assert ends(demo.start("--pace", "0", "--scenario", "crashing")) == (-signal.SIGKILL, "", "")

    assert demo.names()[-1] == "iteration_end"
    assert demo.entries()[-1]["gates"]["tests"] == "failed"
    assert demo.state()["active"] is True
    assert (demo.root / "active-run.json").exists()


def test_approved_run_completes(demo: Demo) -> None:
    process = demo.start("--pace", "0", "--iterations", "1", "--scenario", "approval")
    until(demo.waits_for_decision)
    request = read(demo.loop / "approval.json")
    assert list(request) == REQUEST_KEYS
    assert list(request["candidate"]) == ["promise", "gates"]
    assert list(request["candidate"]["promise"]) == ["expected", "text", "matched"]
    assert list(request["candidate"]["gates"]) == GATE_KEYS[:-1]
    assert list(request["files"]) == (
        ["gate_summary", "evidence", "reviewer_report", "test_report", "plan", "iteration_notes"]
    )
    assert all((demo.repo / path).is_file() for path in request["files"].values())

    result = demo.approve("--by", "ana", "--note", "-- fine")

    assert result.returncode == 0
    assert ends(process)[0] == 0
    assert demo.names()[-5:] == [
        "approval_requested",
        "approval_wait",
        "approval_decision",
        "approval_consumed",
        "loop_complete",
    ]
    decision, consumed, complete = demo.events()[-3:]
    assert (decision["role"], decision["status"]) == ("human", "approved")
    assert list(decision["data"]) == ["status", "by", "note", "at"]
    assert decision["data"]["note"] == "-- fine"
    assert consumed["data"] == decision["data"]
    assert "status" not in consumed
    assert complete["data"]["approval"] is True
    assert demo.entries()[-1]["completion_ok"] is True
    assert demo.entries()[-2]["completion_ok"] is False
    assert not (demo.loop / "approval.json").exists()


def test_rejected_run_goes_on_and_asks_again(demo: Demo) -> None:
    demo.start("--pace", "0.02", "--iterations", "1", "--scenario", "approval")
    until(demo.waits_for_decision)

    assert demo.approve("--by", "", "--reject").returncode == 0

    until(lambda: "approval_rejected" in demo.names())
    rejected = read(demo.loop / "approval.json")
    assert list(rejected) == DECIDED_KEYS
    assert rejected["status"] == "rejected"
    assert rejected["decision"] == {
        "status": "rejected",
        "by": "",
        "note": None,
        "at": rejected["decided_at"],
    }
    assert (rejected["decided_by"], rejected["decided_note"]) == ("", None)
    decision = demo.events()[demo.names().index("approval_decision")]
    assert decision["data"] == rejected["decision"]
    assert demo.state()["active"] is True
    until(lambda: demo.waits_for_decision() and read(demo.loop / "approval.json")["iteration"] == 2)


def test_decision_outlives_the_run_that_asked(demo: Demo) -> None:
    flags = ("--pace", "0", "--iterations", "1", "--scenario", "approval")
    first = demo.start(*flags)
    until(demo.waits_for_decision)
    first.terminate()
    assert ends(first)[0] == 128 + signal.SIGTERM

    assert demo.approve("--by", "ana").returncode == 0
    assert ends(demo.start(*flags))[0] == 0

    assert demo.names()[-3:] == ["loop_start", "approval_consumed", "loop_complete"]


def test_decision_is_refused_when_nothing_is_pending(demo: Demo) -> None:
    assert_refused(demo.approve("--by", "ana"), "demo")
    demo.start("--pace", "60", "--iterations", "1")
    assert_refused(demo.approve("--by", "ana"), "demo")
    assert "approval_decision" not in demo.names()


def test_by_defaults_to_the_user(demo: Demo) -> None:
    process = demo.start("--pace", "0", "--iterations", "1", "--scenario", "approval")
    until(demo.waits_for_decision)

    result = demo.call("approve", "--repo", str(demo.repo), "--loop", "demo", USER="bea")

    assert result.returncode == 0

    ends(process)
    assert demo.events()[-2]["data"]["by"] == "bea"


def test_cancel_ends_the_run_and_removes_its_state_without_an_event(demo: Demo) -> None:
    process = demo.start("--pace", "0.01", "--iterations", "0")
    until(lambda: "iteration_end" in demo.names())

    result = demo.cancel()

    assert (result.returncode, result.stderr) == (0, "")
    assert str(process.pid) in result.stdout
    assert ends(process)[0] == 128 + signal.SIGTERM
    assert not (demo.root / "state.json").exists()
    assert not (demo.root / "active-run.json").exists()
    assert {event["event"] for event in demo.events()} <= EVENT_NAMES
    assert not any("cancel" in name for name in demo.names())


def test_cancel_of_a_waiting_run_leaves_the_approval(demo: Demo) -> None:
    process = demo.start("--pace", "0", "--iterations", "1", "--scenario", "approval")
    until(demo.waits_for_decision)

    assert demo.cancel().returncode == 0

    assert ends(process)[0] == 128 + signal.SIGTERM
    assert read(demo.loop / "approval.json")["status"] == "pending"


def test_cancel_is_refused_when_nothing_runs(demo: Demo) -> None:
    assert_refused(demo.cancel(), str(demo.repo))
    assert not demo.root.exists()


def test_cancel_clears_up_after_a_killed_run(demo: Demo) -> None:
    process = demo.start("--pace", "60")
    process.kill()
    ends(process)
    assert (demo.root / "active-run.json").exists()

    assert demo.cancel().returncode == 0

    assert not (demo.root / "active-run.json").exists()
    assert not (demo.root / "state.json").exists()


def test_process_that_is_no_demo_is_neither_cancelled_nor_joined(demo: Demo) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        demo.root.mkdir()
        active = demo.root / "active-run.json"
        active.write_text(json.dumps({"repo": str(demo.repo), "pid": stranger.pid}))

        assert_refused(demo.cancel(), str(stranger.pid))
        assert_refused(demo.call("--repo", str(demo.repo)), str(stranger.pid))

        assert stranger.poll() is None
        assert active.exists()
    finally:
        stranger.communicate(b"\n", timeout=DEADLINE_SECONDS)


def test_second_run_in_a_repository_is_refused(demo: Demo) -> None:
    process = demo.start("--pace", "60")

    assert_refused(demo.call("--repo", str(demo.repo), "--loop", "other"), str(demo.repo))

    assert read(demo.root / "active-run.json")["pid"] == process.pid
    assert process.poll() is None
    assert not (demo.loop.parent / "other").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_in_mid_run_leaves_whole_lines(demo: Demo, number: signal.Signals) -> None:
    process = demo.start("--pace", "0", "--iterations", "0")
    until(lambda: len(demo.events()) > 50)

    process.send_signal(number)

    assert ends(process) == (128 + number, "", "")
    data = (demo.loop / "events.jsonl").read_bytes()
    assert data.endswith(b"\n")
    assert {event["event"] for event in demo.events()} <= EVENT_NAMES
    assert not (demo.root / "active-run.json").exists()
    assert demo.state()["active"] is True
    assert not list(demo.root.rglob("*.tmp"))


def test_signal_is_obeyed_at_once_in_a_long_pause(demo: Demo) -> None:
    process = demo.start("--pace", "3600")
    until(lambda: demo.names() == ["loop_start"])

    process.terminate()

    assert ends(process)[0] == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    "loop_id", ["", "..", ".", "a/b", "a\\b", "a\nb", "x" * 256], ids=lambda loop_id: loop_id[:5] or "empty"
)
def test_loop_id_that_is_no_directory_name_is_refused(demo: Demo, loop_id: str) -> None:
    assert_refused(demo.call("--repo", str(demo.repo), "--loop", loop_id))
    assert not demo.root.exists()


@pytest.mark.parametrize(
    ("flags", "detail"),
    [
        (("--pace", "-1"), "--pace"),
        (("--pace", "nan"), "--pace"),
        (("--iterations", "two"), "--iterations"),
        (("--iterations", "0", "--scenario", "approval"), "--iterations"),
        (("--scenario", "sunny"), "--scenario"),
        (("--loop",), "--loop"),
        (("--colour", "red"), "--colour"),
    ],
)
def test_wrong_flag_is_refused_by_name(demo: Demo, flags: tuple[str, ...], detail: str) -> None:
    assert_refused(demo.call("--repo", str(demo.repo), *flags), detail)


def test_repository_must_exist(demo: Demo) -> None:
    missing = str(demo.repo / "missing")
    assert_refused(demo.call("--repo", missing), missing)
    assert_refused(demo.call("cancel", "--repo", missing), missing)


def test_damaged_approval_is_refused_before_anything_is_written(demo: Demo) -> None:
    demo.loop.mkdir(parents=True)
    (demo.loop / "approval.json").write_text('{"status":"pending"}')

    assert_refused(demo.call("--repo", str(demo.repo)), "approval.json")
    assert not (demo.loop / "events.jsonl").exists()


def test_runtime_form_demands_its_first_word(demo: Demo) -> None:
    code = "import sys; from sprite_agent.demo.cli import runtime_main; sys.exit(runtime_main())"

    def runtime(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False
        )

    assert runtime("run", "--repo", str(demo.repo), "--pace", "0").returncode == 0
    assert_refused(runtime("--repo", str(demo.repo)), "cancel")
    assert_refused(runtime("approve", "--repo", str(demo.repo), "--loop", "demo", "--by", "ana"), "demo")


@pytest.mark.parametrize(
    ("command_line", "expected"),
    [
        (["python", "-m", "sprite_agent.demo", "--repo", "/r"], True),
        (["python", "-m", "sprite_agent", "demo-loop", "--repo=/r"], True),
        (["python", "/bin/superloop-demo", "run", "--repo", "r"], True),
        (["python", "/x/sprite_agent/demo/__main__.py", "--repo", "/r/"], True),
        (["python", "-m", "sprite_agent.demo", "--repo", "/other"], False),
        (["python", "-m", "sprite_agent.demo"], False),
        (["python", "-m", "sprite_agent", "serve", "--repo", "/r"], False),
        ([], False),
    ],
)
def test_demo_is_told_by_its_command_line(command_line: list[str], expected: bool) -> None:
    assert is_demo_of("/r", command_line, "/") is expected


def test_help_needs_neither_grpc_nor_psutil() -> None:
    code = (
        "import sys; from sprite_agent.demo.cli import main; main(['--help']);"
        "sys.exit(bool({'grpc', 'google.protobuf', 'rich', 'psutil'} & set(sys.modules)))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, check=False, stdout=subprocess.DEVNULL
        ).returncode
        == 0
    )
