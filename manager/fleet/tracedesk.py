"""Where the traces of a fleet are written: in rounds, in one thread, each loop in its turn."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from spritemesh.errors import OpsError

if TYPE_CHECKING:
    from manager.fleet.traces import Batch, LoopTraces

_T = TypeVar("_T")
# Of one round: the first of its loops waits for the last.
_ROUND_BYTES = 1024 * 1024
_ROUND_LOOPS = 128
# From one round to the next, seconds: while a loop has no room, and otherwise, so that a loop that tells a
# little all the time costs two writes a second.
_PACE_SECONDS = 0.05
_CALM_SECONDS = 0.5


class TraceDesk:
    """Writes what the loops of a fleet gathered. One event loop uses it; without traces it costs nothing."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: dict[LoopTraces, None] = {}  # in the order in which they came
        self._written: list[LoopTraces] = []  # those of the round under way
        self._hurry = asyncio.Event()
        self._round_ended = asyncio.Event()
        self._rounds: asyncio.Task[None] | None = None

    def add(self, traces: "LoopTraces", *, hurry: bool) -> None:
        """A loop has something to write. hurry: it has no room for more."""
        self._waiting.setdefault(traces)
        if hurry:
            self._hurry.set()
        if self._rounds is None:
            self._rounds = asyncio.create_task(self._run_rounds(), name="traces")

    def drop(self, traces: "LoopTraces") -> None:
        """It has nothing to write after all."""
        self._waiting.pop(traces, None)

    async def finished(self, traces: "LoopTraces") -> None:
        """Return when nothing of the loop is being written."""
        while traces in self._written:
            await self._round_ended.wait()

    async def run(self, work: Callable[[], _T]) -> _T:
        """Do blocking work in the thread that writes, to its end also when who waits is cancelled."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "traces")
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._pool, work))

    async def close(self) -> None:
        """No loop has anything to write any more."""
        if self._rounds is not None:
            self._rounds.cancel()
            await asyncio.wait((self._rounds,))
        if self._pool is not None:
            self._pool.shutdown()

    async def _run_rounds(self) -> None:
        try:
            while self._waiting:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_CALM_SECONDS):
                        await self._hurry.wait()
                self._hurry.clear()
                await self._round()
                await asyncio.sleep(_PACE_SECONDS)
        finally:
            self._rounds = None

    async def _round(self) -> None:
        """Write what the first of those who wait have gathered."""
        batches: list[Batch] = []
        size = 0
        while self._waiting and size < _ROUND_BYTES and len(batches) < _ROUND_LOOPS:
            traces = next(iter(self._waiting))
            del self._waiting[traces]
            size += traces.size
            batch = traces.take()
            if batch is not None:
                self._written.append(traces)
                batches.append(batch)
        if self._waiting:
            self._hurry.set()
        self._round_ended.clear()
        try:
            errors = await self.run(lambda: _write(batches))
            for traces, error in zip(self._written, errors, strict=True):
                traces.wrote(error)
        finally:
            self._written.clear()
            self._round_ended.set()


def _write(batches: "list[Batch]") -> list[OpsError | None]:
    return [batch.write() for batch in batches]
