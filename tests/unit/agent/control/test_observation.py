"""What counts as the effect of a command, and what is named as it."""

from collections.abc import Iterator

import pytest

from sprite_agent.control.observation import Observation, find_effect, observe, predicate
from sprite_agent.runtime.loop import LoopReader
from superloop.ops.v1 import control_pb2 as pb
from tests.harness.loops import LoopFiles, Repo, event, events


@pytest.fixture
def reader(loop: LoopFiles) -> Iterator[LoopReader]:
    loop.append(events(1, 2))
    found = LoopReader(str(loop.repo), loop.loop_id)
    yield found
    found.close()


def effect(reader: LoopReader, intent: str, before: Observation | None) -> pb.ControlEffect | None:
    seen = observe(reader)
    assert predicate(intent, seen)
    return find_effect(reader, intent, before, seen)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (None, "inactive_not_running"),
        ({"active": False}, "inactive_not_running"),
        ({"active": True, "current_loop_id": "alpha"}, ""),
        ({"active": True, "current_loop_id": "beta"}, ""),
    ],
)
def test_cancel_holds_when_nothing_is_active(
    reader: LoopReader, repo: Repo, state: object, reason: str
) -> None:
    if state is not None:
        repo.put("state.json", state)
    assert predicate("cancel", observe(reader)) == reason


def test_approve_holds_when_the_loop_is_complete(reader: LoopReader, loop: LoopFiles) -> None:
    assert predicate("approve", observe(reader)) == ""
    loop.put("run-summary.json", {"entries": [{"completion_ok": False}]})
    assert predicate("approve", observe(reader)) == ""
    loop.put("run-summary.json", {"entries": [{"completion_ok": True}]})
    assert predicate("approve", observe(reader)) == "completion_observed"
    loop.put("run-summary.json", {})
    loop.append(event(3, "loop_complete"))
    assert predicate("approve", observe(reader)) == "completion_observed"
    loop.append(event(4))
    assert predicate("approve", observe(reader)) == ""


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("approval_rejected", None, "rejection_observed"),
        ("approval_decision", "rejected", "rejection_observed"),
        ("approval_decision", "approved", ""),
        ("approval_decision", None, ""),
        ("approval_decision", 7, ""),
    ],
)
def test_reject_holds_when_the_last_event_rejects(
    reader: LoopReader, loop: LoopFiles, name: str, status: str | int | None, reason: str
) -> None:
    loop.append(event(3, name, status=status))
    assert predicate("reject", observe(reader)) == reason
    loop.append(b"no event\n")
    assert predicate("reject", observe(reader)) == reason


def test_reject_holds_when_the_approval_is_rejected(reader: LoopReader, loop: LoopFiles) -> None:
    loop.put("approval.json", {"status": "approved"})
    assert predicate("reject", observe(reader)) == ""
    loop.put("approval.json", {"status": "rejected"})
    assert predicate("reject", observe(reader)) == "rejection_observed"


def test_effect_is_the_first_event_that_came_after(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(event(3, "approval_rejected"))
    before = observe(reader)
    loop.append(event(4) + event(5, "approval_decision", status="rejected", timestamp="2026-01-01T00:00:00Z"))
    loop.append(event(6, "approval_rejected"))
    found = effect(reader, "reject", before)
    assert found is not None
    assert (found.event.position.line, found.event.name) == (5, "approval_decision")
    assert found.event.timestamp == "2026-01-01T00:00:00Z"


def test_effect_in_a_new_log_is_its_last_event(reader: LoopReader, loop: LoopFiles) -> None:
    before = observe(reader)
    loop.replace(event(1, "other") + event(2, "loop_complete", timestamp="2026-01-01T00:00:00Z"))
    found = effect(reader, "approve", before)
    assert found is not None
    assert (found.event.position.line, found.event.name) == (2, "loop_complete")
    assert found.event.timestamp == "2026-01-01T00:00:00Z"


def test_effect_is_the_state_that_changed(reader: LoopReader, loop: LoopFiles, repo: Repo) -> None:
    repo.put("state.json", {"active": True, "current_loop_id": "alpha"})
    before = observe(reader)
    repo.put("state.json", {"active": False})
    assert effect(reader, "cancel", before) == pb.ControlEffect(
        state=pb.StateEffect(path=".superloop/state.json", member="active", before="true", after="false")
    )
    loop.put("run-summary.json", {"entries": [{"completion_ok": True}]})
    assert effect(reader, "approve", before) == pb.ControlEffect(
        state=pb.StateEffect(
            path=".superloop/loops/alpha/run-summary.json", member="completion_ok", before="", after="true"
        )
    )
    loop.put("approval.json", {"status": "rejected"})
    assert effect(reader, "reject", before) == pb.ControlEffect(
        state=pb.StateEffect(
            path=".superloop/loops/alpha/approval.json", member="status", before="", after='"rejected"'
        )
    )


def test_what_was_so_already_is_told_as_such(reader: LoopReader, repo: Repo) -> None:
    repo.put("state.json", {"active": False})
    found = effect(reader, "cancel", observe(reader))
    assert found is not None
    assert found.already.after == "false"


def test_effect_is_not_named_when_nothing_is_known_of_before(reader: LoopReader) -> None:
    assert effect(reader, "cancel", None) is None


def test_observation_tells_words_of_every_kind(reader: LoopReader, loop: LoopFiles) -> None:
    seen = observe(reader)
    assert (seen.is_active, seen.approval_status, seen.pending_approval_id) == (False, None, "")
    loop.put("approval.json", {"status": "pending"})
    seen = observe(reader)
    assert seen.approval_status == "pending"
    assert len(seen.pending_approval_id) == 64
