"""POST /ops/control of a real agent: what a v1 client sends and gets, and that nothing runs twice."""

import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from spritemesh.control import ControlRequest
from tests.harness.agents import Agent, start_agent
from tests.harness.control import Audit, Client, Runtime, audit_directory, audit_of, client_of, refusals_of
from tests.harness.http import WITH_TOKEN, HttpAnswer, HttpWire, ask, get, post
from tests.harness.loops import LoopFiles, Repo, event
from tests.harness.refusals import refusal
from tests.harness.waiting import wait_for

_numbers = itertools.count(1)


class Service:
    """An agent with a runtime, and the loop of one test."""

    def __init__(self, agent: Agent, runtime: Runtime, repo: Repo) -> None:
        self.agent = agent
        self.runtime = runtime
        self.repo = repo
        self.loop: LoopFiles = repo.loop(f"loop-{next(_numbers)}", event(1, "iteration_start"))

    def send(self, body: Any, headers: bytes = b"") -> HttpAnswer:
        """The answer to a body as it is."""
        return ask(str(self.agent.ready["http"]), post("/ops/control", body, WITH_TOKEN + headers))

    def ask(self, headers: bytes = b"", /, **members: Any) -> HttpAnswer:
        """The answer to a request to reject, which nobody confirms, with these members."""
        body = {"loopId": self.loop.loop_id, "intent": "reject", "by": "ana", "noConfirm": True}
        return self.send({**body, **members}, headers)

    def audit(self) -> Audit:
        return audit_of(self.repo, self.loop.loop_id)

    @property
    def file(self) -> Path:
        """The idempotency file of the loop."""
        return audit_directory(self.repo, self.loop.loop_id) / "service-idempotency.json"


@pytest.fixture(scope="module")
def http_repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return Repo(tmp_path_factory.mktemp("http-control") / "repo")


@pytest.fixture(scope="module")
def http_runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return Runtime(tmp_path_factory.mktemp("http-runtime") / "program")


@pytest.fixture(scope="module")
def http_agent(
    http_repo: Repo, http_runtime: Runtime, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Agent]:
    errors = tmp_path_factory.mktemp("agent") / "errors.txt"
    agent = start_agent(http_repo.root, errors, "--http", "127.0.0.1:0", *http_runtime.flags)
    yield agent
    agent.end()


@pytest.fixture
def service(http_agent: Agent, http_runtime: Runtime, http_repo: Repo) -> Service:
    """A loop never used before; nothing runs, and the runtime does nothing."""
    (http_repo.root / ".superloop" / "state.json").unlink(missing_ok=True)
    http_runtime.does("")
    for name in ("began", "go"):
        http_runtime.file(name).unlink(missing_ok=True)
    return Service(http_agent, http_runtime, http_repo)


@pytest.fixture
def client(http_agent: Agent) -> Iterator[Client]:
    with client_of(http_agent) as found:
        yield found


# --- what is sent and answered ----------------------------------------------------------------------


def test_a_request_is_executed_recorded_and_told(service: Service) -> None:
    service.runtime.does("echo done")
    answer = service.ask(note="why", traceId="t", idempotencyKey="told")
    row = service.audit().intents[-1]
    assert answer.status == 200
    assert answer.document == {
        "ok": True,
        "exitCode": 0,
        "result": row,
        "replayed": False,
        "traceId": "t",
    }
    assert row["status"] == "executed_unconfirmed"
    assert row["transport"] == "local"
    assert row["commandOutput"] == "done"
    # A key of its own, not the caller's.
    assert row["idempotencyKey"].startswith("reject-")
    assert json.loads(service.file.read_text()) == {"told": answer.document}
    [call] = service.runtime.calls
    assert call.endswith(f"--loop {service.loop.loop_id} --by ana --reject --note why")


def test_members_are_taken_as_v1_takes_them(service: Service) -> None:
    padded = service.ask(
        b"X-Trace-Id: of-header\r\nX-Idempotency-Key: of-header\r\n",
        loopId=f"  {service.loop.loop_id}\n",
        intent=" reject ",
        by="  ",
        note="\t",
        traceId="",
        idempotencyKey=None,
        noConfirm=[0],
    )
    result = padded.document["result"]
    assert padded.status == 200
    assert result["requestedBy"] not in {"", "ana"}  # the service's user
    assert "note" not in result
    assert result["traceId"] == padded.document["traceId"] == "of-header"
    assert list(json.loads(service.file.read_text())) == ["of-header"]
    named = service.ask(
        b"X-Trace-Id: h\r\nX-Idempotency-Key: h\r\n", note=12, traceId="b", idempotencyKey="b"
    )
    assert named.document["result"]["note"] == "12"
    assert named.document["traceId"] == "b"
    assert list(json.loads(service.file.read_text())) == ["of-header", "b"]


def test_without_a_key_nothing_is_kept(service: Service) -> None:
    first, second = service.ask(), service.ask()
    assert first.document["result"]["idempotencyKey"] != second.document["result"]["idempotencyKey"]
    assert not first.document["replayed"]
    assert not second.document["replayed"]
    assert len(service.runtime.calls) == 2
    assert not service.file.exists()


def test_a_trace_is_made_or_taken_from_a_traceparent(service: Service) -> None:
    made = service.ask().document
    assert made["traceId"] == made["result"]["traceId"]
    assert len(made["traceId"]) == 36
    standard = b"traceparent: 00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01\r\n"
    assert service.ask(standard).document["traceId"] == "ab" * 16


@pytest.mark.parametrize("falsy", [False, None, 0, "", [], {}])
def test_only_what_is_truthy_skips_the_confirmation(service: Service, falsy: Any) -> None:
    service.repo.put("state.json", {"active": False, "current_loop_id": service.loop.loop_id})
    answer = service.ask(intent="cancel", noConfirm=falsy)
    assert answer.status == 200
    assert answer.document["result"]["status"] == "confirmed"
    assert answer.document["result"]["confirm"]["reason"] == "inactive_not_running"


@pytest.mark.parametrize(
    ("body", "code", "named"),
    [
        (b"{bad", "invalid_json", ""),
        (b" ", "invalid_json", ""),
        (b'{"loopId":"\xff"}', "invalid_json", ""),
        (b'{"a":1}{"b":2}', "invalid_json", ""),
        (b"[" * 100_000, "invalid_json", ""),
        (b"[1]", "invalid_request", "array"),
        (b"null", "invalid_request", "null"),
        (b'"text"', "invalid_request", "string"),
        (b"", "invalid_request", "loopId"),
        ({}, "invalid_request", "loopId"),
        ({"loopId": "  "}, "invalid_request", "loopId"),
        ({"loopId": ["a"]}, "invalid_request", "loopId"),
        ({"loopId": "../x", "intent": "cancel"}, "invalid_request", "invalid_loop_id"),
        ({"loopId": "a", "intent": "pause"}, "invalid_request", "cancel, approve, reject"),
        ({"loopId": "a"}, "invalid_request", "cancel, approve, reject"),
        ({"loopId": "a", "intent": "cancel", "note": "x" * 4097}, "invalid_request", "note_too_long"),
        ({"loopId": "a", "intent": "cancel", "note": "a\u0007b"}, "invalid_request", "control_characters"),
        ({"loopId": "a", "intent": "cancel", "by": "\ud800"}, "invalid_request", "UTF-8"),
        ({"loopId": "a", "intent": "cancel", "idempotencyKey": "\x01"}, "invalid_request", "idempotency_key"),
        ({"loopId": "a", "intent": "cancel", "by": {"a": 1}}, "invalid_request", "by must be a string"),
        ({"loopId": "a", "intent": "cancel", "traceId": "t" * 129}, "invalid_request", "invalid_trace_id"),
        ({"loopId": "a", "intent": "cancel", "traceId": "\ud800"}, "invalid_request", "invalid_trace_id"),
    ],
)
def test_bad_requests_are_refused_by_name(service: Service, body: Any, code: str, named: str) -> None:
    answer = service.send(body)
    assert answer.error == (400, code)
    assert named in answer.message
    assert service.runtime.calls == []
    noted = refusals_of(service.repo)[-1]
    assert noted["transport"] == "http"
    assert noted["message"] in answer.message


# --- the same key -----------------------------------------------------------------------------------


def test_the_same_key_fifty_times_at_once_is_one_execution(service: Service) -> None:
    service.runtime.does(service.runtime.waits())
    with ThreadPoolExecutor(50) as threads:
        calls = [threads.submit(service.ask, idempotencyKey="fifty") for _ in range(50)]
        service.runtime.wait_until_it_runs()
        service.runtime.go()
        answers = [call.result() for call in calls]
    assert len(service.runtime.calls) == 1
    assert {answer.status for answer in answers} == {200}
    assert [answer.document["replayed"] for answer in answers].count(False) == 1
    assert len({json.dumps({**answer.document, "replayed": None}) for answer in answers}) == 1
    assert len(service.audit().intents) == 1


def test_a_replay_is_the_answer_that_was_sent(service: Service) -> None:
    first = service.ask(idempotencyKey="again", traceId="first")
    second = service.ask(idempotencyKey="again", traceId="second")
    assert second.status == 200
    assert second.body == first.body.replace(b'"replayed":false', b'"replayed":true')
    assert len(service.runtime.calls) == 1
    assert len(service.audit().invocations) == 1


def test_without_the_file_a_replay_is_made_from_the_ledger(service: Service) -> None:
    first = service.ask(idempotencyKey="lost", note="é").document
    service.file.unlink()
    second = service.ask(idempotencyKey="lost", note="é").document
    assert second.pop("replayed") is True
    assert first.pop("replayed") is False
    assert second["result"].pop("idempotencyKey") == "lost"
    del first["result"]["idempotencyKey"]
    assert second == first
    assert len(service.runtime.calls) == 1


@pytest.mark.parametrize(
    "members",
    [{"intent": "approve"}, {"by": "bob"}, {"note": "n"}, {"noConfirm": False}, {"expectedRunId": "r"}],
)
def test_the_same_key_for_another_request_is_refused(service: Service, members: dict[str, Any]) -> None:
    key = f"conflict-{service.loop.loop_id}"
    assert service.ask(idempotencyKey=key).status == 200
    answer = service.ask(idempotencyKey=key, **members)
    assert answer.error == (400, "invalid_request")
    assert "idempotency_key_conflict" in answer.message
    assert len(service.runtime.calls) == 1


def test_a_key_is_one_over_http_and_grpc(service: Service, client: Client) -> None:
    assert service.ask(idempotencyKey="both").status == 200
    same = ControlRequest(service.loop.loop_id, "reject", "both", "ana")
    same = same._replace(confirmation=same.confirmation._replace(skip=True))
    assert client.ask(same).replayed
    assert refusal(lambda: client.ask(same._replace(note="n"))).reason == "idempotency_key_conflict"
    anyway = same._replace(idempotency_key="other", even_if_nothing_pending=True)
    assert client.ask(anyway).replayed is False
    assert service.ask(idempotencyKey="other").document["replayed"] is True
    assert len(service.runtime.calls) == 2


def test_a_failed_command_is_told_and_replayed(service: Service) -> None:
    service.runtime.does("echo no >&2", "exit 9")
    first = service.ask(idempotencyKey="failed")
    assert first.status == 500
    assert (first.document["ok"], first.document["exitCode"]) == (False, 1)
    assert first.document["result"]["status"] == "failed_command"
    assert first.document["result"]["exitCode"] == 9
    assert first.document["result"]["commandOutput"] == "no"
    second = service.ask(idempotencyKey="failed")
    assert second.status == 200
    assert second.body == first.body.replace(b'"replayed":false', b'"replayed":true')
    assert len(service.runtime.calls) == 1


def test_an_outcome_that_is_not_known_names_its_reason(service: Service) -> None:
    service.runtime.does("kill -9 $$")
    answer = service.ask()
    assert (answer.status, answer.document["result"]["status"]) == (409, "ambiguous")
    assert answer.document["stderr"].startswith("runtime_killed: ")


def test_a_runtime_that_was_not_there_may_be_asked_again(service: Service) -> None:
    moved = service.runtime.path.rename(service.runtime.path.with_suffix(".away"))
    try:
        first = service.ask(idempotencyKey="absent")
    finally:
        moved.rename(service.runtime.path)
    assert first.status == 500
    assert first.document["result"]["exitCode"] == 127
    assert "runtime_not_found" in first.document["result"]["commandOutput"]
    assert "stderr" not in first.document
    second = service.ask(idempotencyKey="absent")
    assert second.status == 200
    assert second.document["replayed"] is False
    assert len(service.runtime.calls) == 1


# --- what a v1 service left -------------------------------------------------------------------------


def left_by_v1(service: Service, **result: Any) -> dict[str, Any]:
    """An answer that a v1 service stored for a request as `ask` makes it."""
    row = {"loopId": service.loop.loop_id, "intent": "reject", "requestedBy": "ana", "status": "ambiguous"}
    return {"ok": False, "exitCode": 2, "result": {**row, **result}, "replayed": False}


def test_a_key_of_a_v1_service_is_replayed_from_its_file(service: Service) -> None:
    service.file.parent.mkdir(parents=True)
    service.file.write_text(json.dumps({"old": left_by_v1(service), "ours": left_by_v1(service)}))
    answer = service.ask(idempotencyKey="old", traceId="mine")
    assert answer.status == 200
    assert answer.document == {**left_by_v1(service), "replayed": True, "traceId": "mine"}
    conflict = service.ask(idempotencyKey="old", note="another")
    assert conflict.error == (400, "invalid_request")
    assert "idempotency_key_conflict" in conflict.message
    assert service.runtime.calls == []


@pytest.mark.parametrize("code", [126, 127])
def test_an_old_answer_is_replayed_whatever_its_exit_code(service: Service, code: int) -> None:
    service.file.parent.mkdir(parents=True)
    failed = left_by_v1(service, status="failed_command", exitCode=code)
    service.file.write_text(json.dumps({f"v1-{code}": failed}))
    assert service.ask(idempotencyKey=f"v1-{code}").document["result"] == failed["result"]
    assert service.runtime.calls == []


@pytest.mark.parametrize("code", [126, 127])
def test_a_program_that_ran_is_replayed_whatever_its_exit_code(service: Service, code: int) -> None:
    service.runtime.does(f"exit {code}")
    first = service.ask(idempotencyKey=f"ran-{code}")
    assert first.document["result"]["exitCode"] == code
    second = service.ask(idempotencyKey=f"ran-{code}")
    assert second.body == first.body.replace(b'"replayed":false', b'"replayed":true')
    assert len(service.runtime.calls) == 1


def test_a_damaged_file_counts_as_empty(service: Service) -> None:
    service.file.parent.mkdir(parents=True)
    service.file.write_text("{bad")
    answer = service.ask(idempotencyKey="damaged")
    assert answer.status == 200
    assert json.loads(service.file.read_text()) == {"damaged": answer.document}


def test_a_file_that_cannot_be_written_fails_nothing(service: Service) -> None:
    service.file.mkdir(parents=True)
    assert service.ask(idempotencyKey="blocked").document["replayed"] is False
    assert service.ask(idempotencyKey="blocked").document["replayed"] is True
    assert len(service.runtime.calls) == 1


# --- refusals ---------------------------------------------------------------------------------------


def test_a_target_that_changed_is_told_and_nothing_runs(service: Service) -> None:
    run = service.ask(expectedRunId="another-run")
    assert run.error == (409, "target_changed")
    assert service.ask(expectedApprovalId="ff").error == (409, "target_changed")
    assert service.runtime.calls == []


def test_a_decision_may_ask_for_something_to_be_pending(service: Service) -> None:
    assert service.ask(requirePending=True).error == (409, "nothing_pending")
    assert service.runtime.calls == []
    assert service.ask(requirePending=False).status == 200


def test_words_are_read_as_v1_reads_them(service: Service) -> None:
    result = service.ask(by=True, note=1.5, traceId=[], idempotencyKey="ключ").document["result"]
    assert (result["requestedBy"], result["note"]) == ("True", "1.5")
    assert len(result["traceId"]) == 36
    assert list(json.loads(service.file.read_text())) == ["ключ"]
    assert service.ask(by="a\tb\nc").document["result"]["requestedBy"] == "a\tb\nc"


def test_another_loop_is_not_cancelled(service: Service) -> None:
    service.repo.put("state.json", {"active": True, "current_loop_id": "other"})
    assert service.ask(intent="cancel").error == (409, "other_loop_active")
    assert service.runtime.calls == []


def test_a_second_operation_on_a_loop_is_told_to_wait(service: Service) -> None:
    service.runtime.does(service.runtime.waits())
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(service.ask, idempotencyKey="first")
        service.runtime.wait_until_it_runs()
        second = service.ask(idempotencyKey="second")
        service.runtime.go()
        assert first.result().status == 200
    assert second.error == (409, "control_in_progress")
    assert int(second.headers["retry-after"]) >= 1
    assert len(service.runtime.calls) == 1


def test_a_loop_that_is_not_there_is_not_found(service: Service) -> None:
    answer = service.ask(loopId="never")
    assert answer.error == (404, "not_found")
    assert "loop_not_found" in answer.message
    assert service.runtime.calls == []


def test_without_an_audit_nothing_runs(service: Service) -> None:
    service.file.parent.mkdir(parents=True)
    (service.file.parent / "intents.jsonl").mkdir()
    answer = service.ask(idempotencyKey="unaudited")
    # Not one of those that a v1 client repeats.
    assert answer.error == (507, "audit_unavailable")
    assert service.runtime.calls == []


# --- the end ----------------------------------------------------------------------------------------


def test_a_request_under_way_is_answered_before_the_end(
    repo: Repo, http_runtime: Runtime, tmp_path: Path
) -> None:
    agent = start_agent(repo.root, tmp_path / "errors.txt", "--http", "127.0.0.1:0", *http_runtime.flags)
    try:
        http_runtime.does("")
        service = Service(agent, http_runtime, repo)
        with ThreadPoolExecutor(1) as threads, HttpWire(str(agent.ready["http"])) as wire:
            waiting = threads.submit(service.ask, noConfirm=False, idempotencyKey="end")
            wait_for(lambda: http_runtime.calls)
            assert wire.ask(get("/healthz")).status == 200
            agent.signal()
            wait_for(lambda: wire.ask(get("/healthz")).status == 503, seconds=1)
            service.loop.put("approval.json", {"status": "rejected"})
            answer = waiting.result()
        assert agent.wait() == 0
    finally:
        agent.end()
    assert answer.status == 200
    assert answer.document["result"]["status"] == "confirmed"
    assert json.loads(service.file.read_text()) == {"end": answer.document}


def test_a_command_that_does_not_end_gets_no_answer_but_a_closed_connection(
    repo: Repo, http_runtime: Runtime, tmp_path: Path
) -> None:
    agent = start_agent(repo.root, tmp_path / "errors.txt", "--http", "127.0.0.1:0", *http_runtime.flags)
    try:
        http_runtime.file("began").unlink(missing_ok=True)
        http_runtime.does(http_runtime.waits("released"))
        service = Service(agent, http_runtime, repo)
        body = {"loopId": service.loop.loop_id, "intent": "cancel", "noConfirm": True, "idempotencyKey": "k"}
        with HttpWire(str(agent.ready["http"])) as wire:
            wire.socket.sendall(post("/ops/control", body))
            http_runtime.wait_until_it_runs()
            agent.signal()
            assert wire.is_closed()
        assert agent.wait() == 0
        assert "Traceback" not in agent.said()
    finally:
        http_runtime.go("released")
        agent.end()
