"""Rows and answers of control: those that v1 wrote, made again out of an outcome."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from spritemesh.bridge.control import (
    Facts,
    answer_document,
    answer_of_outcome,
    control_row,
    intent_row,
    invocation_row,
)
from spritemesh.bridge.told import (
    Told,
    exit_code,
    status_word,
    told_by_answer,
    told_by_failure,
    told_by_outcome,
    told_by_refusal,
    told_by_silence,
)
from spritemesh.control import Confirmation, intent_value
from superloop.ops.v1 import control_pb2 as pb

GOLDEN = Path(__file__).parents[2] / "contract" / "golden"
OPS = ".superloop/ops-manager/alpha/"
NOW = "2024-03-11T09:00:07Z"
AT = datetime.fromisoformat(NOW).timestamp()
FACTS = Facts("alpha", "cancel", "t", "op", "", "key", "local", AT - 2, AT)


def rows(text: str) -> list[dict[str, Any]]:
    """Recorded rows, with a time and numbers for the placeholders."""
    for placeholder, value in (('"<int>"', "1"), ("<now>", NOW), ("<key>", "cancel-1-2")):
        text = text.replace(placeholder, value)
    return [json.loads(line) for line in text.splitlines()]


def recorded() -> list[Any]:
    """Of each local control call of the golden cases: its three rows."""
    found: list[Any] = []
    for path in sorted(GOLDEN.glob("control-*.json")):
        last: dict[str, Any] = {}
        for step in json.loads(path.read_text())["steps"]:
            if step["command"] == "control":
                last = {**last, **step["expect"]["files_after"]}
        names = (f"{OPS}intents.jsonl", f"{OPS}telemetry/control.jsonl")
        files = [rows(last.get(name) or "") for name in (*names, f"{OPS}telemetry/control-invocations.jsonl")]
        found += [
            pytest.param(*three, id=f"{path.stem}-{number}")
            for number, three in enumerate(zip(*files, strict=True))
            if three[0]["transport"] == "local"
        ]
    return found


def outcome_of(row: dict[str, Any]) -> pb.ControlOutcome:
    """The outcome that an agent would tell of a row of intents.jsonl."""
    outcome = pb.ControlOutcome(
        loop_id=row["loopId"],
        intent=intent_value(row["intent"]),
        status=pb.ControlStatus.Value(f"CONTROL_STATUS_{row['status'].upper()}"),
        exit_code=row["exitCode"],
        command=row["command"],
        output_tail=row.get("commandOutput", ""),
    )
    if "confirm" in row:
        confirm = row["confirm"]
        outcome.confirmation.confirmed = confirm["confirmed"]
        outcome.confirmation.reason = confirm["reason"]
        outcome.confirmation.attempts = confirm["attempts"]
        outcome.confirmation.timeout.FromSeconds(confirm["timeoutSeconds"])
        outcome.confirmation.observed_status = confirm["observedStatus"]
        outcome.confirmation.observed_active = confirm["observedActive"]
        outcome.confirmation.observed_at = confirm["observedAt"]
        for member, name in (
            ("observed_last_event", "observedLastEvent"),
            ("observed_approval_status", "observedApprovalStatus"),
        ):
            if confirm[name] is not None:
                setattr(outcome.confirmation, member, confirm[name])
    return outcome


def ordered(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False)


def test_there_are_recorded_rows() -> None:
    assert len(recorded()) >= 5


@pytest.mark.parametrize(("intent", "control", "invocation"), recorded())
def test_rows_are_those_that_were_recorded(
    intent: dict[str, Any], control: dict[str, Any], invocation: dict[str, Any]
) -> None:
    asked = invocation["request"]
    facts = FACTS._replace(
        intent=intent["intent"],
        trace_id=intent["traceId"],
        requested_by=intent["requestedBy"],
        note=intent.get("note", ""),
        idempotency_key=intent["idempotencyKey"],
        started_at=AT,
        confirmation=Confirmation(
            not asked["doConfirm"], float(asked["timeoutSeconds"]), float(asked["intervalSeconds"])
        ),
        retry_attempts=asked["retryAttempts"],
        retry_backoff_seconds=asked["retryBackoffSeconds"],
    )
    # Placeholders of durations became 1.
    seconds = facts._replace(started_at=AT - control["durationSeconds"])
    told = told_by_outcome(outcome_of(intent))
    assert ordered(intent_row(told, facts)) == ordered(intent)
    control["startedAt"] = control_row(told, seconds)["startedAt"]
    assert ordered(control_row(told, seconds)) == ordered(control)
    invocation["startedAt"] = control["startedAt"]
    assert ordered(invocation_row(told, seconds)) == ordered(invocation)


@pytest.mark.parametrize(
    ("status", "code"),
    [("confirmed", 0), ("executed_unconfirmed", 0), ("ambiguous", 2), ("failed_command", 1), ("refused", 1)],
)
def test_exit_code_is_that_of_the_status(status: str, code: int) -> None:
    assert exit_code(status) == code


def test_status_of_a_newer_agent_is_ambiguous() -> None:
    assert status_word(pb.CONTROL_STATUS_UNSPECIFIED) == "ambiguous"


@pytest.mark.parametrize("reason", ["runtime_killed", "runtime_timeout", "control_interrupted"])
def test_command_whose_end_is_not_known_is_told_as_such(reason: str) -> None:
    told = told_by_outcome(pb.ControlOutcome(status=pb.CONTROL_STATUS_AMBIGUOUS, reason=reason))
    assert (told.execution_status, told.confirmation_status) == ("unknown", "not_attempted")
    assert (told.exit_code, told.confirm_exit_code, told.reason_code) == (None, 0, "control_ambiguous")
    row: Any = invocation_row(told, FACTS)
    assert row["execution"]["reasonCode"] == reason
    assert row["confirmation"] == {"attempted": False, "status": "not_attempted", "exitCode": 0}


def test_refusal_names_its_reason() -> None:
    row: Any = invocation_row(told_by_refusal("nothing_pending", ""), FACTS)
    assert row["outcome"]["status"] == "refused"
    assert row["outcome"]["reasonCode"] == row["execution"]["reasonCode"] == "nothing_pending"
    assert row["execution"]["replayed"] is False


# Status, exit code, execution and confirmation.
ANSWERS: list[tuple[Any, str]] = [
    ({"ok": True, "exitCode": 0, "result": {"status": "confirmed"}}, "confirmed 0 succeeded confirmed"),
    ({"result": {"status": "executed_unconfirmed"}}, "executed_unconfirmed 0 succeeded skipped"),
    ({"ok": False, "exitCode": 2}, "ambiguous 2 succeeded ambiguous"),
    ({"ok": False, "exitCode": 1}, "failed_command 1 failed_command not_attempted"),
    ({"ok": True}, "confirmed 0 succeeded confirmed"),
    (
        {"result": {"status": "failed_command", "confirm": {}}},
        "failed_command 0 failed_command attempted_unknown",
    ),
    ({"result": {"status": "novel"}}, "novel 0 succeeded not_attempted"),
    (None, "failed_command 0 failed_command not_attempted"),
    ({"ok": "yes", "exitCode": True, "result": 7}, "failed_command 0 failed_command not_attempted"),
]


@pytest.mark.parametrize(("answer", "expected"), ANSWERS)
def test_answer_of_a_service_is_read_as_v1_reads_it(answer: Any, expected: str) -> None:
    told = told_by_answer(answer, "POST x", "{}")
    found = (told.status, told.exit_code, told.execution_status, told.confirmation_status)
    assert " ".join(map(str, found)) == expected


def test_outcome_is_the_same_by_answer() -> None:
    """What a manager hears over HTTP is what it hears over gRPC."""
    outcome = pb.ControlOutcome(
        loop_id="alpha",
        intent=pb.CONTROL_INTENT_CANCEL,
        status=pb.CONTROL_STATUS_CONFIRMED,
        exit_code=0,
        replayed=True,
        trace_id="t",
    )
    outcome.confirmation.confirmed = True
    answer = answer_of_outcome(outcome, Confirmation())
    assert (answer["ok"], answer["exitCode"], answer["replayed"], answer["traceId"]) == (True, 0, True, "t")
    told = told_by_answer(answer, "POST x", "{}")
    here = told_by_outcome(outcome)
    assert told.confirm == here.confirm
    for member in ("status", "exit_code", "confirmed", "execution_status", "confirmation_status", "replayed"):
        assert getattr(told, member) == getattr(here, member)


@pytest.mark.parametrize(
    ("told", "exit_of_it"),
    [(told_by_failure("POST x"), 1), (told_by_silence("POST x", "deadline_exceeded"), 2)],
)
def test_answer_of_nobody(told: Told, exit_of_it: int) -> None:
    document = answer_document(intent_row(told, FACTS), told, stderr="")
    assert (document["ok"], document["exitCode"]) == (False, exit_of_it)
    assert "stderr" not in document


def test_duration_is_of_whole_seconds_and_never_negative() -> None:
    told = told_by_failure("")
    assert control_row(told, FACTS)["durationSeconds"] == 2
    assert control_row(told, FACTS._replace(finished_at=AT - 100))["durationSeconds"] == 0
