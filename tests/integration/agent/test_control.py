"""What becomes of control requests: outcomes, what confirmed them, and what is recorded of them."""

from typing import Any

import grpc
import pytest

from spritemesh.control import Confirmation
from superloop.ops.v1 import control_pb2 as pb
from tests.harness.agents import BEARER
from tests.harness.control import LOOK, SKIP
from tests.harness.refusals import refusal
from tests.harness.streams import place, watch
from tests.harness.waiting import wait_for
from tests.integration.agent.conftest import Sprite

CONFIRMED = pb.CONTROL_STATUS_CONFIRMED
UNCONFIRMED = pb.CONTROL_STATUS_EXECUTED_UNCONFIRMED
AMBIGUOUS = pb.CONTROL_STATUS_AMBIGUOUS
FAILED = pb.CONTROL_STATUS_FAILED_COMMAND


def test_cancel_is_confirmed_by_the_state_that_it_changed(sprite: Sprite) -> None:
    sprite.runs()
    state = sprite.repo.root / ".superloop" / "state.json"
    sprite.runtime.does(sprite.runtime.puts(state, {"active": False}), "echo ended it")
    found = sprite.ask("cancel", confirmation=Confirmation(), note="enough")
    assert sprite.runtime.calls == [f"cancel --repo {sprite.repo.root}"]
    assert (found.status, found.exit_code, found.reason) == (CONFIRMED, 0, "")
    assert (found.loop_id, found.intent) == (sprite.loop.loop_id, pb.CONTROL_INTENT_CANCEL)
    assert (found.requested_by, found.note) == ("op", "enough")
    assert found.output_tail == "ended it"
    assert found.command.endswith(f"cancel --repo {sprite.repo.root}")
    assert not found.replayed
    looked = found.confirmation
    assert (looked.confirmed, looked.reason, looked.attempts) == (True, "inactive_not_running", 1)
    assert not looked.observed_active
    effect = found.effect.state
    assert (effect.path, effect.member) == (".superloop/state.json", "active")
    assert (effect.before, effect.after) == ("true", "false")
    assert 0 <= found.finished_at.ToMilliseconds() - found.started_at.ToMilliseconds() < 5000


def test_approve_is_confirmed_by_an_event_that_the_outcome_names(sprite: Sprite) -> None:
    sprite.waits_for_approval()
    sprite.runtime.does(sprite.runtime.logs(sprite.loop, "loop_complete"))
    found = sprite.ask("approve", confirmation=Confirmation(), note="go on")
    assert sprite.runtime.calls == [
        f"approve --repo {sprite.repo.root} --loop {sprite.loop.loop_id} --by op --note go on"
    ]
    assert (found.status, found.confirmation.reason) == (CONFIRMED, "completion_observed")
    assert found.confirmation.observed_last_event == "loop_complete"
    effect = found.effect.event
    assert (effect.name, effect.position.line) == ("loop_complete", place(sprite.loop.log.read_bytes()).line)
    assert effect.timestamp


def test_effect_that_comes_later_is_seen_when_it_comes(sprite: Sprite) -> None:
    sprite.waits_for_approval()
    slow = Confirmation(timeout_seconds=30, interval_seconds=30)
    under_way = sprite.client.future(sprite.request("reject", "later", confirmation=slow))
    sprite.client.wait_for_state("later", pb.INVOCATION_STATE_CONFIRMING)
    assert sprite.client.invocation("later").outcome.status == AMBIGUOUS
    sprite.loop.put("approval.json", {"status": "rejected"})
    found = under_way.result().outcome
    assert (found.status, found.confirmation.reason) == (CONFIRMED, "rejection_observed")
    assert found.confirmation.observed_approval_status == "rejected"
    assert found.effect.state.path.endswith("approval.json")
    assert (found.effect.state.before, found.effect.state.after) == ('"pending"', '"rejected"')


def test_approval_does_not_confirm_a_rejection(sprite: Sprite) -> None:
    """A decision of the other kind, which v1 took for the effect (contract L23)."""
    sprite.waits_for_approval()
    sprite.runtime.does(sprite.runtime.logs(sprite.loop, "approval_decision", status="approved"))
    assert sprite.ask("reject", confirmation=LOOK).status == AMBIGUOUS


def test_what_was_so_before_is_told_as_such(sprite: Sprite) -> None:
    found = sprite.ask("cancel", confirmation=LOOK)
    assert (found.status, found.effect.WhichOneof("kind")) == (CONFIRMED, "already")


def test_nobody_looks_when_confirmation_is_skipped(sprite: Sprite) -> None:
    sprite.runs()
    found = sprite.ask("cancel", confirmation=SKIP)
    assert (found.status, found.exit_code) == (UNCONFIRMED, 0)
    assert not found.HasField("confirmation")
    assert not found.HasField("effect")


def test_effect_that_does_not_come_leaves_it_ambiguous(sprite: Sprite) -> None:
    sprite.runs()
    found = sprite.ask("cancel", confirmation=LOOK)
    assert (found.status, found.reason, found.exit_code) == (AMBIGUOUS, "control_ambiguous", 0)
    assert (found.confirmation.confirmed, found.confirmation.reason) == (False, "timeout")
    assert (found.confirmation.attempts, found.confirmation.observed_status) == (1, "running")
    assert found.confirmation.observed_active


def test_command_that_fails_is_an_outcome_and_is_replayed(sprite: Sprite) -> None:
    sprite.runtime.does("echo cannot >&2", "exit 3")
    first = sprite.ask("cancel", "fails")
    assert (first.status, first.reason, first.exit_code) == (FAILED, "control_failed_command", 3)
    assert first.output_tail == "cannot"
    again = sprite.ask("cancel", "fails")
    assert again.replayed
    assert len(sprite.runtime.calls) == 1


def test_command_ended_by_a_signal_leaves_it_ambiguous(sprite: Sprite) -> None:
    sprite.runtime.does("kill -9 $$")
    found = sprite.ask("cancel", "killed", confirmation=Confirmation())
    assert (found.status, found.reason, found.exit_code) == (AMBIGUOUS, "runtime_killed", 137)


def test_same_request_again_is_answered_by_what_is_recorded(sprite: Sprite) -> None:
    sprite.waits_for_approval()
    sprite.runtime.does(sprite.runtime.logs(sprite.loop, "loop_complete"))
    first = sprite.ask("approve", "once", confirmation=LOOK, trace_id="first")
    # Neither trace nor times make it another request; nor does what became of the loop meanwhile.
    sprite.loop.put("approval.json", {"status": "approved"})
    again = sprite.ask("approve", "once", confirmation=Confirmation(), trace_id="second")
    assert again.replayed
    again.replayed = False
    assert again == first
    assert len(sprite.runtime.calls) == 1


@pytest.mark.parametrize(
    "other",
    [{"intent": "approve"}, {"note": "other"}, {"requested_by": "other"}, {"confirmation": LOOK}],
    ids=lambda members: next(iter(members)),
)
def test_key_stands_for_one_request(sprite: Sprite, other: dict[str, Any]) -> None:
    key = f"mine-{sprite.loop.loop_id}"
    sprite.ask("cancel", key)
    found = refusal(lambda: sprite.ask(**({"intent": "cancel", "key": key} | other)))
    assert (found.code, found.reason) == (grpc.StatusCode.ALREADY_EXISTS, "idempotency_key_conflict")
    assert found.retry_seconds is None
    assert len(sprite.runtime.calls) == 1
    assert not sprite.ask("cancel", f"new-{key}").replayed


def test_invocation_tells_how_far_a_request_came(sprite: Sprite) -> None:
    sprite.runs()
    sprite.runtime.does(sprite.runtime.waits())
    wanted = sprite.request("cancel", "far", confirmation=Confirmation(), trace_id="t-far")
    under_way = sprite.client.future(wanted)
    sprite.runtime.wait_until_it_runs()
    found = sprite.client.invocation("far")
    assert found.state == pb.INVOCATION_STATE_STARTED
    assert (found.outcome.status, found.outcome.trace_id) == (AMBIGUOUS, "t-far")
    assert not found.outcome.HasField("exit_code")
    sprite.runtime.go()
    sprite.client.wait_for_state("far", pb.INVOCATION_STATE_CONFIRMING)
    assert sprite.client.invocation("far").outcome.exit_code == 0
    sprite.repo.put("state.json", {"active": False})
    outcome = under_way.result().outcome
    found = sprite.client.invocation("far")
    assert found.state == pb.INVOCATION_STATE_FINISHED
    found.outcome.replayed = False
    assert found.outcome == outcome


def test_unknown_key_is_not_found(sprite: Sprite) -> None:
    found = refusal(lambda: sprite.client.invocation("never-heard"))
    assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "invocation_not_found")


def test_audit_tells_of_an_execution_once(sprite: Sprite) -> None:
    outcome = sprite.ask("cancel", "told", note="why", trace_id="t-told", confirmation=LOOK)
    sprite.ask("cancel", "told", note="why", trace_id="other", confirmation=LOOK)
    audit = sprite.audit()
    assert audit.of("told") == ["confirmed"] * 3
    (row,) = audit.intents
    assert (row["traceId"], row["requestedBy"], row["note"]) == ("t-told", "op", "why")
    assert (row["transport"], row["command"]) == ("local", outcome.command)
    assert audit.invocations[0]["execution"]["replayed"] is False


def test_trace_of_the_metadata_reaches_runtime_and_outcome(sprite: Sprite) -> None:
    seen = sprite.runtime.file("environment")
    sprite.runtime.does(f"env > '{seen}'")
    trace_id = "6f2f0dd5-8a9c-4a70-9a55-2f9a3c8b7d10"
    metadata = (*BEARER, ("x-trace-id", trace_id))
    assert sprite.client.ask(sprite.request("cancel"), metadata).trace_id == trace_id
    environment = dict(line.partition("=")[::2] for line in seen.read_text().splitlines())
    assert environment["OPS_MANAGER_TRACE_ID"] == trace_id
    assert environment["TRACEPARENT"].split("-")[1] == trace_id.replace("-", "")
    assert "OPS_MANAGER_SERVICE_TOKEN" not in environment

    field = sprite.client.ask(sprite.request("cancel", trace_id="field"), metadata)
    assert field.trace_id == "field"
    fresh = [sprite.ask("cancel").trace_id for _ in range(2)]
    assert len({*fresh, ""}) == 3


def test_follower_learns_that_the_agent_controls(sprite: Sprite) -> None:
    with sprite.agent.stub() as stub:
        opened = next(iter(watch(stub, sprite.loop.loop_id))).opened
    assert list(opened.capabilities) == ["control"]


def test_caller_that_goes_away_ends_nothing(sprite: Sprite) -> None:
    sprite.runtime.does(sprite.runtime.waits(), "echo done")
    under_way = sprite.client.future(sprite.request("cancel", "left"))
    sprite.runtime.wait_until_it_runs()
    under_way.cancel()
    sprite.runtime.go()
    sprite.client.wait_for_state("left", pb.INVOCATION_STATE_FINISHED)
    again = sprite.ask("cancel", "left")
    assert (again.status, again.replayed, again.output_tail) == (UNCONFIRMED, True, "done")
    wait_for(lambda: sprite.audit().of("left") == ["executed_unconfirmed"] * 3, what="the audit")
    assert len(sprite.runtime.calls) == 1
