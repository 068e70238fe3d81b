"""One control intent: audit first, then the transport, then the audit of what came of it (contract E).

In the repository itself the agent's own engine keeps the audit. Through a service the manager keeps one of
its own, beside that of the agent: who asked from here, and what was heard.
"""

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from manager.store import loop_files
from manager.transport import LOCAL, SPRITE_SERVICE, Controlled, Retry, Transport, control_command
from sprite_agent.connected import connected_document, connected_of, local_user
from sprite_agent.runtime.layout import ops_directory
from spritemesh import audit, files, traced, traceindex
from spritemesh.bridge.control import Facts, facts_of_outcome, facts_of_request, intent_row
from spritemesh.bridge.told import REFUSED, Told, told_by_refusal, told_by_silence
from spritemesh.control import ControlRequest
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.reasons import REASONS
from spritemesh.values import drop, get

if TYPE_CHECKING:
    from superloop.ops.v1 import control_pb2 as pb


class Done(NamedTuple):
    """What came of an intent. row: that of intents.jsonl."""

    row: dict[str, JSON]
    controlled: Controlled


class Way(NamedTuple):
    """How an intent is carried out. base_url: of the service, "" for the repository itself. despite_clone:
    step in although the sprite runs twice, as a running manager found."""

    transport: Transport
    retry: Retry
    base_url: str = ""
    despite_clone: bool = False


def step_in(repo: str, request: ControlRequest, way: Way, *, clock: Callable[[], float] = time.time) -> Done:
    """Carry out a checked request once, and return what is known of it; all rows are synced by then.

    clock: epoch seconds. Raises OpsError: `audit_unavailable`, or why the request was refused.
    """
    with traced.step(
        "control",
        "control.py",
        f"{request.intent} {request.loop_id}",
        intent=request.intent,
        loop_id=request.loop_id,
        transport=way.transport.name,
        idempotency_key=request.idempotency_key,
        ops_trace_id=request.trace_id,
    ) as step:
        done = _step_in(repo, request, way, clock)
        told = done.controlled.told
        step.tell(told.status, outcome=told.status, replayed=told.replayed)
        if told.reason_code:
            step.fail(told.reason or told.reason_code)
    return done


def _step_in(repo: str, request: ControlRequest, way: Way, clock: Callable[[], float]) -> Done:
    if way.transport.name != LOCAL:
        return _Remote(repo, request, way, clock).run()
    controlled = way.transport.control(request)
    if controlled.outcome is None or controlled.recorded_at is None:
        raise TypeError("the local transport records and tells every outcome")
    facts = facts_of_outcome(controlled.outcome, request.confirmation)
    return Done(intent_row(controlled.told, facts._replace(finished_at=controlled.recorded_at)), controlled)


def _check_frozen(repo: str, loop_id: str) -> None:
    """Refuse while a running manager says that nobody may step in (session.json).

    What it said last holds after its end, too: that a clone is gone, nobody has seen. Raises OpsError of the
    reason that it gave, and `document_invalid` when the file cannot be read.
    """
    path = loop_files(repo, loop_id).session
    document = files.read_object(path, what="session file")
    reason = get(document, "controlFrozen")
    if isinstance(reason, str) and reason in REASONS:
        raise OpsError(
            reason,
            f"control is frozen since {get(document, 'updatedAt')}: the sprite seems to run twice"
            f" ({path}); stop the copy, or say --despite-clone",
            field="--loop",
        )


class _Remote:
    """An intent through a service."""

    def __init__(self, repo: str, request: ControlRequest, way: Way, clock: Callable[[], float]) -> None:
        self._repo = repo
        self._request = request
        self._way = way
        self._clock = clock
        self._files = audit.audit_files(ops_directory(repo, request.loop_id))
        self._command = control_command(way.base_url)
        self._started_at = clock()

    def run(self) -> Done:
        audit.check_writable(self._files)
        try:
            if not self._way.despite_clone:
                _check_frozen(self._repo, self._request.loop_id)
            controlled = self._way.transport.control(self._request)
        except OpsError as refusal:
            self._record(told_by_refusal(refusal.reason, self._command))
            raise
        except KeyboardInterrupt:
            self._record(told_by_silence(self._command, "control_interrupted"))
            raise
        return Done(self._record(controlled.told, controlled.outcome), controlled)

    def _record(self, told: Told, outcome: "pb.ControlOutcome | None" = None) -> dict[str, JSON]:
        facts = self._facts(self._clock())
        connected = connected_document(local_user())
        row = audit.record(self._files, told, facts, connected=connected)
        steps = self._steps(told, facts, connected, outcome)
        if outcome is not None and not told.replayed:
            from sprite_agent.control.steps import told_steps

            steps += told_steps(told, outcome, facts)
        traceindex.append(self._repo, steps)
        return row

    def _facts(self, now: float) -> Facts:
        retry = self._way.retry
        return facts_of_request(
            self._request,
            (self._started_at, now),
            transport=SPRITE_SERVICE,
            retry_attempts=retry.attempts,
            retry_backoff_seconds=int(retry.backoff_seconds),
        )

    def _steps(
        self, told: Told, facts: Facts, connected: dict[str, JSON], outcome: "pb.ControlOutcome | None"
    ) -> list[traceindex.Entry]:
        """What the trace index tells of it: an invocation, and the intent unless it was refused.

        connected: who asked here; the invocation says whom the agent saw, if it says so.
        """
        seen = connected_document(connected_of(outcome)) if outcome is not None else {}

        def step(kind: str, file: str, detail: dict[str, JSON]) -> traceindex.Entry:
            return traceindex.Entry(
                trace_id=facts.trace_id,
                at=facts.started_at,
                loop_id=facts.loop_id,
                kind=kind,
                status=told.status,
                seconds=facts.finished_at - facts.started_at,
                file=os.path.relpath(file, self._repo),
                detail={
                    "idempotencyKey": facts.idempotency_key,
                    "intent": facts.intent,
                    "transport": facts.transport,
                    **drop({**detail, "reasonCode": told.reason_code}),
                },
            )

        intent = step(
            "intent", self._files.intents, {"requestedBy": facts.requested_by, "connected": connected}
        )
        replayed = told.replayed or None
        detail: dict[str, JSON] = {
            "service": self._way.base_url,
            "replayed": replayed,
            "connected": seen or None,
        }
        invocation = step("invocation", self._files.invocations, detail)
        return [invocation] if told.status == REFUSED else [intent, invocation]
