"""Where control requests of all services of an agent arrive: off the event loop, joined, and bounded.

The plane decides and executes; it blocks, for minutes at times. So each execution has a thread of its own,
and reads never wait behind it. These threads do not hold the process: a command that does not end must not
keep an agent from ending.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple, TypeVar

from sprite_agent.control import Caller, ControlPlane
from sprite_agent.counts import REFUSED, REPLAYED, Counts, status_word
from spritemesh.control import ControlRequest
from spritemesh.errors import OpsError
from superloop.ops.v1 import control_pb2 as pb

# Executions at the same time, of different keys. Each takes a thread, and mostly waits.
MAX_OPERATIONS = 32
# How long a caller for whom there is no thread should wait.
FULL_RETRY_SECONDS = 2.0
# Threads for looks at the ledger and the like, of their own: it may make them wait for seconds.
_LOOKERS = 4
# How often it is looked whether the command of an agent that died has ended.
_LEFT_SECONDS = 1.0
# Confirmations that are told to end are recorded and answered within this time.
_ANSWER_SECONDS = 1.0

_log = logging.getLogger("sprite_agent")
_T = TypeVar("_T")
_Outcome = asyncio.Future[pb.ControlOutcome]


class _Operation(NamedTuple):
    """An execution under way."""

    fingerprint: str
    outcome: _Outcome


class ControlDesk:
    """Hands requests to a plane. Of one event loop."""

    def __init__(
        self, plane: ControlPlane, max_operations: int = MAX_OPERATIONS, counts: Counts | None = None
    ) -> None:
        """counts: where answers are counted."""
        self._plane = plane
        self._counts = counts or Counts()
        self._lookers = ThreadPoolExecutor(_LOOKERS, "look")
        self.max_operations = max_operations
        self._running: set[_Outcome] = set()
        self._by_key: dict[str, _Operation] = {}
        self._settlement: asyncio.Future[int] | None = None

    @property
    def running(self) -> int:
        """Executions under way."""
        return len(self._running)

    async def execute(self, request: ControlRequest, caller: Caller | None = None) -> pb.ControlOutcome:
        """Execute a request, or join the same one under way; its outcome is a replay then.

        A caller that goes away ends nothing: the outcome is recorded all the same. Raises what
        ControlPlane.execute raises, and OpsError `too_many_controls`.
        """
        caller = caller or Caller()
        operation = self._by_key.get(request.idempotency_key)
        # One that has just ended is a replay: whoever asked first hears of the outcome first.
        if (
            operation is not None
            and operation.fingerprint == request.fingerprint
            and not operation.outcome.done()
        ):
            outcome = pb.ControlOutcome()
            outcome.CopyFrom(await asyncio.shield(operation.outcome))
            outcome.replayed = True
            self._count(request, outcome)
            return outcome
        if len(self._running) >= self.max_operations:
            full = OpsError(
                "too_many_controls",
                f"the agent executes {self.max_operations} control operations already; nothing was run",
                retry_after=FULL_RETRY_SECONDS,
            )
            await self.note_refusal(request, caller, full)
            raise full
        # Another request with this key is for the plane to refuse.
        return await asyncio.shield(self._start(request, caller))

    async def note_refusal(self, request: ControlRequest, caller: Caller, error: OpsError) -> None:
        """As ControlPlane.note_refusal."""
        self._counts.control_answered(request.intent, REFUSED)
        await self._look(lambda: self._plane.note_refusal(request, caller, error))

    async def invocation(self, key: str) -> pb.GetInvocationResponse:
        """As ControlPlane.invocation."""
        return await self._look(lambda: self._plane.invocation(key))

    async def settle(self) -> None:
        """Finish what an agent that died left behind, commands that still run included as they end; what
        cannot be done is logged."""
        try:
            count = await self._settle()
            while await self._look(self._plane.has_left):
                await asyncio.sleep(_LEFT_SECONDS)
                count += await self._settle()
        except OpsError as error:
            _log.warning("%s: %s", error.reason, error.message)
        except Exception as error:
            # It would take the agent along, which can do all else without it.
            _log.error("agent_fault: control requests were not settled", exc_info=error)
        else:
            if count:
                _log.info("settled %d control requests that another agent left unfinished", count)

    async def _settle(self) -> int:
        self._settlement = _in_thread(self._plane.settle)
        return await asyncio.shield(self._settlement)

    async def end(self, grace_seconds: float) -> None:
        """Let executions end by themselves for so long; then end what looks for effects."""
        if not await self._wait(grace_seconds):
            self._plane.stop()
            if not await self._wait(_ANSWER_SECONDS):
                _log.warning("%d runtime commands have not ended; the next agent tells", len(self._running))

    def close(self) -> None:
        """Release the plane, unless something goes on that needs it."""
        if not self._running and (self._settlement is None or self._settlement.done()):
            self._plane.close()
        self._lookers.shutdown(wait=False, cancel_futures=True)

    async def _look(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._lookers, work)

    async def _wait(self, seconds: float) -> bool:
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        return not self._running

    def _start(self, request: ControlRequest, caller: Caller) -> _Outcome:
        outcome = _in_thread(lambda: self._plane.execute(request, caller))
        operation = _Operation(request.fingerprint, outcome)
        self._running.add(outcome)
        present = self._by_key.get(request.idempotency_key)
        if present is None or present.outcome.done():
            self._by_key[request.idempotency_key] = operation

        def finish(ended: _Outcome) -> None:
            self._running.discard(ended)
            if self._by_key.get(request.idempotency_key) is operation:
                del self._by_key[request.idempotency_key]
            error = ended.exception()  # seen, even if whoever asked is gone
            if error is None:
                self._count(request, ended.result())
            elif isinstance(error, OpsError):
                self._counts.control_answered(request.intent, REFUSED)

        outcome.add_done_callback(finish)
        return outcome

    def _count(self, request: ControlRequest, outcome: pb.ControlOutcome) -> None:
        word = REPLAYED if outcome.replayed else status_word(outcome.status)
        self._counts.control_answered(request.intent, word)


def _in_thread(work: Callable[[], _T]) -> "asyncio.Future[_T]":
    """Do blocking work in a thread of its own, which ends with the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def deliver(result: _T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # it is one when there is no error

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as caught:
            error = caught
        with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            loop.call_soon_threadsafe(deliver, result, error)

    threading.Thread(target=run, name="control", daemon=True).start()
    return future
