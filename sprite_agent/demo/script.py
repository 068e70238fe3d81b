"""What one run writes, step by step: a generator without files, clock, signals or pauses.

Whoever plays it carries out each step before asking for the next. After `AwaitDecision` the decided
approval is sent in; every other step is answered by None.
"""

import hashlib
from collections.abc import Callable, Generator
from enum import StrEnum
from itertools import count
from typing import NamedTuple

from sprite_agent.demo import documents
from sprite_agent.demo.documents import ARTIFACTS, Document, Gates
from sprite_agent.demo.steps import (
    ActiveRun,
    AwaitDecision,
    Crash,
    Entry,
    Log,
    RemoveApproval,
    Report,
    Request,
    Script,
    State,
    Step,
)
from spritemesh.values import drop, get

ROLES = ("planner", "implementer", "tester", "reviewer")
# The report that each role leaves, by the name of its reference.
_REPORTS = dict(zip(ROLES, ("plan", "implementer", "test_report", "reviewer"), strict=True))
# Iterations without progress before a loop that makes some gives up; it never gets there.
_STUCK_THRESHOLD = 3


class Scenario(StrEnum):
    """How the run goes."""

    HEALTHY = "healthy"
    APPROVAL = "approval"
    FAILING = "failing"
    CRASHING = "crashing"


class Plan(NamedTuple):
    """One run. directory: the loop's, relative to the repository. iterations: 0 for no end."""

    loop_id: str
    run_id: str
    directory: str
    scenario: Scenario
    iterations: int

    @property
    def fails(self) -> bool:
        """Whether its tests do."""
        return self.scenario in {Scenario.FAILING, Scenario.CRASHING}

    def stuck(self, iteration: int) -> Document:
        """How many iterations made no progress so far, and how many of them end the run."""
        if self.fails:
            return {"streak": min(iteration, self.iterations), "threshold": self.iterations}
        return {"streak": 0, "threshold": _STUCK_THRESHOLD}

    def path(self, artifact: str) -> str:
        """Where a named artifact lies, relative to the repository."""
        return f"{self.directory}/{ARTIFACTS[artifact]}"


def play(plan: Plan, now: Callable[[], str], left_over: Document | None = None) -> Script:
    """The steps of one run.

    now: the time as text, asked for when an iteration starts and ends. left_over: approval.json of an
    earlier run, which is settled before anything else, as the runtime does.
    """
    yield ActiveRun("run_start", 0, None)
    yield State(True, 1, plan.loop_id)
    yield ActiveRun("loop_start", 1, plan.loop_id)
    yield Log("loop_start", 1, documents.loop_start(max_iterations=plan.iterations))
    first, rejected = 1, False
    if left_over is not None:
        if (yield from _settle(plan, left_over, fresh=False)):
            return
        first, rejected = left_over["iteration"] + 1, True
    for iteration in count(first):
        candidate = 0 < plan.iterations <= iteration
        request = yield from _iterate(plan, now, iteration, candidate, rejected)
        if request is not None:
            if (yield from _settle(plan, request, fresh=True)):
                return
            rejected = True
            continue
        rejected = False
        if candidate:
            yield from _finish(plan, iteration)
            return


def _iterate(
    plan: Plan, now: Callable[[], str], iteration: int, candidate: bool, rejected: bool
) -> Generator[Step, Document | None, Document | None]:
    """One iteration; returns the approval to ask for, or None.

    candidate: the work is said to be done. rejected: approval.json still tells of a rejection.
    """
    done = candidate and not plan.fails
    ask = done and plan.scenario is Scenario.APPROVAL
    gates = Gates(
        tests="failed" if plan.fails else "ok",
        checklist="ok" if done else "remaining",
        approval="pending" if ask else "skipped",
    )
    stuck = plan.stuck(iteration)
    started_at = now()
    yield State(True, iteration, plan.loop_id)
    yield ActiveRun("loop_start", iteration, plan.loop_id)
    yield Log("iteration_start", iteration, {"started_at": started_at})
    for role in ROLES:
        yield from _role(plan, iteration, role)
    promise = documents.promise(matched=done)
    yield Log("promise_checked", iteration, {**promise, "text": promise["text"] or ""})
    yield from _gates(plan, iteration, gates, stuck, done=done)
    ended_at = now()
    completion = done and not ask
    yield Report(
        ARTIFACTS["iteration_notes"], f"Iteration {iteration} of a demonstration; no agent took part.\n"
    )
    yield Log(
        "iteration_end",
        iteration,
        {
            "started_at": started_at,
            "ended_at": ended_at,
            "completion": completion,
            "promise": done,
            **gates.document(),
        },
    )
    yield Entry(
        documents.summary_entry(
            run_id=plan.run_id,
            iteration=iteration,
            started_at=started_at,
            ended_at=ended_at,
            promise=promise,
            gates=gates.document(),
            stuck=stuck,
            completion_ok=completion,
        )
    )
    if not ask:
        # A rejection stays readable while its iteration runs, so that who decided can see it arrive.
        if rejected:
            yield RemoveApproval()
        return None
    return documents.approval_request(
        loop_id=plan.loop_id,
        run_id=plan.run_id,
        iteration=iteration,
        started_at=started_at,
        ended_at=ended_at,
        gates=gates,
        directory=plan.directory,
    )


def _role(plan: Plan, iteration: int, role: str) -> Script:
    prompt, log, last = (f"prompts/{role}.md", f"logs/{role}.log", f"last-messages/{role}.txt")
    said = f"Demonstration: the {role} of iteration {iteration} has nothing to say.\n"
    yield Report(prompt, f"Demonstration: prompt of the {role}, iteration {iteration}.\n")
    files: Document = {"log_file": f"{plan.directory}/{log}", "last_message_file": f"{plan.directory}/{last}"}
    yield Log("role_start", iteration, {"prompt_file": f"{plan.directory}/{prompt}", **files}, role=role)
    for name in (log, last, ARTIFACTS[_REPORTS[role]]):
        yield Report(name, said)
    yield Log("role_end", iteration, files, role=role)


def _gates(plan: Plan, iteration: int, gates: Gates, stuck: Document, *, done: bool) -> Script:
    """What is checked after the roles, from the checklist to the commit."""
    yield Log("checklist_start", iteration, {"patterns": list(documents.CHECKLISTS)})
    yield Report(ARTIFACTS["checklist_status"], f"{gates.checklist}\n")
    yield Report(ARTIFACTS["checklist_remaining"], "" if done else "- [ ] the last item\n")
    remaining = 0 if done else 1
    yield Log(
        "checklist_end",
        iteration,
        {"status": gates.checklist, "ok": done, "details": {"remaining": remaining}},
    )
    tests_ok = gates.tests == "ok"
    yield Log(
        "tests_start", iteration, {"mode": documents.TESTS_MODE, "commands": list(documents.TEST_COMMANDS)}
    )
    yield Report(ARTIFACTS["test_output"], "7 passed\n" if tests_ok else "5 passed, 2 failed\n")
    yield Report(ARTIFACTS["test_status"], f"{gates.tests}\n")
    yield Log("tests_end", iteration, {"status": gates.tests, "details": {"exit_code": 0 if tests_ok else 1}})
    yield Log("validation_start", iteration, {"enabled": "true", "mode": "every"})
    yield Report(ARTIFACTS["validation_status"], f"{gates.validation}\n")
    yield Report(ARTIFACTS["validation_results"], '{"status":"ok"}\n')
    results = plan.path("validation_results")
    yield Log("validation_end", iteration, {"status": gates.validation, "results_file": results})
    yield Log("evidence_start", iteration, {"enabled": "true"})
    yield Report(ARTIFACTS["evidence"], f'{{"iteration":{iteration},"tests":"{gates.tests}"}}\n')
    yield Log("evidence_end", iteration, {"status": gates.evidence, "evidence_file": plan.path("evidence")})
    position = f"{stuck['streak']}/{stuck['threshold']}"
    judged: Document = {"promise": done, **gates.document(), "stuck": position}
    summary = " ".join(f"{name}={value}" for name, value in judged.items())
    yield Report(ARTIFACTS["gate_summary"], f"{summary}\n")
    yield Log("gates_evaluated", iteration, judged)
    triggered = stuck["streak"] >= stuck["threshold"]
    yield Log("stuck_checked", iteration, {**stuck, "triggered": triggered, "action": "report_and_stop"})
    # Nothing was changed in the repository, and no commit is claimed.
    skipped: Document = {"reason": "no_changes"}
    if not tests_ok:
        skipped = {"reason": "tests_not_passing", "tests_status": gates.tests}
    yield Log("auto_commit_skipped", iteration, skipped)


def _settle(plan: Plan, approval: Document, *, fresh: bool) -> Generator[Step, Document | None, bool]:
    """Ask and wait where nothing is decided yet, then act on it; returns whether the run is over.

    fresh: asked for by this run, so that approval.json is still to be written. That comes after the two
    lines which announce it: a decision cannot overtake them.
    """
    iteration: int = approval["iteration"]
    asked: Document = {"approval_file": plan.path("approval")}
    decided: Document = approval
    if approval["status"] == "pending":
        if fresh:
            gates = get(approval, "candidate", "gates")
            yield Log("approval_requested", iteration, {**asked, "promise": True, **gates})
        yield Log("approval_wait", iteration, {"status": "pending", **asked}, at_once=fresh)
        if fresh:
            yield Request(approval)
        yield State(False, iteration, plan.loop_id)
        answer = yield AwaitDecision()
        if answer is None:
            raise RuntimeError("AwaitDecision takes a decided approval")
        decided = answer
    if decided["status"] == "rejected":
        yield State(True, iteration, plan.loop_id)
        yield Log("approval_rejected", iteration, {"status": "rejected", **asked})
        return False
    decision = {name: get(decided, "decision", name) for name in ("by", "note", "at")}
    yield Log("approval_consumed", iteration, {"status": "approved", **drop(decision)})
    yield Entry(documents.approved_entry(decided, stuck=plan.stuck(iteration)))
    complete: Document = {"iteration": iteration, "run_id": plan.run_id, "approval": True}
    yield Log("loop_complete", iteration, complete)
    yield RemoveApproval()
    yield State(False, iteration, "")
    return True


def _finish(plan: Plan, iteration: int) -> Script:
    """The end of a run that needs no approval."""
    if plan.scenario is Scenario.CRASHING:
        yield Crash()
        return
    if not plan.fails:
        yield Log("loop_complete", iteration, {"iteration": iteration, "run_id": plan.run_id})
    else:
        stuck = plan.stuck(iteration)
        signatures: Document = {
            f"{part}_signature": _signature(part, plan.loop_id) for part in ("code", "test")
        }
        yield Log(
            "no_progress_stop", iteration, {"reason": "no_progress", **signatures, **stuck}, status="blocked"
        )
        yield Log("loop_stop", iteration, {"reason": "no_progress", **stuck})
    yield State(False, iteration, "")


def _signature(part: str, loop_id: str) -> str:
    """A digest of the right look that stays the same, which is what being stuck means."""
    return hashlib.sha256(f"{part}:{loop_id}".encode()).hexdigest()
