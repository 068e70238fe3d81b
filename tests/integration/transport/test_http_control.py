"""Control through a service over HTTP: what is sent, what answers mean, and what is certain without one."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from manager.transport import Controlled, Endpoint, Retry
from manager.transport.http import HttpTransport
from manager.transport.http_client import Timeouts
from spritemesh.control import Confirmation, ControlRequest
from spritemesh.errors import OpsError
from tests.harness.receiver import Answer, Receiver, receiving

REQUEST = ControlRequest(
    "alpha",
    "approve",
    "key-1",
    requested_by="Ana Mar\u00eda",
    note="ship it",
    trace_id="trace-1",
    confirmation=Confirmation(timeout_seconds=0),
)
CONFIRM = {"intent": "approve", "confirmed": True, "reason": "completion_observed"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def control(
    receiver: Receiver | str, request: ControlRequest = REQUEST, *, attempts: int = 3, token: str = ""
) -> Controlled:
    url = receiver if isinstance(receiver, str) else receiver.url
    transport = HttpTransport(Endpoint(url, token), Retry(attempts, 0.01), Timeouts())
    try:
        return transport.control(request)
    finally:
        transport.close()


def outcome(status: str, exit_code: int, **members: Any) -> dict[str, Any]:
    return {
        "ok": exit_code == 0,
        "exitCode": exit_code,
        "result": {"status": status},
        "replayed": False,
    } | members


def told(status: int, document: object) -> Answer:
    return Answer(status, json.dumps(document, ensure_ascii=True))


def refused(status: int, code: str, message: str) -> Answer:
    return told(status, {"ok": False, "error": {"code": code, "message": message}})


def test_request_is_what_v1_posts(receiver: Receiver) -> None:
    receiver.responses = [told(200, outcome("confirmed", 0))]
    control(receiver, token="s3cret")
    (request,) = receiver.requests
    assert (request.method, request.path) == ("POST", "/ops/control")
    assert request.body == (
        '{\n  "loopId": "alpha",\n  "intent": "approve",\n  "by": "Ana Mar\u00eda",\n  "note": "ship it",\n'
        '  "traceId": "trace-1",\n  "idempotencyKey": "key-1",\n  "noConfirm": false\n}\n'
    )
    assert request.header("content-type") == "application/json"
    assert request.header("authorization") == "Bearer s3cret"
    assert request.header("x-trace-id") == "trace-1"


@pytest.mark.parametrize(
    ("answer", "status", "exit_code", "confirmation"),
    [
        (told(200, outcome("confirmed", 0)), "confirmed", 0, "confirmed"),
        (told(200, outcome("executed_unconfirmed", 0)), "executed_unconfirmed", 0, "skipped"),
        (told(409, outcome("ambiguous", 2)), "ambiguous", 2, "ambiguous"),
        (told(500, outcome("failed_command", 1)), "failed_command", 1, "not_attempted"),
        (told(200, {"ok": True}), "confirmed", 0, "confirmed"),
        (told(409, {"ok": False, "exitCode": 2}), "ambiguous", 2, "ambiguous"),
    ],
)
def test_outcome_is_read_whatever_its_status(
    receiver: Receiver, answer: Answer, status: str, exit_code: int, confirmation: str
) -> None:
    """v1 repeats 409 and 500, and finds out by the replay (contract L16)."""
    receiver.responses = [answer]
    controlled = control(receiver, attempts=1)
    assert (controlled.told.status, controlled.told.exit_code) == (status, exit_code)
    assert controlled.told.confirmation_status == confirmation
    assert controlled.told.command == f"POST {receiver.url}/ops/control"
    assert json.loads(controlled.told.command_output) == json.loads(str(answer.body))
    assert " " not in controlled.told.command_output
    assert (controlled.audited, controlled.outcome, controlled.error) == (False, None, None)
    assert len(receiver.requests) == 1


def test_replay_and_confirmation_of_the_service_are_told(receiver: Receiver) -> None:
    document = outcome("confirmed", 0, replayed=True)
    document["result"] |= {"confirmed": True, "confirm": CONFIRM, "confirmExitCode": 0}
    receiver.responses = [told(200, document)]
    found = control(receiver).told
    assert (found.replayed, found.confirmed, found.confirm) == (True, True, CONFIRM)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (refused(409, "control_in_progress", "wait"), "control_in_progress"),
        (refused(409, "target_changed", "another run"), "target_changed"),
        (
            refused(400, "invalid_request", "another request [idempotency_key_conflict]"),
            "idempotency_key_conflict",
        ),
        (refused(400, "invalid_request", "too long [note_too_long]"), "note_too_long"),
        (refused(404, "not_found", "no loop [loop_not_found]"), "loop_not_found"),
        (refused(503, "ledger_unavailable", "read-only"), "ledger_unavailable"),
    ],
)
def test_refusal_of_an_agent_keeps_its_reason(receiver: Receiver, answer: Answer, reason: str) -> None:
    receiver.responses = [answer]
    with pytest.raises(OpsError) as caught:
        control(receiver)
    assert caught.value.reason == reason
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 405, 413, 429])
def test_request_that_nobody_let_through_has_failed_for_certain(receiver: Receiver, status: int) -> None:
    receiver.responses = [Answer(status, "<html>no</html>")]
    controlled = control(receiver)
    assert (controlled.told.status, controlled.told.command_output) == ("failed_command", "{}")
    assert controlled.error is not None
    assert str(status) in controlled.error.message
    assert len(receiver.requests) == (3 if status == 429 else 1)


@pytest.mark.parametrize(
    ("answer", "tries"),
    [
        (Answer(closes=True), 3),
        (Answer(502, "bad gateway"), 3),
        (Answer(504, "gateway timeout"), 3),
        (Answer(500, "Internal Server Error"), 1),
        (Answer(200, "<html>"), 1),
        (told(200, []), 1),
        (refused(503, "audit_unavailable", "disk full"), 1),
        (refused(500, "agent_fault", "a defect"), 3),
    ],
)
def test_outcome_is_ambiguous_when_the_request_may_have_arrived(
    receiver: Receiver, answer: Answer, tries: int
) -> None:
    receiver.responses = [answer]
    controlled = control(receiver)
    assert controlled.told.status == "ambiguous"
    assert controlled.error is not None
    assert "key-1" in controlled.error.message
    assert len(receiver.requests) == tries
    assert len({request.body for request in receiver.requests}) == 1, "each try has the same key"


def test_lost_connection_is_tried_again_with_the_same_key(receiver: Receiver) -> None:
    receiver.responses = [Answer(closes=True), told(200, outcome("confirmed", 0, replayed=True))]
    assert control(receiver).told.replayed is True
    first, second = receiver.requests
    assert first.body == second.body


def test_request_that_reached_nobody_has_failed_for_certain() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    controlled = control(url)
    assert controlled.told.status == "failed_command"
    assert controlled.error is not None
    assert controlled.error.reason == "agent_unreachable"


# --- what the operator saw -----------------------------------------------------------------------------


def snapshot(run_id: str, approval: str | None) -> Answer:
    return told(
        200,
        {
            "schemaVersion": "v1",
            "envelopeType": "loop_run_snapshot",
            "source": {"repoPath": "/repo", "loopId": "alpha"},
            "run": {"runId": run_id, "status": "running"},
            "artifacts": {"approval": {"path": "a", "exists": True, "sha256": "ab" * 32}},
            "health": {"hasPendingApproval": approval == "pending"},
        },
    )


def test_loop_that_is_still_the_one_seen_is_controlled(receiver: Receiver) -> None:
    receiver.gets["/ops/snapshot"] = [snapshot("run-1", "pending")]
    receiver.responses = [told(200, outcome("confirmed", 0))]
    request = REQUEST._replace(expected_run_id="run-1", expected_approval_id="ab" * 32)
    assert control(receiver, request).told.status == "confirmed"
    sent = json.loads(receiver.requests[-1].body)
    assert (sent["expectedRunId"], sent["expectedApprovalId"]) == ("run-1", "ab" * 32)


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ({"expected_run_id": "run-1"}, snapshot("run-2", "pending")),
        ({"expected_approval_id": "cd" * 32}, snapshot("run-1", "pending")),
        ({"expected_approval_id": "ab" * 32}, snapshot("run-1", "approved")),
    ],
)
def test_loop_that_is_another_by_now_is_left_alone(
    receiver: Receiver, expected: dict[str, str], found: Answer
) -> None:
    receiver.gets["/ops/snapshot"] = [found]
    with pytest.raises(OpsError) as caught:
        control(receiver, REQUEST._replace(**expected))  # type: ignore[arg-type]
    assert caught.value.reason == "target_changed"
    assert [request.method for request in receiver.requests] == ["GET"]


def test_target_is_looked_at_once_though_the_request_is_sent_twice(receiver: Receiver) -> None:
    """The first try may have changed it."""
    receiver.gets["/ops/snapshot"] = [snapshot("run-1", "pending"), snapshot("run-1", "approved")]
    receiver.responses = [Answer(closes=True), told(200, outcome("confirmed", 0, replayed=True))]
    request = REQUEST._replace(expected_approval_id="ab" * 32)
    assert control(receiver, request).told.status == "confirmed"
    assert [request.method for request in receiver.requests] == ["GET", "POST", "POST"]
