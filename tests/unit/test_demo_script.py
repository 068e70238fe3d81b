"""The script of a demo run, played in memory: which steps in which order, and the shape of each event."""

import pytest

from sprite_agent.demo.documents import Document, decided
from sprite_agent.demo.script import Plan, Scenario, play
from sprite_agent.demo.steps import (
    ActiveRun,
    AwaitDecision,
    Entry,
    Log,
    RemoveApproval,
    Request,
    State,
    Step,
)

NOW = "2024-03-11T09:00:00Z"

# Data members of every event that a demo may log, in contract order (A.1); "?" marks one that may lack.
DATA = {
    "loop_start": "spec_file max_iterations tests_mode test_commands checklists prerequisites delegation rlms"
    " lifecycle git",
    "iteration_start": "started_at",
    "role_start": "prompt_file log_file last_message_file",
    "role_end": "log_file last_message_file",
    "promise_checked": "expected text matched",
    "checklist_start": "patterns",
    "checklist_end": "status ok details",
    "tests_start": "mode commands",
    "tests_end": "status details",
    "validation_start": "enabled mode",
    "validation_end": "status results_file",
    "evidence_start": "enabled",
    "evidence_end": "status evidence_file",
    "gates_evaluated": "promise tests validation prerequisites checklist evidence lifecycle approval stuck",
    "stuck_checked": "streak threshold triggered action",
    "auto_commit_skipped": "reason tests_status?",
    "iteration_end": "started_at ended_at completion promise tests validation prerequisites checklist"
    " evidence lifecycle approval",
    "approval_requested": "approval_file promise tests validation prerequisites checklist evidence lifecycle",
    "approval_wait": "status approval_file",
    "approval_consumed": "status by? note? at?",
    "approval_rejected": "status approval_file",
    "no_progress_stop": "reason code_signature test_signature streak threshold",
    "loop_stop": "reason streak threshold",
    "loop_complete": "iteration run_id approval?",
}
ITERATION = [
    "iteration_start",
    *["role_start", "role_end"] * 4,
    "promise_checked",
    "checklist_start",
    "checklist_end",
    "tests_start",
    "tests_end",
    "validation_start",
    "validation_end",
    "evidence_start",
    "evidence_end",
    "gates_evaluated",
    "stuck_checked",
    "auto_commit_skipped",
    "iteration_end",
]


def plan(scenario: Scenario = Scenario.HEALTHY, iterations: int = 2) -> Plan:
    return Plan("alpha", NOW, ".superloop/loops/alpha", scenario, iterations)


def steps_of(
    planned: Plan, *decisions: str, left_over: Document | None = None, limit: int = 1000
) -> list[Step]:
    """All steps, answering each wait with the next decision; ends there when none is left."""
    script = play(planned, lambda: NOW, left_over)
    steps: list[Step] = []
    waiting = list(decisions)
    asked = left_over
    answer: Document | None = None
    while len(steps) < limit:
        try:
            step = script.send(answer)
        except StopIteration:
            break
        steps.append(step)
        answer = None
        if isinstance(step, Request):
            asked = step.approval
        if isinstance(step, AwaitDecision):
            if not waiting:
                break
            assert asked is not None
            answer = decided(asked, status=waiting.pop(0), by="ana", note="", now=NOW)
    return steps


def logged(steps: list[Step]) -> list[Log]:
    return [step for step in steps if isinstance(step, Log)]


def names(steps: list[Step]) -> list[str]:
    return [step.event for step in logged(steps)]


def entries(steps: list[Step]) -> list[Document]:
    return [step.entry for step in steps if isinstance(step, Entry)]


def pending() -> Document:
    steps = steps_of(plan(Scenario.APPROVAL, 2))
    return next(step.approval for step in steps if isinstance(step, Request))


def test_healthy_run_completes_after_its_last_iteration() -> None:
    steps = steps_of(plan(iterations=2))

    assert names(steps) == ["loop_start", *ITERATION, *ITERATION, "loop_complete"]
    assert [entry["completion_ok"] for entry in entries(steps)] == [False, True]
    assert steps[-1] == State(False, 2, "")


def test_endless_run_goes_on() -> None:
    steps = steps_of(plan(iterations=0), limit=5000)

    assert len(steps) == 5000
    assert "loop_complete" not in names(steps)
    assert not any(entry["completion_ok"] for entry in entries(steps))


def test_failing_run_stops_for_lack_of_progress() -> None:
    steps = steps_of(plan(Scenario.FAILING, 2))

    assert names(steps)[-2:] == ["no_progress_stop", "loop_stop"]
    stop = logged(steps)[-2]
    assert (stop.status, stop.data["streak"], stop.data["threshold"]) == ("blocked", 2, 2)
    assert {entry["gates"]["tests"] for entry in entries(steps)} == {"failed"}
    checked = [step.data for step in logged(steps) if step.event == "stuck_checked"]
    assert [data["triggered"] for data in checked] == [False, True]


def test_approval_is_asked_for_before_it_can_be_decided() -> None:
    steps = steps_of(plan(Scenario.APPROVAL, 1))

    requested, waits, request, state, wait = steps[-5:]
    assert isinstance(requested, Log)
    assert requested.event == "approval_requested"
    assert isinstance(waits, Log)
    assert (waits.event, waits.at_once) == ("approval_wait", True)
    assert isinstance(request, Request)
    assert state == State(False, 1, "alpha")
    assert isinstance(wait, AwaitDecision)
    assert entries(steps)[-1]["completion_ok"] is False
    assert entries(steps)[-1]["gates"]["approval"] == "pending"


def test_approved_run_completes_with_a_further_entry() -> None:
    steps = steps_of(plan(Scenario.APPROVAL, 1), "approved")

    assert names(steps)[-2:] == ["approval_consumed", "loop_complete"]
    assert logged(steps)[-1].data == {"iteration": 1, "run_id": NOW, "approval": True}
    asked, approved = entries(steps)
    assert (asked["completion_ok"], approved["completion_ok"]) == (False, True)
    assert approved["gates"] == {**asked["gates"], "approval": "approved"}
    assert list(approved["gates"]) == list(asked["gates"])
    assert list(approved) == list(asked)
    assert steps[-2:] == [RemoveApproval(), State(False, 1, "")]


def test_rejected_run_does_a_further_iteration_and_asks_again() -> None:
    steps = steps_of(plan(Scenario.APPROVAL, 1), "rejected", "approved")

    asking = ["approval_requested", "approval_wait"]
    again = ["approval_rejected", *ITERATION, *asking, "approval_consumed", "loop_complete"]
    assert names(steps) == ["loop_start", *ITERATION, *asking, *again]
    assert [step.iteration for step in logged(steps) if step.event == "iteration_start"] == [1, 2]


def test_rejection_is_readable_until_its_iteration_ends() -> None:
    rejected = decided(pending(), status="rejected", by="ana", note="", now=NOW)

    steps = steps_of(plan(iterations=5), left_over=rejected)

    ended = next(
        place for place, step in enumerate(steps) if isinstance(step, Log) and step.event == "iteration_end"
    )
    assert RemoveApproval() not in steps[:ended]
    assert steps.count(RemoveApproval()) == 1


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("pending", ["loop_start", "approval_wait"]),
        ("approved", ["loop_start", "approval_consumed", "loop_complete"]),
        ("rejected", ["loop_start", "approval_rejected", *ITERATION, "loop_complete"]),
    ],
)
def test_run_settles_the_approval_of_an_earlier_one_first(status: str, expected: list[str]) -> None:
    left_over = pending()
    if status != "pending":
        left_over = decided(left_over, status=status, by="ana", note="", now=NOW)

    assert names(steps_of(plan(iterations=2), left_over=left_over)) == expected


def test_active_run_names_the_loop_from_loop_start_on() -> None:
    runs = [step for step in steps_of(plan(iterations=2)) if isinstance(step, ActiveRun)]

    assert [(run.stage, run.loop_id) for run in runs] == [("run_start", None)] + [("loop_start", "alpha")] * 3


@pytest.mark.parametrize(
    ("scenario", "decisions"),
    [(Scenario.HEALTHY, ()), (Scenario.FAILING, ()), (Scenario.APPROVAL, ("rejected", "approved"))],
)
def test_event_data_has_the_members_of_the_contract_in_order(
    scenario: Scenario, decisions: tuple[str, ...]
) -> None:
    for step in logged(steps_of(plan(scenario, 2), *decisions)):
        members = DATA[step.event].split()
        present = [name for name in (member.rstrip("?") for member in members) if name in step.data]
        required = [name for name in members if not name.endswith("?")]
        assert list(step.data) == present, step.event
        assert set(required) <= set(present), step.event


def test_nested_members_of_loop_start_follow_the_contract() -> None:
    data = logged(steps_of(plan()))[0].data

    assert list(data["prerequisites"]) == ["enabled", "require_on_completion"]
    assert list(data["delegation"]) == [
        "enabled",
        "dispatch_mode",
        "wake_policy",
        "failure_policy",
        "max_children",
        "max_parallel",
        "max_waves",
        "child_timeout_seconds",
        "retry_limit",
        "retry_backoff_seconds",
        "retry_backoff_max_seconds",
    ]
    assert list(data["rlms"]) == ["enabled", "mode"]
    assert list(data["lifecycle"]) == ["feature_prefix", "main_ref", "no_fetch", "strict", "block_on_failure"]
    assert list(data["git"]) == ["commit_strategy", "commit_message"]
    assert list(data["git"]["commit_message"]) == ["authoring", "author_role", "timeout_seconds"]


def test_every_role_starts_and_ends_in_turn() -> None:
    roles = [(step.event, step.role) for step in logged(steps_of(plan(iterations=1))) if step.role]

    expected = [
        (event, role)
        for role in ("planner", "implementer", "tester", "reviewer")
        for event in ("role_start", "role_end")
    ]
    assert roles == expected
