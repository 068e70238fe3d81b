"""What is made of tries that fail: a refusal, a failure, or honest doubt (contract E.2, L16)."""

import time
from collections.abc import Callable

import pytest

from manager.transport import Controlled, Retry
from manager.transport.delivery import Failed, Unanswered, deliver
from spritemesh.bridge.told import Told, told_by_answer
from spritemesh.control import ControlRequest
from spritemesh.errors import OpsError

COMMAND = "POST grpc://agent:1/ops/control"
REQUEST = ControlRequest("alpha", "cancel", "key-1")
ANSWER = Controlled(told_by_answer({"ok": True, "exitCode": 0}, COMMAND, "{}"))
QUICK = Retry(attempts=3, backoff_seconds=0.01)

Script = list[Exception | Controlled]


def never_sent(reason: str = "agent_unreachable", retry_after: float | None = None) -> OpsError:
    return OpsError(reason, "no", retry_after=retry_after)


def perhaps_arrived(reason: str = "stream_broken") -> Unanswered:
    return Unanswered(OpsError(reason, "lost"))


def sender(script: Script) -> Callable[[], Controlled]:
    steps = iter(script)

    def send() -> Controlled:
        step = next(steps)
        if isinstance(step, Exception):
            raise step
        return step

    return send


def delivered(*script: Exception | Controlled, retry: Retry = QUICK) -> Controlled:
    return deliver(sender(list(script)), retry, request=REQUEST, command=COMMAND)


def status_of(told: Told) -> tuple[str, str, int | None]:
    return told.status, told.execution_status, told.exit_code


@pytest.mark.parametrize(
    "failure",
    [
        never_sent(),
        never_sent("agent_draining"),
        never_sent("too_many_controls"),
        perhaps_arrived(),
        perhaps_arrived("deadline_exceeded"),
        perhaps_arrived("agent_fault"),
    ],
)
def test_try_that_another_may_mend_is_repeated(failure: Exception) -> None:
    assert delivered(failure, failure, ANSWER) == ANSWER


def test_waits_as_told_between_tries() -> None:
    started = time.monotonic()
    delivered(never_sent("agent_draining", retry_after=0.1), ANSWER)
    assert time.monotonic() - started >= 0.1


@pytest.mark.parametrize("reason", ["agent_unreachable", "deadline_exceeded", "stream_broken"])
def test_request_that_was_never_sent_is_the_failure_of_v1(reason: str) -> None:
    told, outcome, recorded_at, error = delivered(*[never_sent(reason)] * 3)
    assert status_of(told) == ("failed_command", "failed_command", 1)
    assert (told.command, told.command_output, outcome, recorded_at) == (COMMAND, "{}", None, None)
    assert error is not None
    assert error.reason == reason


@pytest.mark.parametrize("again", [True, False])
def test_error_of_a_v1_service_is_its_failure_unless_it_may_have_run_it(again: bool) -> None:
    def failed() -> Failed:
        return Failed(never_sent("service_http_error"), again=again)

    assert status_of(delivered(*[failed()] * 3).told) == ("failed_command", "failed_command", 1)
    unreadable = Unanswered(never_sent("service_http_error"), again=True)
    assert status_of(delivered(unreadable, failed(), failed()).told) == ("ambiguous", "unknown", None)
    if again:
        assert delivered(failed(), failed(), ANSWER) == ANSWER


@pytest.mark.parametrize("reason", ["token_wrong", "token_missing", "unsupported_method"])
def test_service_that_does_not_let_it_in_is_not_asked_again(reason: str) -> None:
    told = delivered(never_sent(reason)).told
    assert status_of(told) == ("failed_command", "failed_command", 1)


@pytest.mark.parametrize(
    "script",
    [
        [perhaps_arrived()] * 3,
        [perhaps_arrived(), never_sent(), never_sent()],
        [never_sent(), perhaps_arrived(), never_sent("agent_draining")],
        [perhaps_arrived(), never_sent("token_wrong")],
        [perhaps_arrived(), never_sent("ledger_unavailable")],
        [perhaps_arrived("service_response_invalid")],
        [perhaps_arrived("audit_unavailable")],
    ],
)
def test_request_that_may_have_arrived_is_ambiguous_and_names_its_key(script: Script) -> None:
    told, _, _, error = delivered(*script)
    assert status_of(told) == ("ambiguous", "unknown", None)
    assert error is not None
    assert (told.reason, "--idempotency-key key-1" in error.message) == (error.reason, True)


@pytest.mark.parametrize(
    "reason",
    ["target_changed", "nothing_pending", "control_in_progress", "audit_unavailable", "ledger_corrupt"],
)
def test_refusal_is_final(reason: str) -> None:
    with pytest.raises(OpsError) as caught:
        delivered(never_sent(reason))
    assert caught.value.reason == reason


@pytest.mark.parametrize("reason", ["target_changed", "other_loop_active", "idempotency_key_conflict"])
def test_refusal_after_the_key_was_looked_up_settles_an_earlier_try(reason: str) -> None:
    with pytest.raises(OpsError) as caught:
        delivered(perhaps_arrived(), never_sent(reason))
    assert caught.value.reason == reason


def test_agent_that_drains_all_the_time_has_refused() -> None:
    with pytest.raises(OpsError) as caught:
        delivered(*[never_sent("agent_draining")] * 3)
    assert caught.value.reason == "agent_draining"
