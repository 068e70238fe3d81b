"""From the record of a request to its audit: executed once, confirmed, remembered; or settled after a crash.

`recorded (synced) -> executed -> confirming -> finished -> audited`. Whoever calls holds the lock of the
loop.
"""

import os
from collections.abc import Callable
from contextlib import suppress

from sprite_agent.connected import connected_message
from sprite_agent.control.command import child_environment, command_line, runtime_program
from sprite_agent.control.confirm import ChangeWait, StopSignal, confirm
from sprite_agent.control.ledger import (
    CONFIRMING,
    FINISHED,
    STARTED,
    Entry,
    Ledger,
    baseline_text,
    request_text,
)
from sprite_agent.control.mark import process_mark
from sprite_agent.control.observation import Observation, find_effect, observe
from sprite_agent.control.process import NEVER_RAN, Ran, run
from sprite_agent.control.record import Caller, caller_text, read_caller, record_outcome
from sprite_agent.control.steps import RanStep
from sprite_agent.control.target import check_target
from sprite_agent.runtime.layout import ops_directory
from sprite_agent.runtime.loop import LoopReader
from sprite_agent.runtime.repository import Repository
from sprite_agent.runtime.watch import loop_directories
from spritemesh import audit, traced
from spritemesh.bridge.told import status_word
from spritemesh.control import ControlRequest, intent_value
from spritemesh.errors import OpsError
from spritemesh.shellquote import quote_words
from superloop.ops.v1 import control_pb2 as pb


class Executor:
    """Executes requests on the loops of a repository.

    runtime, runtime_timeout, clock: as in ControlPlane. stop: ends confirmations.
    """

    def __init__(
        self,
        repository: Repository,
        ledger: Ledger,
        *,
        runtime: str | None,
        runtime_timeout: float,
        stop: StopSignal,
        clock: Callable[[], float],
    ) -> None:
        self._repository = repository
        self._repo = repository.path
        self._ledger = ledger
        self._runtime = runtime
        self._runtime_timeout = runtime_timeout
        self._stop = stop
        self._clock = clock
        # Key -> outcome that the ledger could not take.
        self._untaken: dict[str, pb.ControlOutcome] = {}

    def execute(self, request: ControlRequest, caller: Caller, started_at: float) -> pb.ControlOutcome:
        """Check and record a request whose key is free, and run it.

        Raises OpsError when it is refused, and nothing was run. Once the command has been run only
        `audit_unavailable` is raised, which says how it ended.
        """
        audit.check_writable(audit.audit_files(ops_directory(self._repo, request.loop_id)))
        reader = self._repository.loop(request.loop_id)
        before = _look(reader)
        check_target(self._repo, request, before)
        baseline = before if isinstance(before, Observation) else None
        environment = dict(os.environ)
        words = command_line(runtime_program(self._runtime, environment), self._repo, request)
        outcome = _begun(request, quote_words(words), started_at)
        outcome.provenance.CopyFrom(connected_message(caller.provenance))
        entry = Entry(
            key=request.idempotency_key,
            fingerprint=request.fingerprint,
            loop_id=request.loop_id,
            request=request_text(request),
            caller=caller_text(caller),
            baseline=baseline_text(baseline),
            state=STARTED,
            outcome=outcome.SerializeToString(),
            audited=False,
            started_at=started_at,
            finished_at=0.0,
        )
        with traced.step("record", "ledger.py", request.idempotency_key):
            self._ledger.insert(entry)
        try:
            self._carry_out(request, words, environment, reader, baseline, outcome, caller)
        except (KeyboardInterrupt, SystemExit):
            with suppress(OpsError):
                left = self._ledger.find(request.idempotency_key)
                if left is not None and not left.is_settled:
                    self.settle(left)
            raise
        return outcome

    def _carry_out(
        self,
        request: ControlRequest,
        words: list[str],
        environment: dict[str, str],
        reader: LoopReader,
        before: Observation | None,
        outcome: pb.ControlOutcome,
        caller: Caller,
    ) -> None:
        """Run what is recorded, and tell ledger and audit what became of it; fills `outcome`."""
        ran_at = self._clock()
        with traced.step("runtime", "process.py", f"{words[1]} {request.loop_id}") as step:
            ran = run(
                words,
                environment=child_environment(environment, self._repo, request.trace_id),
                timeout=self._runtime_timeout,
                started=lambda pid: self._note_process(request, pid),
            )
            step.tell(f"exit code {ran.exit_code}", exit_code=ran.exit_code)
            if ran.reason or ran.exit_code:
                step.fail(ran.reason or "control_failed_command")
        _take(outcome, ran)
        if outcome.reason == "control_failed_command" and _found_nothing_pending(request, before):
            outcome.reason = "nothing_pending"
        if outcome.status == pb.CONTROL_STATUS_EXECUTED_UNCONFIRMED and not request.confirmation.skip:
            outcome.status = pb.CONTROL_STATUS_AMBIGUOUS
            with suppress(OpsError):  # the row stays STARTED: nobody runs it again, either
                self._ledger.update(outcome, CONFIRMING)
            self._confirm(request, outcome, reader, before, request.confirmation.timeout_seconds)
        outcome.finished_at.FromNanoseconds(round(self._clock() * 1e9))
        failure = self._record_end(outcome)
        record_outcome(self._repo, request, caller, outcome, ran=RanStep(ran_at, ran.seconds))
        if failure is not None:
            raise _not_recorded(outcome, failure) from failure
        with suppress(OpsError):  # then it is seen later that the audit is whole
            self._close(outcome)

    def _note_process(self, request: ControlRequest, pid: int) -> None:
        # Without the note, whoever comes after a crash would take the command for ended.
        with suppress(OpsError):
            self._ledger.note_process(request.idempotency_key, process_mark(pid))

    def settle(self, entry: Entry) -> None:
        """Finish what another process left, without running anything. Raises OpsError."""
        request, caller, outcome = entry.read_request(), read_caller(entry.caller), entry.read_outcome()
        untaken = self._untaken.get(entry.key)
        if untaken is not None:
            outcome = untaken
            self._ledger.update(outcome, FINISHED)
        elif entry.state != FINISHED:
            if entry.state == STARTED:
                outcome.reason = "control_interrupted"
            else:
                reader = self._repository.loop(request.loop_id)
                self._confirm(request, outcome, reader, entry.read_baseline(), 0.0)
            outcome.finished_at.FromNanoseconds(round(self._clock() * 1e9))
            self._ledger.update(outcome, FINISHED)
        self._untaken.pop(entry.key, None)
        record_outcome(self._repo, request, caller, outcome, only_missing=True)
        self._close(outcome)

    def _confirm(
        self,
        request: ControlRequest,
        outcome: pb.ControlOutcome,
        reader: LoopReader,
        before: Observation | None,
        timeout_seconds: float,
    ) -> None:
        """Look for the effect; sets status, reason, confirmation and effect."""
        changes = ChangeWait(loop_directories(reader.repo, reader.paths.directory), self._stop.fileno())
        with (
            traced.step("confirm", "confirm.py", f"{request.intent} {request.loop_id}") as step,
            changes as wait,
        ):
            result, seen = confirm(
                request.intent,
                lambda: observe(reader),
                timeout_seconds=timeout_seconds,
                interval_seconds=request.confirmation.interval_seconds,
                wait=wait,
                clock=self._clock,
            )
            step.tell(result.reason, attempts=result.attempts, confirmed=result.confirmed)
            if not result.confirmed:
                step.fail("control_ambiguous")
        # What was asked for, though a crash may have shortened it.
        result.timeout.FromMilliseconds(round(request.confirmation.timeout_seconds * 1000))
        outcome.confirmation.CopyFrom(result)
        if not result.confirmed or seen is None:
            outcome.status, outcome.reason = pb.CONTROL_STATUS_AMBIGUOUS, "control_ambiguous"
            return
        outcome.status, outcome.reason = pb.CONTROL_STATUS_CONFIRMED, _cut(outcome)
        effect = find_effect(reader, request.intent, before, seen)
        if effect is not None:
            outcome.effect.CopyFrom(effect)

    def _record_end(self, outcome: pb.ControlOutcome) -> OpsError | None:
        """Tell the ledger how it ended; why it cannot take that, which is kept for later."""
        try:
            self._ledger.update(outcome, FINISHED)
        except OpsError as error:
            self._untaken[outcome.idempotency_key] = outcome
            return error
        return None

    def _close(self, outcome: pb.ControlOutcome) -> None:
        """The audit is written: nothing is left to do. A key of which nothing ran is free again (L15)."""
        if outcome.reason in NEVER_RAN:
            self._ledger.release(outcome.idempotency_key)
        else:
            self._ledger.mark_audited(outcome.idempotency_key)


def _look(reader: LoopReader) -> Observation | OpsError:
    try:
        return observe(reader)
    except OpsError as error:
        return error


def _begun(request: ControlRequest, command: str, started_at: float) -> pb.ControlOutcome:
    """What is known before the command has ended; also what a crash leaves."""
    outcome = pb.ControlOutcome(
        loop_id=request.loop_id,
        intent=intent_value(request.intent),
        trace_id=request.trace_id,
        requested_by=request.requested_by,
        note=request.note,
        idempotency_key=request.idempotency_key,
        status=pb.CONTROL_STATUS_AMBIGUOUS,
        command=command,
    )
    outcome.started_at.FromNanoseconds(round(started_at * 1e9))
    return outcome


def _not_recorded(outcome: pb.ControlOutcome, failure: OpsError) -> OpsError:
    """That a proof is missing, not the ledger's own reason: nobody may take it for a refusal."""
    return OpsError(
        "audit_unavailable",
        f"{failure.message}; the request with key {outcome.idempotency_key} was run and ended:"
        f" {status_word(outcome.status)}, exit code {outcome.exit_code}",
    )


def _take(outcome: pb.ControlOutcome, ran: Ran) -> None:
    """Add how the command ended."""
    outcome.exit_code = ran.exit_code
    outcome.output_tail = ran.tail
    outcome.output_truncated = ran.truncated
    outcome.reason = ran.reason or _cut(outcome)
    if ran.reason and ran.reason not in NEVER_RAN:
        outcome.status = pb.CONTROL_STATUS_AMBIGUOUS
    elif ran.exit_code:
        outcome.status = pb.CONTROL_STATUS_FAILED_COMMAND
        outcome.reason = ran.reason or "control_failed_command"
    else:
        outcome.status = pb.CONTROL_STATUS_EXECUTED_UNCONFIRMED


def _found_nothing_pending(request: ControlRequest, before: Observation | None) -> bool:
    """Whether a decision was asked for where there was none to make, as far as is known."""
    return request.intent != "cancel" and before is not None and not before.pending_approval_id


def _cut(outcome: pb.ControlOutcome) -> str:
    """The reason of an outcome of which nothing else is to be said."""
    return "runtime_output_truncated" if outcome.output_truncated else ""
