"""One control intent: audit first, then the transport, then the audit of what came of it (contract E).

In the repository itself the agent's own engine keeps the audit. Through a service the manager keeps one of
its own, beside that of the agent: who asked from here, and what was heard.
"""

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from manager.transport import LOCAL, SPRITE_SERVICE, Controlled, Retry, Transport, control_command
from sprite_agent.runtime.layout import ops_directory
from spritemesh import audit, traceindex
from spritemesh.bridge.control import Facts, facts_of_outcome, intent_row
from spritemesh.bridge.told import REFUSED, Told, told_by_refusal, told_by_silence
from spritemesh.control import ControlRequest
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.values import drop

if TYPE_CHECKING:
    from superloop.ops.v1 import control_pb2 as pb


class Done(NamedTuple):
    """What came of an intent. row: that of intents.jsonl."""

    row: dict[str, JSON]
    controlled: Controlled


class Way(NamedTuple):
    """How an intent is carried out. base_url: of the service, "" for the repository itself."""

    transport: Transport
    retry: Retry
    base_url: str = ""


def step_in(repo: str, request: ControlRequest, way: Way, *, clock: Callable[[], float] = time.time) -> Done:
    """Carry out a checked request once, and return what is known of it; all rows are synced by then.

    clock: epoch seconds. Raises OpsError: `audit_unavailable`, or why the request was refused.
    """
    if way.transport.name != LOCAL:
        return _Remote(repo, request, way, clock).run()
    controlled = way.transport.control(request)
    if controlled.outcome is None or controlled.recorded_at is None:
        raise TypeError("the local transport records and tells every outcome")
    facts = facts_of_outcome(controlled.outcome, request.confirmation)
    return Done(intent_row(controlled.told, facts._replace(finished_at=controlled.recorded_at)), controlled)


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
        row = audit.record(self._files, told, facts)
        steps = self._steps(told, facts)
        if outcome is not None and not told.replayed:
            from sprite_agent.control.steps import told_steps

            steps += told_steps(told, outcome, facts)
        traceindex.append(self._repo, steps)
        return row

    def _facts(self, now: float) -> Facts:
        request = self._request
        return Facts(
            loop_id=request.loop_id,
            intent=request.intent,
            trace_id=request.trace_id,
            requested_by=request.requested_by,
            note=request.note,
            idempotency_key=request.idempotency_key,
            transport=SPRITE_SERVICE,
            started_at=self._started_at,
            finished_at=now,
            confirmation=request.confirmation,
            retry_attempts=self._way.retry.attempts,
            retry_backoff_seconds=int(self._way.retry.backoff_seconds),
        )

    def _steps(self, told: Told, facts: Facts) -> list[traceindex.Entry]:
        """What the trace index tells of it: an invocation, and the intent unless it was refused."""

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

        intent = step("intent", self._files.intents, {"requestedBy": facts.requested_by})
        replayed = told.replayed or None
        detail: dict[str, JSON] = {"service": self._way.base_url, "replayed": replayed}
        invocation = step("invocation", self._files.invocations, detail)
        return [invocation] if told.status == REFUSED else [intent, invocation]
