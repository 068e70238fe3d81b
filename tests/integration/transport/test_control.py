"""Control through an agent that behaves as told: what is certain of a try, and what is not."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from manager.transport import Controlled, Retry, Transport, delivery
from spritemesh import jsontext
from spritemesh.control import Confirmation, ControlRequest
from spritemesh.errors import OpsError
from spritemesh.grpcstatus import DETAILS_KEY, status_code, status_details
from superloop.ops.v1 import control_pb2 as pb
from superloop.ops.v1 import control_pb2_grpc

OpenRemote = Callable[..., Transport]
QUICK = Retry(attempts=3, backoff_seconds=0.02)
REQUEST = ControlRequest(
    "alpha",
    "cancel",
    "key-1",
    requested_by="op",
    trace_id="trace-1",
    confirmation=Confirmation(timeout_seconds=0),
)
LOST = "lost"  # the connection breaks: a status that no agent gave

Behaviour = OpsError | str | pb.ControlOutcome


def outcome(**members: Any) -> pb.ControlOutcome:
    return pb.ControlOutcome(
        loop_id="alpha",
        intent=pb.CONTROL_INTENT_CANCEL,
        trace_id="trace-1",
        idempotency_key="key-1",
        status=pb.CONTROL_STATUS_EXECUTED_UNCONFIRMED,
        exit_code=0,
        command="runtime cancel",
        **members,
    )


class Agent(control_pb2_grpc.ControlServiceServicer):
    """Does one thing after the other, and the last one from then on."""

    def __init__(self, *does: Behaviour) -> None:
        self.does = does
        self.asked: list[Any] = []
        self.metadata: list[dict[str, Any]] = []
        self.questions: list[str] = []
        self.recorded: pb.GetInvocationResponse | None = None

    def CancelLoop(self, request: pb.CancelLoopRequest, context: grpc.ServicerContext) -> Any:
        return pb.CancelLoopResponse(outcome=self._step(request, context))

    def ApprovePending(self, request: pb.ApprovePendingRequest, context: grpc.ServicerContext) -> Any:
        return pb.ApprovePendingResponse(outcome=self._step(request, context))

    def RejectPending(self, request: pb.RejectPendingRequest, context: grpc.ServicerContext) -> Any:
        return pb.RejectPendingResponse(outcome=self._step(request, context))

    def GetInvocation(self, request: pb.GetInvocationRequest, context: grpc.ServicerContext) -> Any:
        self.questions.append(request.idempotency_key)
        if self.recorded is None:
            fail(context, OpsError("invocation_not_found", "no such key"))
        return self.recorded

    def _step(self, request: Any, context: grpc.ServicerContext) -> pb.ControlOutcome | None:
        behaviour = self.does[min(len(self.asked), len(self.does) - 1)]
        self.asked.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if behaviour == LOST:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        if behaviour == "hang":
            ended = threading.Event()
            context.add_callback(ended.set)
            ended.wait(10)
        if isinstance(behaviour, OpsError):
            fail(context, behaviour)
        return behaviour if isinstance(behaviour, pb.ControlOutcome) else None


def fail(context: grpc.ServicerContext, error: OpsError) -> None:
    context.set_trailing_metadata(((DETAILS_KEY, status_details(error)),))
    context.abort(status_code(error), error.message)


Control = Callable[..., Controlled]


@pytest.fixture
def control(remote: OpenRemote) -> Iterator[Control]:
    """Sends REQUEST, or another one, to a scripted agent."""
    servers: list[grpc.Server] = []

    def control(agent: Agent, request: ControlRequest = REQUEST, token: str = "t") -> Controlled:
        server = grpc.server(futures.ThreadPoolExecutor(4))
        control_pb2_grpc.add_ControlServiceServicer_to_server(agent, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return remote(f"grpc://127.0.0.1:{port}", token=token, retry=QUICK).control(request)

    yield control
    for server in servers:
        server.stop(0).wait()


def refusal_of(work: Callable[[], object]) -> str:
    with pytest.raises(OpsError) as caught:
        work()
    return caught.value.reason


def test_outcome_becomes_the_answer_that_a_v1_service_would_give(control: Control) -> None:
    agent = Agent(outcome(output_tail="done", replayed=True))
    told, whole, recorded_at, error = control(agent)
    assert (whole, recorded_at, error) == (outcome(output_tail="done", replayed=True), None, None)
    assert (told.status, told.exit_code, told.confirmation_status) == ("executed_unconfirmed", 0, "skipped")
    assert (told.replayed, told.confirmed, told.execution_status) == (True, False, "succeeded")
    assert told.command.startswith("POST grpc://127.0.0.1:")
    assert told.command.endswith("/ops/control")
    answer: Any = jsontext.parse(told.command_output)
    assert (answer["ok"], answer["exitCode"], answer["replayed"]) == (True, 0, True)
    assert (answer["result"]["command"], answer["result"]["commandOutput"]) == ("runtime cancel", "done")


@pytest.mark.parametrize(
    ("intent", "kind"),
    [
        ("cancel", pb.CancelLoopRequest),
        ("approve", pb.ApprovePendingRequest),
        ("reject", pb.RejectPendingRequest),
    ],
)
def test_each_intent_has_its_method_and_carries_key_token_and_trace(
    control: Control, intent: str, kind: Any
) -> None:
    agent = Agent(outcome())
    control(agent, REQUEST._replace(intent=intent, note="why"))
    asked, metadata = agent.asked[0], agent.metadata[0]
    assert type(asked) is kind
    assert (asked.idempotency_key, asked.note, asked.requested_by) == ("key-1", "why", "op")
    assert (metadata["authorization"], metadata["x-trace-id"]) == ("Bearer t", "trace-1")


def test_nobody_there_is_a_failure_and_no_doubt(remote: OpenRemote) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"grpc://127.0.0.1:{server.getsockname()[1]}"
    told, _, _, error = remote(url, retry=QUICK).control(REQUEST)
    assert (told.status, told.exit_code, told.command_output) == ("failed_command", 1, "{}")
    assert told.command == f"POST {url}/ops/control"
    assert error is not None
    assert error.reason == "agent_unreachable"


def test_lost_connection_is_repeated_with_the_same_key(control: Control) -> None:
    agent = Agent(LOST, OpsError("agent_draining", "later", retry_after=0.01), outcome())
    assert control(agent).told.status == "executed_unconfirmed"
    assert [asked.idempotency_key for asked in agent.asked] == ["key-1"] * 3


def test_connection_that_is_lost_each_time_leaves_doubt(control: Control) -> None:
    agent = Agent(LOST)
    told, _, _, error = control(agent)
    assert (told.status, told.execution_status, told.exit_code) == ("ambiguous", "unknown", None)
    assert len(agent.asked) == 3
    assert error is not None
    assert (error.reason, "--idempotency-key key-1" in error.message) == ("agent_unreachable", True)


def test_answer_that_does_not_come_in_time_leaves_doubt(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "COMMAND_SECONDS", 0.2)
    agent = Agent("hang")
    told = control(agent).told
    assert (told.status, told.reason, len(agent.asked)) == ("ambiguous", "deadline_exceeded", 3)


def test_request_that_an_agent_still_works_on_is_joined(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runtime command may take an hour."""
    monkeypatch.setattr(delivery, "COMMAND_SECONDS", 0.2)
    agent = Agent("hang", outcome(replayed=True))
    agent.recorded = pb.GetInvocationResponse(state=pb.INVOCATION_STATE_STARTED, outcome=outcome())
    assert control(agent).told.status == "executed_unconfirmed"
    assert [asked.idempotency_key for asked in agent.asked] == ["key-1"] * 2
    agent = Agent("hang")
    agent.recorded = pb.GetInvocationResponse(state=pb.INVOCATION_STATE_CONFIRMING, outcome=outcome())
    told, _, _, error = control(agent)
    assert (told.status, len(agent.asked)) == ("ambiguous", 3)
    assert error is not None
    assert "still works on it" in error.message


def test_outcome_that_was_recorded_but_did_not_come_in_time_is_told(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "COMMAND_SECONDS", 0.2)
    agent = Agent("hang")
    agent.recorded = pb.GetInvocationResponse(state=pb.INVOCATION_STATE_FINISHED, outcome=outcome())
    assert control(agent)[1:] == (outcome(), None, None)
    agent = Agent("hang")
    other = outcome()
    other.loop_id = "beta"
    agent.recorded = pb.GetInvocationResponse(state=pb.INVOCATION_STATE_FINISHED, outcome=other)
    assert control(agent).told.status == "ambiguous", "the key is that of another request"


def test_answer_without_an_outcome_leaves_doubt(control: Control) -> None:
    agent = Agent("nothing")
    told = control(agent).told
    assert (told.status, told.reason, len(agent.asked)) == ("ambiguous", "service_response_invalid", 1)


@pytest.mark.parametrize("reason", ["target_changed", "control_in_progress", "idempotency_key_conflict"])
def test_refusal_of_the_agent_is_final(control: Control, reason: str) -> None:
    agent = Agent(OpsError(reason, "no"))
    assert refusal_of(lambda: control(agent)) == reason
    assert len(agent.asked) == 1


def test_agent_that_cannot_keep_its_audit_is_asked_what_it_did(control: Control) -> None:
    agent = Agent(OpsError("audit_unavailable", "cannot write it"))
    assert refusal_of(lambda: control(agent)) == "audit_unavailable"
    assert agent.questions == ["key-1"] * 2


def test_outcome_that_an_agent_recorded_but_could_not_audit_is_told_with_its_error(control: Control) -> None:
    agent = Agent(OpsError("audit_unavailable", "cannot write it"))
    agent.recorded = pb.GetInvocationResponse(state=pb.INVOCATION_STATE_FINISHED, outcome=outcome())
    told, whole, _, error = control(agent)
    assert (told.status, whole) == ("executed_unconfirmed", outcome())
    assert error is not None
    assert error.reason == "audit_unavailable"


def test_defect_of_the_agent_while_a_command_runs_leaves_doubt(control: Control) -> None:
    agent = Agent(OpsError("agent_fault", "defect"))
    agent.recorded = pb.GetInvocationResponse(state=pb.INVOCATION_STATE_STARTED, outcome=outcome())
    told = control(agent).told
    assert (told.status, told.reason, len(agent.asked)) == ("ambiguous", "agent_fault", 3)
