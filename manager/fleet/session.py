"""One loop, live: its streams are read, core.live is fed, and what is lost is opened again.

A session owns its loop's lock. Its tasks end when it is cancelled; what it had not told yet is then one last
step, which whoever runs it writes.
"""

import asyncio
import logging
import os
import random
import re
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, aclosing
from typing import NamedTuple, Protocol, Self

from manager.core.facts import Known, Settings
from manager.core.live import LiveLoop
from manager.core.liveness import Connection
from manager.core.registry import Entry
from manager.fleet.commits import SessionStore, defect_error
from manager.fleet.sources import Source
from manager.store import LoopStore
from manager.transport.base import Endpoint
from spritemesh import files
from spritemesh.errors import OpsError
from spritemesh.ids import new_trace_id
from spritemesh.jsontext import JSON
from spritemesh.reasons import REASONS, Fault
from superloop.ops.v1 import sprite_pb2

_log = logging.getLogger("ops_manager")
_LONGEST_BACKOFF_SECONDS = 30.0
# Wrong tokens do not mend themselves, and knocking on is rude.
_CREDENTIALS_BACKOFF_SECONDS = 60.0
# An agent may ask for more patience, but not for more than this.
_LONGEST_WAIT_SECONDS = 300.0
# A connection that lasted so long was none of a series of failures.
_STEADY_SECONDS = 30.0
_LOCK_SECONDS = 1.0
# A stream whose agent has been silent for so long may be stuck on the way: a new one tells.
_STUCK_SECONDS = 60.0
# What answers pings, such as a proxy whose agent hangs, need not ever answer a call.
_OPENING_SECONDS = 60.0
# Streams that do not follow where they were asked to are opened anew so often before it counts as a failure.
_GAPS = 3
_TRACE_ID_LENGTH = 128
# Streams end by themselves when their source is closed; a local one does not.
_LEAVE_SECONDS = 0.5


class Host(Protocol):
    """What a session needs of whoever runs it."""

    def changed(self, session: "Session") -> None:
        """Something came: a step may be due, and the view is another."""
        ...

    def heard(self, session: "Session", heartbeat: sprite_pb2.Heartbeat, now: float) -> None:
        """A heartbeat came."""
        ...

    def ended(self, session: "Session") -> None:
        """The agent that was heard said that it ends."""
        ...

    def open(self, session: "Session") -> Source:
        """A source for the session's loop."""
        ...


class Plan(NamedTuple):
    """What a session is to watch. endpoint None: this machine."""

    entry: Entry
    endpoint: Endpoint | None
    settings: Settings


class Session:
    """Watches one loop until its task is cancelled."""

    def __init__(
        self,
        plan: Plan,
        store: LoopStore,
        host: Host,
        gate: asyncio.Semaphore,
        clock: Callable[[], float],
    ) -> None:
        self.plan = plan
        self.store = SessionStore(store)
        self.loop = LiveLoop(plan.settings, Known(), clock())
        self.patient = False
        self.room = asyncio.Event()  # set when a step was written
        self.is_owner = False
        self.is_displaced = False  # its directory is gone, and what it owned with it
        self.told: tuple[JSON, ...] = ()  # what session.json judges
        self._host = host
        self._clock = clock  # epoch seconds
        self._gate = gate  # so many sessions connect at a time
        self._source: Source | None = None
        self._broken: OpsError | None = None
        self._tries = 0
        self._up_at: float | None = None  # monotonic
        self._breaking: asyncio.Task[None] | None = None
        self._owned: tuple[int, int] | None = None

    @property
    def loop_id(self) -> str:
        return self.plan.entry.loop_id

    async def run(self) -> None:
        """Own the loop and watch it until cancelled."""
        with ExitStack() as lock:
            await self._own(lock)
            self.is_owner = True
            try:
                await self._watch()
            finally:
                self.loop.close(self._clock())
                self._host.changed(self)
                await self._last_step()
                self.is_owner = False

    def has_lost_its_place(self) -> bool:
        """Whether the directory was removed or moved away: the lock on it holds nobody off any more."""
        return self.is_owner and self._owned != _identity(self.store.store.paths.ops)

    def displace(self) -> None:
        """Write no more: whoever takes the lock of the directory that is there now does."""
        self.is_displaced, self.is_owner = True, False

    def tick(self, now: float) -> None:
        """Time has passed: once a second."""
        loop, liveness = self.loop, self.loop.liveness
        loop.tick(now)
        source = self._source
        if source is None or liveness.connection != Connection.STATE_UP:
            return
        # A connection that has just come up after a longer absence has not been silent yet.
        heard_at = max(liveness.heartbeat_at or 0.0, liveness.connection_since)
        silent = liveness.silent or (source.has_heartbeats and liveness.heartbeat_at is None)
        if silent and now - heard_at > _STUCK_SECONDS:
            self._break(OpsError("deadline_exceeded", "the agent has been silent for a minute"))
        elif liveness.wants_probe(now):
            liveness.probed(now)
            asyncio.get_running_loop().create_task(self._probe(source), name=f"clock {self.loop_id}")

    # --- owning -------------------------------------------------------------------------------------

    async def _own(self, lock: ExitStack) -> None:
        """Take the loop's lock, and read what the files say."""
        ops = self.store.store.paths.ops
        while True:
            try:
                lock.enter_context(files.locked_directory(ops, wait_seconds=0))
            except OpsError as error:
                self.loop.liveness.waiting(error.reason, self._clock())
                self._host.changed(self)
                await asyncio.sleep(_LOCK_SECONDS)
            else:
                break
        self._owned = _identity(ops)
        known = await asyncio.to_thread(self.store.store.read_all, self.plan.settings.window)
        self.loop = LiveLoop(self.plan.settings, known, self._clock())
        self._host.changed(self)

    async def _last_step(self) -> None:
        """Wait until everything is written; a loop that cannot be written is left as it stands on disk.

        Never returns while a step is being written: the lock is given up next.
        """
        loop, failures = self.loop, self.loop.counts.commit_failures
        while loop.is_pending or (
            not self.is_displaced and loop.due_at() is not None and loop.counts.commit_failures == failures
        ):
            self.room.clear()
            self._host.changed(self)
            await self.room.wait()

    # --- watching -----------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            error = await self._connect()
            now = self._clock()
            lasted = None if self._up_at is None else time.monotonic() - self._up_at
            self._tries = 1 if lasted is not None and lasted >= _STEADY_SECONDS else self._tries + 1
            delay = _delay(error, self._tries, self.plan.entry.retry_backoff_seconds)
            self.loop.down(error, now + delay, now)
            self._host.changed(self)
            await asyncio.sleep(delay)

    async def _connect(self) -> OpsError:
        """One connection, from its first try to its end; why it ended."""
        loop, line = self.loop, self.loop.intake.place.line
        self._forget()
        loop.open(f"{new_trace_id()}-{_trace_word(self.loop_id)}"[:_TRACE_ID_LENGTH], self._clock())
        self._host.changed(self)
        try:
            async with AsyncExitStack() as stack:
                # The place in the queue is given up with the first message.
                queue = await stack.enter_async_context(_Queue(self._gate))
                source = self._source = self._host.open(self)
                beats = None
                if source.has_heartbeats:
                    beats = asyncio.create_task(self._beat(source), name=f"heartbeats of {self.loop_id}")
                stack.push_async_callback(self._leave, source, beats)
                if source.has_heartbeats and self.plan.endpoint is not None:
                    late = asyncio.get_running_loop().call_later(_OPENING_SECONDS, self._give_up, source)
                    stack.callback(late.cancel)
                error = await self._read_on(source, queue)
        except OpsError as found:
            error = self._broken or found
        except Exception as defect:
            # One loop's trouble must not end its watch, nor that of others.
            error = self._defect(defect)
        moved, behind = loop.intake.place.line > line, loop.head_line > loop.intake.place.line
        # A way so slow that nothing arrived before it was given up wants small pieces and patience.
        slow = self.patient or (self._up_at is not None and behind and not moved)
        self.patient = error.row.fault is Fault.PEER and slow
        return error

    def _forget(self) -> None:
        """Of the connection before."""
        self._up_at = self._broken = None

    async def _read_on(self, source: Source, queue: "_Queue") -> OpsError:
        """Read stream after stream of one connection: a gap is answered by another from the last line."""
        gaps = 0
        while True:
            line = self.loop.intake.place.line
            try:
                await self._read(source, queue)
            except OpsError as error:
                gaps = gaps + 1 if self.loop.intake.place.line == line else 1
                if error.reason != "event_sequence_gap" or gaps > _GAPS:
                    raise
                self.loop.intake.reopen()
            else:
                return OpsError("stream_broken", "the stream of events ended without a goodbye")

    async def _read(self, source: Source, queue: "_Queue") -> None:
        loop = self.loop
        trace_id = loop.settings.trace_id or ""
        async with aclosing(source.events(loop.intake.resume(), trace_id)) as messages:
            async for message in messages:
                now = self._clock()
                if message.HasField("goodbye"):
                    raise _goodbye(message.goodbye)
                loop.accept(message, now)
                if message.HasField("opened"):
                    queue.leave()
                    if self._up_at is None:
                        self._up_at = time.monotonic()
                        loop.up(message.opened, now)
                    if loop.known.state is None:
                        loop.offer(await source.snapshot(trace_id), self._clock())
                self._host.changed(self)
                while loop.is_full:
                    self.room.clear()
                    await self.room.wait()

    async def _beat(self, source: Source) -> None:
        """Read heartbeats; when they end, so does the connection."""
        loop, first = self.loop, True
        try:
            sent = self._clock()
            async with aclosing(source.heartbeats()) as heartbeats:
                async for heartbeat in heartbeats:
                    now = self._clock()
                    if first:
                        first = False
                        self._learn_clock(sent, heartbeat.sent_at.ToNanoseconds() / 1e9, now)
                    loop.beat(heartbeat, now)
                    self._host.heard(self, heartbeat, now)
                    self._host.changed(self)
            # It drains, and the stream of events says goodbye.
            self._host.ended(self)
        except OpsError as error:
            self._break(error)
        except Exception as defect:
            self._break(self._defect(defect))

    async def _probe(self, source: Source) -> None:
        """Ask for the agent's time, since its heartbeats look old."""
        try:
            self._learn_clock(*await source.clock())
        except OpsError:
            return  # the streams tell what is wrong

    def _learn_clock(self, sent: float, theirs: float, received: float) -> None:
        for record in self.loop.liveness.round_trip(sent, theirs, received):
            self.loop.note(record, received)
        self._host.changed(self)

    def _give_up(self, source: Source) -> None:
        if self._source is source and self._up_at is None:
            seconds = f"{_OPENING_SECONDS:g} s"
            self._break(OpsError("deadline_exceeded", f"the agent did not open the stream within {seconds}"))

    def _defect(self, defect: Exception) -> OpsError:
        _log.error("internal_error in the session of %s", self.loop_id, exc_info=defect)
        return defect_error(defect)

    def _break(self, error: OpsError) -> None:
        """End the connection because of `error`: its streams end by that, and are not cancelled in mid-read,
        which costs memory for ever."""
        if self._source is not None and self._broken is None:
            self._broken = error
            self._breaking = asyncio.create_task(self._source.close(), name=f"break {self.loop_id}")

    async def _leave(self, source: Source, beats: "asyncio.Task[None] | None") -> None:
        self._source = None
        await source.close()
        if beats is not None:
            done, _ = await asyncio.wait((beats,), timeout=_LEAVE_SECONDS)
            if not done:
                beats.cancel()
                await asyncio.wait((beats,))


class _Queue:
    """A place among those who connect at the same time; left early, or at the end of the block."""

    def __init__(self, gate: asyncio.Semaphore) -> None:
        self._gate = gate
        self._holds = False

    async def __aenter__(self) -> Self:
        await self._gate.acquire()
        self._holds = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Let the next one in; a second call changes nothing."""
        if self._holds:
            self._holds = False
            self._gate.release()


def _identity(directory: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(directory)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _goodbye(goodbye: sprite_pb2.Goodbye) -> OpsError:
    reason = goodbye.reason if goodbye.reason in REASONS else "stream_broken"
    seconds = goodbye.retry_after.ToMilliseconds() / 1000 if goodbye.HasField("retry_after") else None
    return OpsError(reason, f"the agent ended the stream: {reason}", retry_after=seconds)


def _delay(error: OpsError, tries: int, base: float) -> float:
    """How long to wait before the next try: exponential backoff with full jitter."""
    if error.row.fault is Fault.CREDENTIALS:
        return random.uniform(0.5, 1.0) * _CREDENTIALS_BACKOFF_SECONDS  # noqa: S311 - spreads reconnects, guards nothing
    ceiling = min(_LONGEST_BACKOFF_SECONDS, max(base, 0.1) * 2.0 ** min(tries - 1, 10))
    wanted = min(error.retry_after or 0, _LONGEST_WAIT_SECONDS)
    return max(random.uniform(0.05, max(0.1, ceiling)), wanted)  # noqa: S311 - same


def _trace_word(loop_id: str) -> str:
    """A loop id in a trace id (contract K, end)."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", loop_id)
