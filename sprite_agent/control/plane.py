"""Control of the loops of a repository: each request is executed at most once, whoever asks how often.

A process that dies in between leaves a row in the ledger; whoever comes next finds it unfinished and
finishes it without running the command again.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress

from sprite_agent.control.confirm import StopSignal
from sprite_agent.control.execution import Executor
from sprite_agent.control.ledger import CONFIRMING, FINISHED, STARTED, Entry, Ledger, key_conflict
from sprite_agent.control.lock import forget_left_keys, key_lock, loop_lock
from sprite_agent.control.record import Caller, record_outcome, record_refusal
from sprite_agent.control.refusals import append_refusal
from sprite_agent.control.target import check_exists
from sprite_agent.runtime.layout import agent_directory, ops_directory
from sprite_agent.runtime.repository import Repository
from spritemesh import audit, traced
from spritemesh.bridge.told import status_word
from spritemesh.control import ControlRequest, check_key, check_request
from spritemesh.errors import OpsError
from spritemesh.ids import new_trace_id, printable
from superloop.ops.v1 import control_pb2 as pb

DEFAULT_RUNTIME_SECONDS = 60.0
# Beside command and confirmation, how long an identical request waits for the one that is under way.
_WAIT_MARGIN_SECONDS = 10.0
# Who settles what a crash left has the loop for a few milliseconds; another request, for longer.
_LOOP_PATIENCE_SECONDS = 0.2
_POLL_SECONDS = 0.01
_RETRY_SECONDS = 1.0
_DRAIN_RETRY_SECONDS = 2.0
_RAN_NOTHING = "; this call ran nothing"
_DOUBTFUL = frozenset({pb.CONTROL_STATUS_FAILED_COMMAND, pb.CONTROL_STATUS_AMBIGUOUS})

_STATES = {
    STARTED: pb.INVOCATION_STATE_STARTED,
    CONFIRMING: pb.INVOCATION_STATE_CONFIRMING,
    FINISHED: pb.INVOCATION_STATE_FINISHED,
}


class ControlPlane:
    """Executes control requests on the loops of a repository. Blocks; thread-safe.

    runtime: the runtime's program; None: SUPERLOOP_BIN, else superloop.sh beside the running program or on
    PATH. runtime_timeout: seconds a command may take. clock: epoch seconds. Several planes, in several
    processes, may work on one repository.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        runtime: str | None = None,
        runtime_timeout: float = DEFAULT_RUNTIME_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._repo = repository.path
        self._runtime_timeout = runtime_timeout
        self._clock = clock
        home = agent_directory(self._repo)
        self._locks = os.path.join(home, "locks")
        self._ledger = Ledger(os.path.join(home, "ledger.db"))
        self._stop = StopSignal()
        self._executor = Executor(
            repository,
            self._ledger,
            runtime=runtime,
            runtime_timeout=runtime_timeout,
            stop=self._stop,
            clock=clock,
        )

    def execute(self, request: ControlRequest, caller: Caller | None = None) -> pb.ControlOutcome:
        """Execute a request, or give what was recorded for its key.

        Raises OpsError when it is refused; nothing was run then, unless the message of `audit_unavailable`
        says so. A refusal is put on record, too: with the loop, or in refusals.jsonl where there is none.
        """
        caller = caller or Caller()
        try:
            check_request(request)
        except OpsError as error:
            self.note_refusal(request, caller, error)
            raise
        request = request._replace(trace_id=request.trace_id or new_trace_id())
        with traced.step(
            "execute",
            "plane.py",
            f"{request.intent} {request.loop_id}",
            intent=request.intent,
            loop_id=request.loop_id,
            idempotency_key=request.idempotency_key,
            ops_trace_id=request.trace_id,
        ) as step:
            outcome = self._execute(request, caller)
            status = status_word(outcome.status)
            step.tell(status, outcome=status, replayed=outcome.replayed)
            if outcome.status in _DOUBTFUL:
                step.fail(outcome.reason)
            return outcome

    def _execute(self, request: ControlRequest, caller: Caller) -> pb.ControlOutcome:
        started_at = self._clock()
        try:
            if self._stop.is_set:
                raise OpsError(
                    "agent_draining",
                    "the agent is shutting down; nothing was run",
                    retry_after=_DRAIN_RETRY_SECONDS,
                )
            return self._answer(request, caller, started_at)
        except OpsError as error:
            told = _ran_nothing(error) if error.reason.startswith("ledger_") else error
            if error.reason != "audit_unavailable":
                record_refusal(self._repo, request, caller, told, started_at, self._clock())
            raise told from error

    def note_refusal(self, request: ControlRequest, caller: Caller, error: OpsError) -> None:
        """Put on record what was refused before it came here, or is no well-formed request."""
        append_refusal(self._repo, request, caller.provenance, error, self._clock())

    def invocation(self, key: str) -> pb.GetInvocationResponse:
        """What became of a key. Raises OpsError `invocation_not_found`, or of a key or ledger at fault."""
        entry = self._ledger.find(check_key(key))
        if entry is None:
            raise OpsError(
                "invocation_not_found", f"nothing is recorded under key {key}", field="idempotency_key"
            )
        return pb.GetInvocationResponse(state=_STATES[entry.state], outcome=entry.read_outcome())

    def settle(self) -> int:
        """Finish what a crash left and nobody works on; how many requests that were.

        Raises OpsError of the ledger. What cannot be audited now is left for later.
        """
        forget_left_keys(self._locks)
        settled = 0
        for entry in self._ledger.unsettled():
            with loop_lock(self._locks, entry.loop_id) as held:
                now = self._ledger.find(entry.key) if held else None
                if now is not None and not now.is_settled and not now.is_running:
                    with suppress(OpsError):
                        self._executor.settle(now)
                        settled += 1
        return settled

    def has_left(self) -> bool:
        """Whether commands still run, of which some may be of the dead: `settle` cannot finish those yet.

        Raises OpsError of the ledger.
        """
        return any(entry.is_running for entry in self._ledger.unsettled())

    def stop(self) -> None:
        """End running confirmations now, and refuse new requests."""
        self._stop.set()

    def close(self) -> None:
        """Release all files. Nothing may be executing any more."""
        self._ledger.close()
        self._stop.close()

    def _answer(self, request: ControlRequest, caller: Caller, started_at: float) -> pb.ControlOutcome:
        """The recorded outcome of the key, or that of an execution."""
        patience = self._runtime_timeout + _WAIT_MARGIN_SECONDS
        patience += 0 if request.confirmation.skip else request.confirmation.timeout_seconds
        give_up_at = time.monotonic() + patience
        while True:
            entry = self._recorded(request)
            if entry is not None and entry.is_settled:
                return self._replay(entry, request, caller, started_at)
            if entry is None:
                check_exists(self._repo, request.loop_id)
            with key_lock(self._locks, request.idempotency_key) as held:
                if held:
                    return self._answer_alone(request, caller, started_at, give_up_at)
            # The same request is under way. What becomes of it decides about this one, too.
            if time.monotonic() >= give_up_at:
                raise _in_progress(request.loop_id)
            time.sleep(_POLL_SECONDS)

    def _answer_alone(
        self, request: ControlRequest, caller: Caller, started_at: float, join_until: float
    ) -> pb.ControlOutcome:
        """As _answer; the lock of the key is held, so that nobody else executes this request."""
        give_up_at = time.monotonic() + _LOOP_PATIENCE_SECONDS
        while True:
            with loop_lock(self._locks, request.loop_id) as held:
                running = self._settle_loop(request.loop_id) if held else None
                if held and running is None:
                    entry = self._recorded(request)
                    if entry is None:
                        return self._executor.execute(request, caller, started_at)
                    return self._replay(entry, request, caller, started_at)
            entry = self._recorded(request)
            if entry is not None and entry.is_settled:
                return self._replay(entry, request, caller, started_at)
            if running is not None and running.key == request.idempotency_key:
                # Its own command, left by an agent that died, is waited for as if that lived.
                give_up_at = join_until
            if time.monotonic() >= give_up_at:
                raise _in_progress(request.loop_id, running)
            time.sleep(_POLL_SECONDS)

    def _recorded(self, request: ControlRequest) -> Entry | None:
        """What is recorded under the key of a request. Raises OpsError `idempotency_key_conflict`."""
        entry = self._ledger.find(request.idempotency_key)
        if entry is not None and entry.fingerprint != request.fingerprint:
            raise key_conflict(request.idempotency_key)
        return entry

    def _settle_loop(self, loop_id: str) -> Entry | None:
        """Finish what was left of a loop, whose lock is held: nobody works on it.

        What runs on, whoever started it being dead, is returned instead: the lock did not outlive him.
        """
        for entry in self._ledger.unsettled():
            if entry.loop_id == loop_id:
                if entry.is_running:
                    return entry
                try:
                    self._executor.settle(entry)
                except OpsError as error:
                    raise _ran_nothing(error) from error
        return None

    def _replay(
        self, entry: Entry, request: ControlRequest, caller: Caller, started_at: float
    ) -> pb.ControlOutcome:
        outcome = entry.read_outcome()
        outcome.replayed = True
        if caller.audit_replays:
            audit.check_writable(audit.audit_files(ops_directory(self._repo, request.loop_id)))
            record_outcome(self._repo, request, caller, outcome, times=(started_at, self._clock()))
        return outcome


def _ran_nothing(error: OpsError) -> OpsError:
    """The same refusal, saying so. An earlier call with the key may have run its command."""
    if error.message.endswith(_RAN_NOTHING):
        return error
    return OpsError(error.reason, error.message + _RAN_NOTHING, field=error.field)


def _in_progress(loop_id: str, running: Entry | None = None) -> OpsError:
    """running: what has not ended, if its command is an orphan; an operator may want to end it."""
    process = f" (process {running.process.partition(' ')[0]})" if running is not None else ""
    return OpsError(
        "control_in_progress",
        f"a control operation on loop {printable(loop_id)} has not ended{process}" + _RAN_NOTHING,
        retry_after=_RETRY_SECONDS,
    )
