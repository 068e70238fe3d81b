"""Sends one control request until somebody answers, and says truly what is known when nobody does.

A request carries its key in each try, so that it is executed at most once. When the tries are used up,
what counts is whether one of them may have arrived: if none can have, nothing was run; otherwise nobody
here knows.
"""

import time
from collections.abc import Callable

from manager.transport.base import Controlled, Retry
from spritemesh.bridge.told import told_by_failure, told_by_silence
from spritemesh.control import ControlRequest, repeat_hint
from spritemesh.errors import OpsError
from spritemesh.reasons import Fault

# What a further try, unchanged and with the same key, may mend.
_RETRYABLE = frozenset(
    {
        "agent_draining",
        "agent_fault",
        "agent_unreachable",
        "deadline_exceeded",
        "stream_broken",
        "too_many_controls",
    }
)
# Nobody who knows of controls has answered.
_UNANSWERED = frozenset({Fault.PEER, Fault.CREDENTIALS, Fault.UNKNOWN_METHOD})
# Answers that come only after the ledger was asked for the key: what came before was not run under it, or
# under another request.
_VERDICTS = frozenset({Fault.REQUEST, Fault.MISSING, Fault.CONFLICT, Fault.REUSED})


class Unanswered(Exception):
    """A try that may have arrived, and was not answered. error: what was seen of it."""

    def __init__(self, error: OpsError) -> None:
        super().__init__(error.message)
        self.error = error


def deliver(
    send: Callable[[], Controlled], retry: Retry, *, request: ControlRequest, command: str
) -> Controlled:
    """What `send` gives, tried as `retry` says.

    send: raises Unanswered when its try may have arrived; OpsError when it was refused, or cannot have.
    command: the request as rows show it. Raises OpsError for a refusal.
    """
    attempt, lost = 1, False
    while True:
        try:
            return send()
        except Unanswered as unanswered:
            error, lost = unanswered.error, True
        except OpsError as refusal:
            error = refusal
        if error.reason not in _RETRYABLE or attempt >= retry.attempts:
            break
        time.sleep(max(retry.backoff_seconds * attempt, error.retry_after or 0))
        attempt += 1
    if lost and error.row.fault not in _VERDICTS:
        return Controlled(told_by_silence(command, error.reason), error=_doubtful(error, request))
    if error.row.fault in _UNANSWERED:
        return Controlled(told_by_failure(command), error=error)
    raise error


def _doubtful(error: OpsError, request: ControlRequest) -> OpsError:
    return OpsError(error.reason, f"{error.message}; {repeat_hint(request)}")
