"""`control` through v1 services that answer by a script, held to contract E.2 and E.4 word by word."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from spritemesh.names import AGENT_HEADER
from tests.contract.deviations import NO_ANSWER
from tests.harness.control import Audit, audit_of
from tests.harness.loops import Repo
from tests.harness.manager import Ran, run
from tests.harness.receiver import Answer, Receiver, receiving

CONFIRM = {"intent": "cancel", "confirmed": True, "reason": "inactive_not_running", "attempts": 1}


class Outcome(NamedTuple):
    """What rows say, in the columns of E.2. output: "answer" for the answer's document as compact text; None:
    there is no such member."""

    status: str
    exit: int
    exit_code: int | None
    confirm_exit_code: int = 0
    execution: str = "succeeded"
    confirmation: str = "not_attempted"
    output: str | None = "answer"
    confirm: Any = None
    replayed: bool = False
    posts: int = 1


# v1's client fails (contract D.5, E.2).
FAILS = Outcome("failed_command", 1, 1, execution="failed_command", output="{}")
FAILS_AFTER_TRIES = FAILS._replace(posts=3)
DOUBT = Outcome(**NO_ANSWER)


@pytest.fixture
def service() -> Iterator[Receiver]:
    """A v1 service: nothing in its answers says what it is."""
    with receiving(gets={"/healthz": [Answer(200, '{"ok":true}')]}) as found:
        yield found


@pytest.fixture
def manager(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "manager")


def control(service: Receiver, manager: Repo, answers: Sequence[Answer]) -> Ran:
    service.responses = list(answers)
    words = ("--repo", str(manager.root), "--loop", "alpha", "--intent", "cancel", "--by", "op")
    ways = (
        "--transport",
        "sprite_service",
        "--service-base-url",
        f"{service.url}/",
        "--service-token",
        "k3y",
    )
    names = ("--idempotency-key", "key-1", "--trace-id", "trace-1", "--retry-backoff-seconds", "0")
    return run("control", *words, *ways, *names)


def told(status: int, document: object) -> Answer:
    return Answer(status, json.dumps(document))


def error(status: int, code: str = "invalid_request") -> Answer:
    return told(status, {"ok": False, "error": {"code": code, "message": "no"}})


def result(status: str, exit_code: int, **members: Any) -> dict[str, Any]:
    return {"ok": exit_code == 0, "exitCode": exit_code, "result": {"status": status, **members}}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        # 200 with any object
        (
            [told(200, result("confirmed", 0, confirmed=True, confirm=CONFIRM, confirmExitCode=0))],
            Outcome("confirmed", 0, 0, confirmation="confirmed", confirm=CONFIRM),
        ),
        (
            [told(200, {**result("executed_unconfirmed", 0), "replayed": True})],
            Outcome("executed_unconfirmed", 0, 0, confirmation="skipped", replayed=True),
        ),
        ([told(200, {"ok": True})], Outcome("confirmed", 0, 0, confirmation="confirmed")),
        ([told(200, {"exitCode": 2})], Outcome("ambiguous", 2, 2, confirmation="ambiguous")),
        ([told(200, {})], Outcome("failed_command", 1, 0, execution="failed_command")),
        ([told(200, {"a": 1})], Outcome("failed_command", 1, 0, execution="failed_command")),
        (
            [told(200, result("odd", 0, confirm=CONFIRM))],
            Outcome("odd", 1, 0, confirmation="attempted_unknown", confirm=CONFIRM),
        ),
        # 409 and 500 with the same body (L16)
        (
            [told(409, result("ambiguous", 2, confirmExitCode=1, confirm=CONFIRM))],
            Outcome("ambiguous", 2, 2, 1, confirmation="ambiguous", confirm=CONFIRM),
        ),
        (
            [told(500, result("failed_command", 1))],
            Outcome("failed_command", 1, 1, execution="failed_command"),
        ),
        # v1's client fails: at once, or after its tries
        ([error(400)], FAILS),
        ([error(401, "unauthorized")], FAILS),
        ([error(404, "not_found")], FAILS),
        ([Answer(501, "<html>")], FAILS),
        *(([Answer(status, "later")], FAILS_AFTER_TRIES) for status in (408, 425, 429, 500, 502, 503, 504)),
        ([error(502, "runtime_error")], FAILS_AFTER_TRIES),
        ([error(500), error(400)], FAILS._replace(posts=2)),
        (
            [error(503), told(200, {"ok": True})],
            Outcome("confirmed", 0, 0, confirmation="confirmed", posts=2),
        ),
        # it may have been run
        ([Answer(409, "<html>")], DOUBT._replace(posts=3)),
        (
            [Answer(409, "<html>"), told(200, {"ok": True})],
            Outcome("confirmed", 0, 0, confirmation="confirmed", posts=2),
        ),
        ([Answer(200, "<html>")], DOUBT),
        ([Answer(204, "")], DOUBT),
        ([told(200, [])], DOUBT),
        ([Answer(closes=True)], DOUBT),
        ([error(503), Answer(closes=True)], DOUBT._replace(posts=2)),
    ],
)
def test_answer_of_a_v1_service_is_told_as_v1_tells_it(
    service: Receiver, manager: Repo, answers: list[Answer], expected: Outcome
) -> None:
    ran = control(service, manager, answers)
    assert ran.code == expected.exit
    posted = [request for request in service.requests if request.method == "POST"]
    assert len(posted) == expected.posts
    if expected.output != "answer":
        assert ran.err.startswith("error: ")
    else:
        body = answers[expected.posts - 1].body
        expected = expected._replace(output=json.dumps(json.loads(body), separators=(",", ":")))
        assert ran.err == ""
    check(ran, audit_of(manager), expected, f"POST {service.url}/ops/control")


def check(ran: Ran, audit: Audit, expected: Outcome, command: str) -> None:
    """E.4: the three rows, member by member, in their order; the first one is printed."""
    (printed,) = ran.documents
    assert (audit.intents, len(audit.control), len(audit.invocations)) == ([printed], 1, 1)
    told, confirmed = expected, expected.status == "confirmed"
    reason = {"ambiguous": "control_ambiguous", "failed_command": "control_failed_command"}.get(told.status)
    who = {"loopId": "alpha", "intent": "cancel", "traceId": "trace-1"}
    exits = {"exitCode": told.exit_code, "confirmExitCode": told.confirm_exit_code, "confirmed": confirmed}
    same_members(
        printed,
        {
            "timestamp": printed["timestamp"],
            **who,
            "requestedBy": "op",
            "transport": "sprite_service",
            "status": told.status,
            "command": command,
            "idempotencyKey": "key-1",
            **exits,
            "commandOutput": told.output,
            "confirm": told.confirm,
        },
    )
    (control,) = audit.control
    same_members(
        control,
        {
            "timestamp": control["timestamp"],
            "startedAt": control["startedAt"],
            **who,
            "transport": "sprite_service",
            "status": told.status,
            "reasonCode": reason,
            "idempotencyKey": "key-1",
            "requestedBy": "op",
            **exits,
            "durationSeconds": control["durationSeconds"],
            "retryAttempts": 3,
            "retryBackoffSeconds": 0,
        },
    )
    (invocation,) = audit.invocations
    parts = [invocation.pop(name) for name in ("request", "execution", "confirmation", "outcome")]
    request, execution, confirmation, outcome = parts
    same_members(
        invocation,
        {
            "schemaVersion": "v1",
            "timestamp": invocation["timestamp"],
            "startedAt": invocation["startedAt"],
            **who,
            "transport": "sprite_service",
            "requestedBy": "op",
            "idempotencyKey": "key-1",
        },
    )
    assert request == {
        "doConfirm": True,
        "timeoutSeconds": 30,
        "intervalSeconds": 2,
        "retryAttempts": 3,
        "retryBackoffSeconds": 0,
    }
    execution.pop("reasonCode", None)  # ours
    same_members(
        execution,
        {
            "status": told.execution,
            "exitCode": told.exit_code,
            "command": command,
            "output": told.output,
            "replayed": told.replayed,
        },
    )
    same_members(
        confirmation,
        {
            "attempted": told.confirm is not None,
            "status": told.confirmation,
            "exitCode": told.confirm_exit_code,
            "outcome": told.confirm,
        },
    )
    same_members(
        outcome,
        {
            "status": told.status,
            "confirmed": confirmed,
            "reasonCode": reason,
            "durationSeconds": outcome["durationSeconds"],
        },
    )


def same_members(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """In the same order, those without a value left out (`drop`)."""
    assert list(found.items()) == [pair for pair in expected.items() if pair[1] is not None]


def test_refusal_of_an_agent_is_no_intent(service: Receiver, manager: Repo) -> None:
    refusal = error(409, "target_changed")._replace(headers={AGENT_HEADER: "1"})
    ran = control(service, manager, [refusal])
    assert (ran.code, ran.out) == (1, "")
    assert "[target_changed]" in ran.err
    audit = audit_of(manager)
    assert (audit.intents, audit.control) == ([], [])
    assert audit.invocations[0]["outcome"]["reasonCode"] == "target_changed"
