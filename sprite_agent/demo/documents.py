"""Shapes of what the runtime writes (contract A.1, A.2): members in contract order, nothing decided here.

Every function returns a new object ready for JSON. Times are text in the form of contract 0.3.
"""

from collections.abc import Mapping
from typing import NamedTuple

from spritemesh.jsontext import JSON
from spritemesh.values import get

Document = dict[str, JSON]

# What each named reference of a summary entry points at, relative to the loop's directory.
ARTIFACTS: Mapping[str, str] = {
    "plan": "plan.md",
    "implementer": "implementer.md",
    "test_report": "test-report.md",
    "reviewer": "review.md",
    "test_output": "test-output.txt",
    "test_status": "test-status.txt",
    "prerequisites_status": "prerequisites-status.txt",
    "prerequisites_results": "prerequisites-results.json",
    "checklist_status": "checklist-status.txt",
    "checklist_remaining": "checklist-remaining.md",
    "evidence": "evidence.json",
    "lifecycle_status": "lifecycle-status.txt",
    "lifecycle_audit": "lifecycle-audit.json",
    "validation_status": "validation-status.txt",
    "validation_results": "validation-results.json",
    "gate_summary": "gate-summary.txt",
    "iteration_notes": "iteration_notes.md",
    "events": "events.jsonl",
    "reviewer_packet": "reviewer-packet.md",
    "approval": "approval.json",
    "decisions": "decisions.jsonl",
    "decisions_md": "decisions.md",
    "rlms_index": "rlms/index.json",
    "delegation_index": "delegation/index.json",
}
_APPROVAL_FILES = {
    "gate_summary": "gate_summary",
    "evidence": "evidence",
    "reviewer_report": "reviewer",
    "test_report": "test_report",
    "plan": "plan",
    "iteration_notes": "iteration_notes",
}

PROMISE = "DONE"
TESTS_MODE = "every"
TEST_COMMANDS = ("make test",)
CHECKLISTS = ("docs/checklist.md",)


class Gates(NamedTuple):
    """How the gates of one iteration stand, in the order of the documents."""

    tests: str
    checklist: str
    approval: str
    validation: str = "ok"
    prerequisites: str = "skipped"
    evidence: str = "ok"
    lifecycle: str = "skipped"

    def without_approval(self) -> Document:
        """The six gates that an approval's candidate lists."""
        return {
            "tests": self.tests,
            "validation": self.validation,
            "prerequisites": self.prerequisites,
            "checklist": self.checklist,
            "evidence": self.evidence,
            "lifecycle": self.lifecycle,
        }

    def document(self) -> Document:
        """All seven gates, as in a summary entry."""
        return {**self.without_approval(), "approval": self.approval}


def event_row(
    *,
    timestamp: str,
    event: str,
    loop_id: str,
    run_id: str,
    iteration: int,
    role: str = "",
    status: str = "",
    message: str = "",
    data: Mapping[str, JSON] | None = None,
) -> Document:
    """One line of events.jsonl; members without content are left out at the top level only."""
    row: Document = {
        "timestamp": timestamp,
        "event": event,
        "loop_id": loop_id,
        "run_id": run_id,
        "iteration": iteration,
    }
    for name, value in (("role", role), ("status", status), ("message", message), ("data", data)):
        if value:
            row[name] = value
    return row


def state(*, active: bool, iteration: int, loop_id: str, now: str) -> Document:
    """state.json. loop_id: "" once nothing runs any more."""
    return {
        "active": active,
        "loop_index": 0,
        "iteration": iteration,
        "current_loop_id": loop_id,
        "updated_at": now,
    }


def active_run(
    *, repo: str, pid: int, pgid: int, loop_id: str | None, iteration: int, stage: str, now: str
) -> Document:
    """active-run.json. loop_id: None before the loop is known, at stage `run_start`."""
    return {
        "repo": repo,
        "pid": pid,
        "pgid": pgid,
        "loop_id": loop_id,
        "iteration": iteration,
        "stage": stage,
        "updated_at": now,
    }


def promise(*, matched: bool) -> Document:
    """What the reviewer promised. text: null when it promised nothing."""
    return {"expected": PROMISE, "text": PROMISE if matched else None, "matched": matched}


def loop_start(*, max_iterations: int) -> Document:
    """Data of `loop_start`: a configuration in which everything optional is off."""
    return {
        "spec_file": "specs/demo.md",
        "max_iterations": max_iterations,
        "tests_mode": TESTS_MODE,
        "test_commands": list(TEST_COMMANDS),
        "checklists": list(CHECKLISTS),
        "prerequisites": {"enabled": "false", "require_on_completion": "false"},
        "delegation": {
            "enabled": False,
            "dispatch_mode": "serial",
            "wake_policy": "on_wave_complete",
            "failure_policy": "warn_and_continue",
            "max_children": 1,
            "max_parallel": 1,
            "max_waves": 1,
            "child_timeout_seconds": 300,
            "retry_limit": 0,
            "retry_backoff_seconds": 0,
            "retry_backoff_max_seconds": 30,
        },
        "rlms": {"enabled": False, "mode": "off"},
        "lifecycle": {
            "feature_prefix": "feat/",
            "main_ref": "main",
            "no_fetch": "true",
            "strict": "false",
            "block_on_failure": "false",
        },
        "git": {
            "commit_strategy": "per_iteration",
            "commit_message": {
                "authoring": "deterministic",
                "author_role": "reviewer",
                "timeout_seconds": 60,
            },
        },
    }


def summary_entry(
    *,
    run_id: JSON,
    iteration: JSON,
    started_at: JSON,
    ended_at: JSON,
    promise: JSON,
    gates: JSON,
    stuck: JSON,
    completion_ok: bool,
) -> Document:
    """One entry of run-summary.json; `artifacts` is filled by whoever knows the files."""
    return {
        "run_id": run_id,
        "iteration": iteration,
        "started_at": started_at,
        "ended_at": ended_at,
        "promise": promise,
        "gates": gates,
        "tests_mode": TESTS_MODE,
        "stuck": stuck,
        "delegation": {"enabled": False},
        "completion_ok": completion_ok,
        "artifacts": {},
    }


def run_summary(*, loop_id: str, entries: list[JSON], now: str) -> Document:
    """run-summary.json. entries: oldest first."""
    return {"version": 1, "loop_id": loop_id, "updated_at": now, "entries": entries}


def approval_request(
    *, loop_id: str, run_id: str, iteration: int, started_at: str, ended_at: str, gates: Gates, directory: str
) -> Document:
    """approval.json before anybody decided; it is asked for when the iteration ends.

    directory: the loop's, relative to the repository.
    """
    return {
        "status": "pending",
        "loop_id": loop_id,
        "run_id": run_id,
        "iteration": iteration,
        "requested_at": ended_at,
        "iteration_started_at": started_at,
        "iteration_ended_at": ended_at,
        "candidate": {"promise": promise(matched=True), "gates": gates.without_approval()},
        "files": {name: f"{directory}/{ARTIFACTS[source]}" for name, source in _APPROVAL_FILES.items()},
    }


def decided(request: Document, *, status: str, by: str, note: str, now: str) -> Document:
    """approval.json after a decision. status: `approved` or `rejected`. note: "" becomes null."""
    remark = note or None
    return {
        **request,
        "status": status,
        "decision": {"status": status, "by": by, "note": remark, "at": now},
        "decided_at": now,
        "decided_by": by,
        "decided_note": remark,
    }


def approved_entry(approval: Document, *, stuck: JSON) -> Document:
    """The further entry that an approved iteration gets."""
    return summary_entry(
        run_id=approval.get("run_id"),
        iteration=approval.get("iteration"),
        started_at=approval.get("iteration_started_at"),
        ended_at=approval.get("iteration_ended_at"),
        promise=get(approval, "candidate", "promise"),
        gates={**get(approval, "candidate", "gates"), "approval": "approved"},
        stuck=stuck,
        completion_ok=True,
    )
