"""The runtime's traces of live loops: read beside their events, stored in rounds, and never in their way.

Most sprites have no trace files, so a heartbeat tells whether there are any (`trace_mark`): a stream is open
only from then on, and until nothing has come for a while. Standing streams would cost a fleet of 2,000 some
70 MB for nothing (measured: 35 kB each).

Whatever fails here is counted and told, and tried again: events, health and control know nothing of it. A
loop that floods fills its own room and waits; the sprite's file is its buffer. What cannot be written stays
in that room, too, until it can.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import NamedTuple, Protocol

from manager.core.cursor import Place
from manager.core.live import LiveLoop
from manager.core.liveness import Record
from manager.core.runtime_traces import TraceIntake
from manager.fleet.commits import defect_error, forget_frames
from manager.fleet.retries import delay
from manager.fleet.sources import TRACE_BOOKMARK_SECONDS, Source
from manager.fleet.tasks import ended
from manager.fleet.tracedesk import TraceDesk
from manager.store.runtime_traces import TraceStore
from manager.transport.channel import goodbye_error
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from superloop.ops.v1 import telemetry_pb2

_log = logging.getLogger("ops_manager")
# What of one loop waits to be written before its stream has to wait, bytes.
_ROOM_BYTES = 128 * 1024
# A stream that brought nothing for so long is closed: heartbeats tell when there is more.
_QUIET_SECONDS = 30.0
# A stream without so much as a bookmark for so long is stuck.
_STUCK_SECONDS = 3 * TRACE_BOOKMARK_SECONDS
_BACKOFF_SECONDS = 1.0
# An agent that is older or ends on purpose: no trouble to tell of.
_EXPECTED = frozenset({"unsupported_method", "agent_draining"})


class Owner(Protocol):
    """The session whose traces they are."""

    @property
    def loop_id(self) -> str:
        """Its loop."""
        ...

    @property
    def loop(self) -> LiveLoop:
        """What is known of it; another one once the lock is held."""
        ...

    def changed(self) -> None:
        """What is told of it is another."""
        ...

    def now(self) -> float:
        """Epoch seconds."""
        ...


class Batch(NamedTuple):
    """Lines to store, and the places that are reached with them."""

    store: TraceStore
    lines: list[bytes]
    places: Mapping[str, Place]
    mark: int  # of trace files of which everything is stored with these

    def write(self) -> OpsError | None:
        """Why it could not be stored. Blocks."""
        try:
            self.store.write(self.lines, self.places, self.mark)
        except OpsError as error:
            return error
        except Exception as defect:
            # One loop's trouble must not keep the others of the round from the disk.
            return defect_error(defect)
        return None


class LoopTraces:
    """One loop's traces, as long as its session lives. store: under the session's lock."""

    __slots__ = (
        *("_owner", "_store", "_desk", "_intake", "_task", "_mark", "_covered", "_tries", "_retry_at"),
        *("_is_refused", "_is_leaving", "_is_halted", "_trouble", "_told", "_lines", "_size", "_reached"),
        *("_writing", "_unwritten", "_room", "_is_used", "_came_at"),
    )

    def __init__(self, owner: Owner, store: TraceStore, desk: TraceDesk) -> None:
        self._owner = owner
        self._store = store
        self._desk = desk
        self._intake: TraceIntake | None = None
        self._task: asyncio.Task[None] | None = None
        self._mark = self._covered = 0  # as the last heartbeat told it; as of what was read to its end
        self._tries = self._unwritten = 0  # streams, and writes, that failed in a row
        self._retry_at = 0.0  # monotonic
        self._is_refused = False  # by this connection's agent
        self._is_leaving = self._is_halted = self._is_used = False
        self._came_at = 0.0  # the last message, monotonic
        self._trouble: OpsError | None = None
        self._told = ""  # reason code of the trouble that was told last
        self._lines: list[bytes] = []
        self._size = 0
        self._reached = False  # places or the mark moved on without a line
        self._writing = 0  # lines that are being written
        self._room: asyncio.Event | None = None

    @property
    def size(self) -> int:
        """Bytes that wait to be written."""
        return self._size

    # --- what the session tells ---------------------------------------------------------------------

    def heard(self, source: Source, mark: int) -> None:
        """A heartbeat of a connection told how its trace files are marked."""
        self._mark = mark
        if self._trouble is not None:
            self._tell(self._trouble)  # the connection is well all the same
            self._trouble = None
        is_due = mark not in {0, self._covered} and time.monotonic() >= self._retry_at
        if is_due and self._task is None and not (self._is_refused or self._is_halted):
            name = f"traces of {self._owner.loop_id}"
            self._task = asyncio.create_task(self._read(source), name=name)
        elif self._task is not None and self._is_stuck():
            # What a cancelled read costs is little, once in a while.
            self._task.cancel()
            self._fail(OpsError("deadline_exceeded", f"the agent sent no traces in {_STUCK_SECONDS:g} s"))

    def halt(self) -> None:
        """Write no more."""
        self._is_halted = True

    async def leave(self, seconds: float) -> None:
        """The connection is closed. seconds: how long a stream may take to end by that."""
        self._is_leaving = True
        self._wake()
        if self._task is not None:
            await ended(self._task, seconds)
        # The next connection is tried ever more slowly by itself.
        self._is_leaving = self._is_refused = False
        self._trouble, self._retry_at = None, 0.0

    async def settle(self) -> None:
        """Write what was gathered, once. Never returns while that is being written: the lock is given up
        next. What cannot be written comes again."""
        if not self._is_used:
            return
        self._desk.drop(self)
        await self._desk.finished(self)
        batch = self.take()
        # The thread has done by then what this loop gave it before, too.
        error = await self._desk.run(_nothing if batch is None else batch.write)
        if batch is not None:
            self.wrote(error)
        self.halt()

    # --- reading ------------------------------------------------------------------------------------

    async def _read(self, source: Source) -> None:
        """One stream, until nothing comes any more."""
        self._came_at = time.monotonic()
        try:
            self._is_used = True
            if self._intake is None:
                cursor = await self._desk.run(self._store.open)
                self._intake, self._covered = TraceIntake(cursor.places), cursor.mark
                if self._store.problem is not None:
                    self._tell(self._store.problem)
            if self._mark == self._covered:
                return  # nothing was written since somebody read it all
            await self._follow(source, self._intake)
        except OpsError as error:
            self._fail(error)
        except Exception as defect:
            _log.error("internal_error in the traces of %s", self._owner.loop_id, exc_info=defect)
            self._fail(defect_error(defect))
        finally:
            self._task = None

    def _is_stuck(self) -> bool:
        """Whether the agent sends nothing, not even bookmarks, although there is room."""
        return self._size < _ROOM_BYTES and time.monotonic() - self._came_at > _STUCK_SECONDS

    async def _follow(self, source: Source, intake: TraceIntake) -> None:
        lines_at, mark = time.monotonic(), 0
        async with aclosing(source.traces(intake.resume())) as messages:
            async for message in messages:
                if message.HasField("goodbye"):
                    raise goodbye_error(message.goodbye)
                now = self._came_at = time.monotonic()
                if self._take_in(intake, message):
                    lines_at = now
                elif message.HasField("bookmark"):
                    self._recovered()
                    # What a heartbeat told before the last message has come by this one.
                    if now - lines_at >= _QUIET_SECONDS and mark == self._mark:
                        self._covered, self._reached = mark, True
                        self._desk.add(self, hurry=False)
                        return
                mark = self._mark
                while self._size >= _ROOM_BYTES and not self._is_leaving:
                    room = self._room = self._room or asyncio.Event()
                    room.clear()
                    await room.wait()
                if self._is_leaving:
                    return

    def _take_in(self, intake: TraceIntake, message: telemetry_pb2.WatchTracesResponse) -> bool:
        """Gather what a message brings; whether that is anything."""
        lines = intake.accept(message)
        if message.HasField("invalid_line"):
            self._count(failures=1)
        if not (message.HasField("batch") or message.HasField("log_reset")):
            return False
        self._lines += lines
        self._size += sum(map(len, lines))
        self._reached = True
        self._desk.add(self, hurry=self._size >= _ROOM_BYTES)
        return True

    def _fail(self, error: OpsError) -> None:
        self._is_refused = error.reason == "unsupported_method"
        if self._is_leaving or error.reason in _EXPECTED:
            return
        self._tries += 1
        self._retry_at = time.monotonic() + delay(error, self._tries, _BACKOFF_SECONDS)
        self._count(failures=1)
        # A connection that broke is told of as such: whether this is more, the next heartbeat says.
        forget_frames(error)
        self._trouble = error

    # --- writing ------------------------------------------------------------------------------------

    def take(self) -> Batch | None:
        """What is to be written now; `wrote` must be called with what came of it."""
        if self._is_halted or self._intake is None or not (self._lines or self._reached):
            return None
        self._writing = len(self._lines)
        self._reached = False
        return Batch(self._store, self._lines[: self._writing], dict(self._intake.places), self._covered)

    def wrote(self, error: OpsError | None) -> None:
        """What came of the last batch."""
        if error is not None:
            self._reached = True
            self._unwritten += 1
            self._count(failures=1)
            if error.__cause__ is not None and self._told != error.reason:
                _log.error(
                    "internal_error in the traces of %s", self._owner.loop_id, exc_info=error.__cause__
                )
            self._tell(error)
            if not self._is_halted:
                seconds = delay(error, self._unwritten, _BACKOFF_SECONDS)
                asyncio.get_running_loop().call_later(seconds, self._again)
            return
        done, self._lines = self._lines[: self._writing], self._lines[self._writing :]
        self._size -= sum(map(len, done))
        self._unwritten = 0
        self._count(lines=len(done))
        self._recovered()
        self._wake()
        if self._lines:
            self._desk.add(self, hurry=self._size >= _ROOM_BYTES)

    def _again(self) -> None:
        if not self._is_halted:
            self._desk.add(self, hurry=True)

    def _wake(self) -> None:
        if self._room is not None:
            self._room.set()

    # --- telling ------------------------------------------------------------------------------------

    def _count(self, *, lines: int = 0, failures: int = 0) -> None:
        counts = self._owner.loop.counts
        counts.trace_lines += lines
        counts.trace_failures += failures
        self._owner.changed()

    def _recovered(self) -> None:
        """Something came, or was written."""
        self._tries = 0
        if self._told and not self._unwritten:
            self._told = ""
            self._note({"active": False})

    def _tell(self, error: OpsError) -> None:
        if self._told != error.reason:
            self._told = error.reason
            self._note({"active": True, "cause": error.reason, "message": error.message})

    def _note(self, detail: dict[str, JSON]) -> None:
        self._owner.loop.note(Record("traces_unavailable", detail), self._owner.now())
        self._owner.changed()


def _nothing() -> None:
    return
