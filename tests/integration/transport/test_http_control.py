"""Control through a service over HTTP: what is sent, what answers mean, and what is certain without one."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from manager.transport import Controlled, Endpoint, Retry, delivery, http_control
from manager.transport.http import HttpTransport
from manager.transport.http_client import Timeouts
from spritemesh.control import Confirmation, ControlRequest
from spritemesh.errors import OpsError
from spritemesh.names import AGENT_HEADER
from tests.harness import secrets
from tests.harness.receiver import Answer, Receiver, receiving

REQUEST = ControlRequest(
    "alpha",
    "approve",
    "key-1",
    requested_by="Ana Mar\u00eda",
    note="ship it",
    trace_id="trace-1",
    confirmation=Confirmation(timeout_seconds=0),
    even_if_nothing_pending=True,
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


def of_agent(answer: Answer) -> Answer:
    """The same from an agent, which says that it is one."""
    return answer._replace(headers={**answer.headers, AGENT_HEADER: "1"})


def refused(status: int, code: str, message: str) -> Answer:
    """How an agent refuses."""
    return of_agent(told(status, {"ok": False, "error": {"code": code, "message": message}}))


HEALTHY_AGENT = of_agent(told(200, {"ok": True}))


def posts(receiver: Receiver) -> int:
    return sum(request.method == "POST" for request in receiver.requests)


def test_request_is_what_v1_posts(receiver: Receiver) -> None:
    receiver.responses = [told(200, outcome("confirmed", 0))]
    control(receiver, token=secrets.SERVICE_TOKEN)
    (request,) = receiver.requests
    assert (request.method, request.path) == ("POST", "/ops/control")
    assert request.body == (
        '{\n  "loopId": "alpha",\n  "intent": "approve",\n  "by": "Ana Mar\u00eda",\n  "note": "ship it",\n'
        '  "traceId": "trace-1",\n  "idempotencyKey": "key-1",\n  "noConfirm": false\n}\n'
    )
    assert request.header("content-type") == "application/json"
    assert request.header("authorization") == f"Bearer {secrets.SERVICE_TOKEN}"
    assert request.header("x-trace-id") == "trace-1"


@pytest.mark.parametrize(("intent", "asked"), [("approve", True), ("reject", True), ("cancel", None)])
def test_pending_approval_is_asked_for_where_one_is_decided(
    receiver: Receiver, intent: str, asked: bool | None
) -> None:
    receiver.responses = [told(200, outcome("confirmed", 0))]
    control(receiver, REQUEST._replace(intent=intent, even_if_nothing_pending=False))
    assert json.loads(receiver.requests[0].body).get("requirePending") is asked


@pytest.mark.parametrize(
    ("answer", "status", "exit_code", "confirmation"),
    [
        (told(200, outcome("confirmed", 0)), "confirmed", 0, "confirmed"),
        (told(200, outcome("executed_unconfirmed", 0)), "executed_unconfirmed", 0, "skipped"),
        (told(409, outcome("ambiguous", 2)), "ambiguous", 2, "ambiguous"),
        (told(500, outcome("failed_command", 1)), "failed_command", 1, "not_attempted"),
        (told(200, {"ok": True}), "confirmed", 0, "confirmed"),
        (told(200, {}), "failed_command", 0, "not_attempted"),
        (told(202, {"exitCode": 2}), "ambiguous", 2, "ambiguous"),
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


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 405, 413, 501])
def test_error_of_a_v1_service_is_the_failure_of_v1(receiver: Receiver, status: int) -> None:
    """Contract E.2, whatever the body says: a v1 service knows none of our reasons."""
    error = {"ok": False, "error": {"code": "invalid_request", "message": "intent must be one of three"}}
    for answer in (Answer(status, "<html>no</html>"), told(status, error)):
        receiver.responses = [answer]
        receiver.take()
        controlled = control(receiver)
        assert (controlled.told.status, controlled.told.command_output) == ("failed_command", "{}")
        assert controlled.told.exit_code == 1
        assert controlled.error is not None
        for word in (f"POST {receiver.url}/ops/control", str(status), str(answer.body)):
            assert word in controlled.error.message
        assert posts(receiver) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_error_of_a_v1_service_that_may_pass_is_tried_again_as_by_v1(receiver: Receiver, status: int) -> None:
    receiver.responses = [Answer(status, "later")]
    controlled = control(receiver)
    assert (controlled.told.status, controlled.told.command_output) == ("failed_command", "{}")
    assert posts(receiver) == 3
    receiver.responses = [*[Answer(status, "later")] * 5, told(200, outcome("confirmed", 0))]
    assert control(receiver).told.status == "confirmed"
    assert len({request.body for request in receiver.requests if request.method == "POST"}) == 1


def test_409_of_a_v1_service_that_cannot_be_read_is_ambiguous(receiver: Receiver) -> None:
    """It is what v1 answers after the command ran (contract D.3); v1 tries it again."""
    receiver.responses = [Answer(409, "<html>")]
    controlled = control(receiver)
    assert (controlled.told.status, posts(receiver)) == ("ambiguous", 3)
    receiver.responses = [*[Answer(409, "<html>")] * 4, Answer(400, "no")]
    assert control(receiver, attempts=2).told.status == "ambiguous", "a later refusal does not undo it"


@pytest.mark.parametrize(
    ("answer", "tries"),
    [
        (Answer(closes=True), 3),
        (Answer(502, "bad gateway"), 3),
        (Answer(504, "gateway timeout"), 3),
        (of_agent(Answer(500, "Internal Server Error")), 1),
        (Answer(200, "<html>"), 1),
        (told(200, []), 1),
        (refused(503, "audit_unavailable", "disk full"), 1),
        (refused(500, "agent_fault", "a defect"), 3),
        (refused(507, "deadline_exceeded", "the request goes on"), 3),
    ],
)
def test_outcome_is_ambiguous_when_the_request_may_have_reached_an_agent(
    receiver: Receiver, answer: Answer, tries: int
) -> None:
    receiver.gets["/healthz"] = [HEALTHY_AGENT]
    receiver.responses = [answer]
    controlled = control(receiver)
    assert controlled.told.status == "ambiguous"
    assert controlled.error is not None
    assert "key-1" in controlled.error.message
    sent = [request.body for request in receiver.requests if request.method == "POST"]
    assert (len(sent), len(set(sent))) == (tries, 1), "each try has the same key"


@pytest.mark.parametrize("answer", [Answer(closes=True), Answer(delay_seconds=20), Answer(200, "<html>")])
def test_request_that_a_v1_service_may_have_got_is_not_sent_again(
    receiver: Receiver, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would run it twice while the first one runs (contract L15)."""
    monkeypatch.setattr(delivery, "COMMAND_SECONDS", 0.2)
    monkeypatch.setattr(http_control, "_CONFIRMATION_SECONDS", 0)
    receiver.gets["/healthz"] = [told(200, {"ok": True})]
    receiver.responses = [answer]
    controlled = control(receiver)
    assert (controlled.told.status, controlled.told.execution_status) == ("ambiguous", "unknown")
    assert controlled.error is not None
    assert "key-1" in controlled.error.message
    assert posts(receiver) == 1


def test_who_cannot_be_asked_what_it_is_is_asked_later(receiver: Receiver) -> None:
    receiver.gets["/healthz"] = [Answer(closes=True), HEALTHY_AGENT]
    receiver.responses = [Answer(closes=True), told(200, outcome("confirmed", 0, replayed=True))]
    assert control(receiver).told.status == "confirmed"
    receiver.take()
    receiver.gets["/healthz"] = [Answer(closes=True)]
    receiver.responses = [Answer(closes=True)]
    assert control(receiver).told.status == "ambiguous"
    assert posts(receiver) == 1


def test_lost_connection_to_an_agent_is_tried_again_with_the_same_key(receiver: Receiver) -> None:
    receiver.gets["/healthz"] = [HEALTHY_AGENT]
    receiver.responses = [Answer(closes=True), told(200, outcome("confirmed", 0, replayed=True))]
    assert control(receiver).told.replayed is True
    first, second = (request for request in receiver.requests if request.method == "POST")
    assert first.body == second.body


TOKEN = secrets.SERVICE_TOKEN


@pytest.mark.parametrize(
    "answer",
    [
        Answer(400, f"no: Bearer {TOKEN} " + TOKEN * 300),
        Answer(400, "x" * 290 + TOKEN),
        refused(409, "target_changed", f"not for {TOKEN}"),
        refused(500, "agent_fault", f"not for {TOKEN}"),
        told(500, outcome("failed_command", 1, stderr=f"Authorization: Bearer {TOKEN}")),
        told(200, {"ok": True, "result": {"confirm": {"reason": TOKEN}}}),
    ],
)
def test_token_that_a_service_repeats_is_told_to_nobody(receiver: Receiver, answer: Answer) -> None:
    receiver.responses = [answer]
    try:
        found = repr(control(receiver, token=TOKEN, attempts=1))
    except OpsError as error:
        found = error.message
    assert TOKEN[:6] not in found
    assert "***" in found


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
    receiver.responses = [Answer(503, "later"), told(200, outcome("confirmed", 0, replayed=True))]
    request = REQUEST._replace(expected_approval_id="ab" * 32)
    assert control(receiver, request).told.status == "confirmed"
    asked = [request.path for request in receiver.requests]
    assert (posts(receiver), sum(path.startswith("/ops/snapshot") for path in asked)) == (2, 1)
