"""Control requests that are refused: each with its reason, nothing run, the key free afterwards."""

from typing import Any

import grpc
import pytest

from superloop.ops.v1 import control_pb2 as pb
from tests.harness.agents import BEARER, CALL_SECONDS
from tests.harness.control import SKIP, refusals_of
from tests.harness.refusals import Refusal, refusal
from tests.harness.streams import raw_call
from tests.integration.agent.conftest import Sprite

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION

Decision = type[pb.ApprovePendingRequest] | type[pb.RejectPendingRequest]


def refused(sprite: Sprite, intent: str, key: str | None = None, **members: Any) -> Refusal:
    """A refusal of a request; nothing was run for it."""
    before = sprite.runtime.calls
    found = refusal(lambda: sprite.ask(intent, key, **members))
    assert sprite.runtime.calls == before
    return found


BAD_REQUESTS: list[tuple[dict[str, Any], str, str]] = [
    ({"key": ""}, "idempotency_key_missing", "idempotency_key"),
    ({"key": "k" * 129}, "invalid_idempotency_key", "idempotency_key"),
    ({"key": "a\u2028b"}, "invalid_idempotency_key", "idempotency_key"),
    ({"key": "a\nb"}, "invalid_idempotency_key", "idempotency_key"),
    ({"note": "n" * 4097}, "note_too_long", "note"),
    ({"note": "a\x00b"}, "control_characters", "note"),
    ({"note": "\x1b[2J"}, "control_characters", "note"),
    ({"requested_by": "r" * 257}, "requested_by_too_long", "requested_by"),
    ({"requested_by": "a\x07b"}, "control_characters", "requested_by"),
    ({"loop_id": ""}, "invalid_loop_id", "loop_id"),
    ({"loop_id": "../other"}, "invalid_loop_id", "loop_id"),
    ({"trace_id": "t" * 129}, "invalid_trace_id", "trace_id"),
    ({"expected_run_id": "r" * 257}, "invalid_request", "expected_run_id"),
    ({"expected_run_id": "a\x7fb"}, "control_characters", "expected_run_id"),
    ({"confirmation": SKIP._replace(timeout_seconds=-1)}, "invalid_request", "confirmation.timeout"),
    ({"confirmation": SKIP._replace(timeout_seconds=3601)}, "invalid_request", "confirmation.timeout"),
    ({"confirmation": SKIP._replace(interval_seconds=-1)}, "invalid_request", "confirmation.interval"),
    ({"confirmation": SKIP._replace(interval_seconds=3601)}, "invalid_request", "confirmation.interval"),
]


@pytest.mark.parametrize(("members", "reason", "field"), BAD_REQUESTS)
def test_bad_request_is_refused_and_names_its_field(
    sprite: Sprite, members: dict[str, Any], reason: str, field: str
) -> None:
    wanted = sprite.request("cancel")._replace(
        **{"idempotency_key" if name == "key" else name: value for name, value in members.items()}
    )
    found = refusal(lambda: sprite.client.ask(wanted))
    assert (found.code, found.reason, found.field) == (INVALID, reason, field)
    assert sprite.runtime.calls == []
    noted = refusals_of(sprite.repo)[-1]
    assert (noted["transport"], noted["reasonCode"], noted["field"]) == ("grpc", reason, field)
    assert sprite.audit().invocations == []


@pytest.mark.parametrize("message", [pb.ApprovePendingRequest, pb.RejectPendingRequest])
def test_over_long_approval_id_is_refused(sprite: Sprite, message: Decision) -> None:
    wanted = message(loop_id=sprite.loop.loop_id, idempotency_key="k", expected_approval_id="a" * 257)
    found = refusal(lambda: sprite.client.send(wanted))
    assert (found.code, found.reason, found.field) == (INVALID, "invalid_request", "expected_approval_id")


def test_note_may_have_lines(sprite: Sprite) -> None:
    assert sprite.ask("cancel", note="one\n\ttwo\r\nthree" + "x" * 4000).note.startswith("one\n\ttwo")


def test_bytes_that_are_no_request_are_refused(sprite: Sprite) -> None:
    with grpc.insecure_channel(sprite.agent.address) as channel:
        call = raw_call(channel, "/superloop.ops.v1.ControlService/CancelLoop")
        found = refusal(lambda: call(b"\xff\xff", metadata=BEARER, timeout=CALL_SECONDS))
    assert (found.code, found.reason) == (INVALID, "invalid_request")
    assert sprite.runtime.calls == []


def test_unknown_loop_is_refused(sprite: Sprite) -> None:
    wanted = sprite.request("cancel")._replace(loop_id="ghost")
    found = refusal(lambda: sprite.client.ask(wanted))
    assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "loop_not_found")
    assert not (sprite.repo.root / ".superloop" / "ops-manager" / "ghost").exists()


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong"),)], ids=["none", "wrong"])
def test_stranger_steps_in_nowhere(sprite: Sprite, metadata: tuple[tuple[str, str], ...]) -> None:
    for intent in ("cancel", "approve", "reject"):
        wanted = sprite.request(intent, even_if_nothing_pending=True)
        found = refusal(lambda: sprite.client.ask(wanted, metadata))  # noqa: B023 - called at once
        assert found.code == grpc.StatusCode.UNAUTHENTICATED
    asked = pb.GetInvocationRequest(idempotency_key="k")
    found = refusal(lambda: sprite.client.stub.GetInvocation(asked, metadata=metadata))
    assert found.code == grpc.StatusCode.UNAUTHENTICATED
    assert sprite.runtime.calls == []


def test_other_run_than_the_operator_saw_is_refused(sprite: Sprite) -> None:
    seen = sprite.snapshot().run.run_id
    found = refused(sprite, "cancel", "target", expected_run_id="another")
    assert (found.code, found.reason) == (PRECONDITION, "target_changed")
    assert sprite.ask("cancel", "target", expected_run_id=seen).status


def test_other_approval_than_the_operator_saw_is_refused(sprite: Sprite) -> None:
    sprite.waits_for_approval()
    seen = sprite.snapshot().pending_approval_id
    assert seen
    sprite.waits_for_approval(candidate={"text": "something else"})
    for intent in ("approve", "reject"):
        found = refused(sprite, intent, "approval", expected_approval_id=seen)
        assert (found.code, found.reason) == (PRECONDITION, "target_changed")
    now = sprite.snapshot().pending_approval_id
    assert now not in {"", seen}
    assert not sprite.ask("approve", "approval", expected_approval_id=now).replayed

    sprite.loop.put("approval.json", {"status": "approved"})
    assert sprite.snapshot().pending_approval_id == ""
    found = refused(sprite, "approve", expected_approval_id=now)
    assert (found.code, found.reason) == (PRECONDITION, "target_changed")


@pytest.mark.parametrize("intent", ["approve", "reject"])
def test_decision_without_anything_pending_is_refused(sprite: Sprite, intent: str) -> None:
    found = refused(sprite, intent)
    assert (found.code, found.reason) == (PRECONDITION, "nothing_pending")
    # Unless the caller leaves that to the runtime, as v1 does.
    assert sprite.ask(intent, even_if_nothing_pending=True).exit_code == 0


def test_cancel_of_a_loop_that_does_not_run_spares_the_one_that_does(sprite: Sprite) -> None:
    sprite.repo.put("state.json", {"active": True, "current_loop_id": "another"})
    found = refused(sprite, "cancel")
    assert (found.code, found.reason) == (PRECONDITION, "other_loop_active")
    assert "another" in found.message
    sprite.waits_for_approval()
    assert sprite.ask("approve").exit_code == 0


def test_second_operation_on_a_loop_waits_for_the_first(sprite: Sprite) -> None:
    sprite.runtime.does(sprite.runtime.waits())
    under_way = sprite.client.future(sprite.request("cancel"))
    sprite.runtime.wait_until_it_runs()
    found = refused(sprite, "cancel", "second")
    assert (found.code, found.reason) == (grpc.StatusCode.ABORTED, "control_in_progress")
    assert found.retry_seconds == 1
    # Another loop is not concerned, and another request with the key of the first is told so.
    other = sprite.repo.loop(f"{sprite.loop.loop_id}-other")
    sprite.runtime.go()
    assert sprite.client.ask(sprite.request("cancel")._replace(loop_id=other.loop_id)).exit_code == 0
    assert under_way.result().outcome.exit_code == 0
    assert not sprite.ask("cancel", "second").replayed


def test_refusal_is_audited_once_and_leaves_no_intent(sprite: Sprite) -> None:
    refused(sprite, "approve", "none-pending")
    audit = sprite.audit()
    assert audit.of("none-pending") == ["refused"]
    (row,) = audit.invocations
    assert row["outcome"]["reasonCode"] == "nothing_pending"
    found = refusal(lambda: sprite.client.invocation("none-pending"))
    assert found.reason == "invocation_not_found"
