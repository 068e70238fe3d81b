"""Sends one control request until somebody answers, and says truly what is known when nobody does.

A request carries its key in each try. An agent executes a key at most once: a repetition joins what is
under way, or is told what came of it. A v1 service executes a key as often as it comes while the first call
runs (contract L15), so a request that it may have got is not repeated for want of an answer. When the tries
are used up, what counts is whether one of them may have arrived: if none can have, nothing was run; otherwise
nobody here knows.
"""

import time
from collections.abc import Callable

from manager.transport.base import Controlled, Retry
from spritemesh import traced
from spritemesh.bridge.told import told_by_failure, told_by_silence
from spritemesh.control import ControlRequest, repeat_hint
from spritemesh.errors import OpsError
from spritemesh.reasons import Fault

# How long an agent may take beside its confirmation: its runtime command has 60 s unless it was told
# otherwise. If it takes longer, the repetition joins.
COMMAND_SECONDS = 75.0
# Failures of an agent that may have come after the command was run.
MAYBE_AFTER = frozenset({"agent_fault", "audit_unavailable", "internal_error"})
# What a further try, unchanged and with the same key, may mend.
_RETRYABLE = frozenset(
    {
        "agent_draining",
        "agent_fault",
        "agent_unreachable",
        "control_rate_limited",
        "deadline_exceeded",
        "stream_broken",
        "too_many_controls",
        "too_many_streams",
    }
)
# Nobody who knows of controls has answered.
_UNANSWERED = frozenset({Fault.LATE, Fault.PEER, Fault.CREDENTIALS, Fault.UNKNOWN_METHOD})
# Answers that come only after the ledger was asked for the key: what came before was not run under it, or
# under another request.
_VERDICTS = frozenset({Fault.REQUEST, Fault.MISSING, Fault.CONFLICT, Fault.REUSED})


class Unanswered(Exception):
    """A try that may have arrived, and was not answered. error: what was seen of it. again: whether another
    try may be made; by default the error's reason says so."""

    def __init__(self, error: OpsError, *, again: bool | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.again = error.reason in _RETRYABLE if again is None else again


class Failed(Exception):
    """A try that failed as v1's client fails: a v1 service answered with an error (contract D.5, E.2). again:
    whether another try may mend it."""

    def __init__(self, error: OpsError, *, again: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.again = again


def deliver(
    send: Callable[[], Controlled], retry: Retry, *, request: ControlRequest, command: str
) -> Controlled:
    """What `send` gives, tried as `retry` says.

    send: raises Unanswered when its try may have arrived; Failed for the error of a v1 service; OpsError when
    it was refused, or cannot have arrived.
    command: the request as rows show it. Raises OpsError for a refusal.
    """
    attempt, lost = 1, False
    error: OpsError
    while True:
        try:
            with traced.step(
                "deliver", "delivery.py", f"{request.intent} {request.loop_id}", attempt=attempt
            ):
                return send()
        except Unanswered as unanswered:
            error, again, lost, failed = unanswered.error, unanswered.again, True, False
        except Failed as failure:
            error, again, failed = failure.error, failure.again, True
        except OpsError as refusal:
            error, again, failed = refusal, refusal.reason in _RETRYABLE, False
        if not again or attempt >= retry.attempts:
            break
        time.sleep(max(retry.backoff_seconds * attempt, error.retry_after or 0))
        attempt += 1
    if lost and (failed or error.row.fault not in _VERDICTS):
        return Controlled(told_by_silence(command, error.reason), error=_doubtful(error, request))
    if failed or error.row.fault in _UNANSWERED:
        return Controlled(told_by_failure(command), error=error)
    raise error


def _doubtful(error: OpsError, request: ControlRequest) -> OpsError:
    return OpsError(error.reason, f"{error.message}; {repeat_hint(request)}")
