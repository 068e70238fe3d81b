"""`ops-manager trace`, over what passes really write."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from spritemesh import traceindex
from spritemesh.ids import new_trace_id
from spritemesh.traceparent import hex_form
from tests.harness.control import Runtime
from tests.harness.manager import Ran, run

OLD = '{"event":"loop_start","timestamp":"2024-01-01T00:00:00Z"}\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository whose loops alpha and beta are so old that a pass escalates."""
    for loop in ("alpha", "beta"):
        directory = tmp_path / ".superloop/loops" / loop
        directory.mkdir(parents=True)
        (directory / "events.jsonl").write_text(OLD)
    return tmp_path


def reconcile(root: Path, trace_id: str, loop: str = "alpha") -> None:
    # A pass fails when there is no log, and is a step of the trace all the same.
    words = ("--repo", str(root), "--loop", loop, "--trace-id", trace_id, "--alerts-enabled", "false")
    assert run("reconcile", *words).err == ""


def trace(root: Path, *words: str) -> Ran:
    return run("trace", *words, "--repo", str(root))


def tree(root: Path, *words: str) -> Any:
    """The document without what differs between index and artifacts."""
    ran = trace(root, *words)
    assert ran.code == 0, ran.err
    return ran.documents[0]


def kinds(steps: list[Any]) -> list[Any]:
    return [(step["kind"], kinds(step.get("steps", []))) for step in steps]


def test_pass_and_its_escalation_are_one_tree_with_measured_times(root: Path) -> None:
    reconcile(root, "t1")
    reconcile(root, "t2")
    document = tree(root, "t1")
    (step,) = document["steps"]
    assert (step["kind"], step["status"], step["offsetSeconds"]) == ("reconcile", "success", 0)
    assert 0 < step["durationSeconds"] < 10
    assert step["detail"] == {"transport": "local", "eventsIngested": 1, "healthStatus": "critical"}
    escalation = step["steps"][0]
    assert escalation["kind"] == "escalation"
    assert escalation["detail"]["category"] == "health_critical"
    for each in (step, escalation):
        assert "t1" in (root / each["file"]).read_text()
    assert document["startedAt"] == step["at"]
    assert not step["at"].endswith(":00.000Z")


def test_way_from_an_intent_to_the_alert_is_told_whole(root: Path, tmp_path: Path) -> None:
    log = root / ".superloop/loops/alpha/events.jsonl"
    runtime = Runtime(tmp_path / "runtime")
    done = {"event": "loop_complete", "timestamp": "2024-01-01T00:00:05Z"}
    runtime.does(f"printf '%s\\n' {shlex.quote(json.dumps(done))} >> {shlex.quote(str(log))}")
    words = ("--repo", str(root), "--loop", "alpha", "--trace-id", "t1")
    again = ("control", *words, "--intent", "approve", "--idempotency-key", "k")
    for _ in range(2):
        assert run(*again, SUPERLOOP_BIN=str(runtime.path)).code == 0
    assert run("reconcile", *words).code == 0
    told: Any = ("invocation", [("runtime", []), ("confirmation", [("effect", [])])])
    whole = [
        ("intent", [told, ("invocation", [])]),
        ("reconcile", [("escalation", [("alert", [])])]),
    ]
    document = tree(root, "t1")
    assert kinds(document["steps"]) == whole
    intent = document["steps"][0]
    assert (intent["status"], intent["detail"]["idempotencyKey"]) == ("confirmed", "k")
    assert 0 < intent["durationSeconds"] < 10
    assert len(runtime.calls) == 1
    # All but the effect is in the artifacts, too.
    shutil.rmtree(root / ".superloop/trace")
    told[1][1][1].clear()
    assert kinds(tree(root, "t1")["steps"]) == whole


def test_refused_intent_is_told_with_its_reason(root: Path) -> None:
    words = ("--repo", str(root), "--loop", "alpha", "--trace-id", "t1")
    assert run("control", *words, "--intent", "approve", "--expect-approval", "a" * 64).code == 1
    (invocation,) = tree(root, "t1")["steps"]
    assert (invocation["kind"], invocation["status"], invocation["detail"]["reasonCode"]) == (
        "invocation",
        "refused",
        "target_changed",
    )
    assert "steps" not in invocation


def test_failed_pass_is_a_step_with_its_failure(root: Path) -> None:
    reconcile(root, "t1", loop="ghost")
    (step,) = tree(root, "t1")["steps"]
    assert (step["status"], step["detail"]["failureCode"]) == ("failed", "snapshot_unavailable")


def test_index_that_is_lost_or_torn_is_made_up_for_by_the_artifacts(root: Path) -> None:
    for loop in ("alpha", "beta"):
        reconcile(root, "t1", loop)
        reconcile(root, "t2", loop)
    before = tree(root, "t1")
    assert before["loops"] == ["alpha", "beta"]
    index = Path(traceindex.index_path(str(root)))
    whole = index.read_bytes()
    index.write_bytes(whole[: len(whole) // 4])
    assert kinds(tree(root, "t1", "--loop", "alpha")["steps"]) == kinds(
        [step for step in before["steps"] if step["loopId"] == "alpha"]
    )
    shutil.rmtree(index.parent)
    after = tree(root, "t1")
    assert kinds(after["steps"]) == kinds(before["steps"])
    assert after["loops"] == before["loops"]


def test_rows_of_rotated_artifacts_are_found(root: Path) -> None:
    reconcile(root, "t1")
    telemetry = root / ".superloop/ops-manager/alpha/telemetry/reconcile.jsonl"
    telemetry.rename(f"{telemetry}.1")
    shutil.rmtree(root / ".superloop/trace")
    reconcile(root, "t2")
    document = tree(root, "t1", "--loop", "alpha")
    assert document["steps"][0]["file"].endswith("reconcile.jsonl.1")


def test_event_that_carries_the_trace_id_is_a_step(root: Path) -> None:
    log = root / ".superloop/loops/alpha/events.jsonl"
    event = {"event": "loop_stop", "timestamp": "2024-01-01T00:00:05Z", "data": {"trace_id": "t1"}}
    log.write_text(OLD + json.dumps(event, separators=(",", ":")) + "\n")
    (step,) = tree(root, "t1")["steps"]
    assert (step["kind"], step["at"], step["detail"]) == (
        "event",
        "2024-01-01T00:00:05.000Z",
        {"name": "loop_stop"},
    )


def test_only_the_named_loop_is_told_of(root: Path) -> None:
    reconcile(root, "t1", "alpha")
    reconcile(root, "t1", "beta")
    assert tree(root, "t1", "--loop", "beta")["loops"] == ["beta"]
    ran = trace(root, "t1", "--loop", "gamma")
    assert (ran.code, ran.out) == (1, "")
    assert "[trace_not_found]" in ran.err


def test_damaged_line_of_the_trace_is_counted(root: Path) -> None:
    reconcile(root, "t1")
    with (root / ".superloop/ops-manager/alpha/telemetry/reconcile.jsonl").open("a") as file:
        file.write('{"traceId":"t1","status":\n')
    assert tree(root, "t1")["skippedLines"] == 1
    assert "skippedLines 1" in trace(root, "t1", "--output", "table").out


def test_either_spelling_of_an_id_finds_the_trace(root: Path) -> None:
    uuid, digits = new_trace_id(), hex_form(new_trace_id())
    reconcile(root, uuid)
    reconcile(root, digits)
    assert tree(root, hex_form(uuid))["traceId"] == uuid
    assert (
        tree(root, f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}")["traceId"]
        == digits
    )


def test_telemetry_that_cannot_be_written_does_not_fail_a_pass(root: Path) -> None:
    (root / ".superloop/trace").write_text("in the way")
    reconcile(root, "t1")
    assert kinds(tree(root, "t1")["steps"]) == [("reconcile", [("escalation", [])])]


@pytest.mark.parametrize("damage", [b"\xff\xfe\n", b"null\n[]\n7\n", b'{"traceId":"t1"}\n', b"\0" * 10_000])
def test_damaged_index_never_stands_in_the_way(root: Path, damage: bytes) -> None:
    reconcile(root, "t1")
    index = Path(traceindex.index_path(str(root)))
    index.write_bytes(damage + index.read_bytes() + damage)
    assert kinds(tree(root, "t1")["steps"]) == [("reconcile", [("escalation", [])])]
    assert trace(root, "--recent", "5").code == 0


def test_recent_lists_the_last_trace_ids_the_latest_first(root: Path) -> None:
    for number in range(5):
        reconcile(root, f"t{number}", "beta" if number == 2 else "alpha")
    traces = tree(root, "--recent", "3")["traces"]
    assert [found["traceId"] for found in traces] == ["t4", "t3", "t2"]
    assert (traces[2]["loops"], traces[2]["kinds"]) == (["beta"], ["reconcile", "escalation"])
    assert [found["traceId"] for found in tree(root, "--recent", "3", "--loop", "beta")["traces"]] == ["t2"]


def test_recent_of_a_repository_without_an_index_is_empty(tmp_path: Path) -> None:
    assert tree(tmp_path, "--recent", "3")["traces"] == []


def test_people_get_a_tree_and_a_list(root: Path) -> None:
    reconcile(root, "t1")
    shown = trace(root, "t1", "--output", "table").out
    for fact in ("t1", "+0.000 s", "reconcile", "success", "alpha", "escalation", "category=health_critical"):
        assert fact in shown
    assert "t1" in trace(root, "--recent", "1", "--output", "table").out


def test_list_of_traces_fits_a_terminal_of_80_columns(root: Path) -> None:
    identity = "01234567-89ab-cdef-0123-456789abcdef"
    reconcile(root, identity)
    lines = run(
        "trace", "--recent", "1", "--repo", str(root), "--output", "table", COLUMNS="80"
    ).out.splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= 80
    assert re.fullmatch(rf"{identity}  \d\d-\d\d \d\d:\d\d:\d\d  success  alpha", lines[1].rstrip())


@pytest.mark.parametrize("seconds", ["1e999", "-1e999", "-5", "1e300", "9" * 400])
def test_row_with_no_possible_duration_is_told_without_one(root: Path, seconds: str) -> None:
    row = '{"traceId":"t1","at":"2024-01-01T00:00:00Z","loopId":"alpha","kind":"reconcile"'
    index = Path(traceindex.index_path(str(root)))
    index.parent.mkdir(parents=True)
    index.write_text(f'{row},"durationSeconds":{seconds}}}\n')
    (step,) = tree(root, "t1")["steps"]
    assert (step["kind"], "durationSeconds" in step) == ("reconcile", False)
    assert trace(root, "t1", "--output", "table").code == 0
    assert trace(root, "--recent", "1").code == 0


def test_repository_is_the_current_directory_unless_one_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconcile(root, "t1")
    monkeypatch.chdir(root)
    assert run("trace", "t1", PWD=str(root)).documents[0]["repoPath"] == str(root)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "invalid_request"),
        (("t1", "--recent", "3"), "invalid_request"),
        (("--recent", "0"), "invalid_request"),
        (("--recent", "1001"), "invalid_request"),
        (("a\nb",), "invalid_trace_id"),
        (("x" * 129,), "invalid_trace_id"),
        (("t1", "--loop", "../x"), "invalid_loop_id"),
        (("t1", "--repo", "/nowhere"), "repo_not_found"),
        (("nobody-has-it",), "trace_not_found"),
    ],
)
def test_wrong_request_is_refused_with_its_reason(root: Path, words: tuple[str, ...], reason: str) -> None:
    ran = run("trace", *words, *(() if "--repo" in words else ("--repo", str(root))))
    assert (ran.code, ran.out) == (1, "")
    assert f"[{reason}]" in ran.err


def test_commands_that_only_look_take_no_trace_id_from_the_environment(root: Path) -> None:
    variables = {"OPS_MANAGER_TRACE_ID": "t1", "TRACEPARENT": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    for command in ("loop-run-snapshot", "poll-events"):
        ran = run(command, "--repo", str(root), "--loop", "alpha", **variables)
        assert ran.documents[0]["traceId"] is None
    assert run("health", **variables).documents[0]["traceId"] is None
