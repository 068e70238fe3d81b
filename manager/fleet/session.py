"""One loop, live: its streams are read, core.live is fed, and what is lost is opened again.

A session owns its loop's lock. Its tasks end when it is cancelled; what it had not told yet is then one last
step, which whoever runs it writes.
"""

import asyncio
import logging
import os
import time
import weakref
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, aclosing
from typing import NamedTuple, Protocol

from manager.core.facts import Known, Settings
from manager.core.live import LiveLoop
from manager.core.liveness import Connection
from manager.core.registry import Entry
from manager.fleet.commits import SessionStore, defect_error, forget_frames
from manager.fleet.retries import Queue, delay, trace_word
from manager.fleet.sources import Source
from manager.fleet.tasks import ended
from manager.fleet.tracedesk import TraceDesk
from manager.fleet.traces import LoopTraces
from manager.store import LoopStore
from manager.store.runtime_traces import TraceStore
from manager.transport.base import Endpoint
from manager.transport.channel import goodbye_error
from spritemesh import files, traced
from spritemesh.errors import OpsError
from spritemesh.ids import new_trace_id
from spritemesh.jsontext import JSON
from spritemesh.reasons import Fault
from superloop.ops.v1 import sprite_pb2

_log = logging.getLogger("ops_manager")
# A connection that lasted so long was none of a series of failures.
_STEADY_SECONDS = 30.0
_LOCK_SECONDS = 1.0
# A stream whose agent has been silent for so long may be stuck on the way: a new one tells.
_STUCK_SECONDS = 60.0
# What answers pings, such as a proxy whose agent hangs, need not ever answer a call.
_OPENING_SECONDS = 60.0
# What is wrong with a loop or its files, while its agent is well.
_OF_THE_LOOP = (Fault.MISSING, Fault.DATA)
# What is wrong between here and the agent, which may be slow rather than away.
_OF_THE_WAY = (Fault.PEER, Fault.LATE)
# Streams that do not follow where they were asked to are opened anew so often before it counts as a failure.
_GAPS = 3
_TRACE_ID_LENGTH = 128
# Streams end by themselves when their source is closed; a local one does not.
_LEAVE_SECONDS = 0.5
# A session that has not left by then is cancelled.
_PARTING_SECONDS = 2.0


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
        desk: TraceDesk,
    ) -> None:
        self.plan = plan
        self.store = SessionStore(store)
        # Weak: a session that has ended is to be free without the collector.
        self.traces = LoopTraces(weakref.proxy(self), TraceStore(store.paths, self.loop_id), desk)
        self.loop = LiveLoop(plan.settings, Known(), clock())
        self.patient = False
        self.room = asyncio.Event()  # set when a step was written
        self.is_owner = False
        self.is_displaced = False  # its directory is gone, and what it owned with it
        self.told: tuple[JSON, ...] = ()  # what session.json judges
        self.intents_seen: tuple[int, int] | None = None  # time and size of intents.jsonl
        self._host = host
        self._clock = clock  # epoch seconds
        self._gate = gate  # so many sessions connect at a time
        self._source: Source | None = None
        self._broken: OpsError | None = None
        self._tries = 0
        self._up_at: float | None = None  # monotonic
        self._is_answered = False  # the agent said something of the loop, if only that there is none
        self._limit: asyncio.Timeout | None = None
        self._breaking: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._owned: tuple[int, int] | None = None
        self._is_leaving = False
        self._parting: asyncio.TimerHandle | None = None  # ends the watch if it does not end by itself

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
                # The rest is not watching: cut short, it would give up the lock in the middle of a write.
                if self._parting is not None:
                    self._parting.cancel()
                try:
                    await self.traces.settle()
                    self.loop.close(self._clock())
                    self._host.changed(self)
                    await self._last_step()
                finally:
                    self.is_owner = False

    def has_lost_its_place(self) -> bool:
        """Whether the directory was removed or moved away: the lock on it holds nobody off any more."""
        return self.is_owner and self._owned != _identity(self.store.store.paths.ops)

    def displace(self) -> None:
        """Write no more: whoever takes the lock of the directory that is there now does."""
        self.is_displaced, self.is_owner = True, False
        self.traces.halt()

    def leave(self, task: asyncio.Task[None]) -> None:
        """End soon, as by cancelling its task, but with no read cancelled while it waits: see `_break`.

        task: that of `run`.
        """
        self._is_leaving = True
        source = self._source
        if source is None or self.plan.endpoint is None or not source.has_heartbeats:
            task.cancel()  # no gRPC is read
            return
        self._break(OpsError("stream_broken", "the session ends"))
        self._parting = asyncio.get_running_loop().call_later(_PARTING_SECONDS, task.cancel)

    def changed(self) -> None:
        """Something else is told of it."""
        self._host.changed(self)

    def now(self) -> float:
        """Epoch seconds, of the clock that all sessions share."""
        return self._clock()

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
            self._probing = asyncio.create_task(self._probe(source), name=f"clock {self.loop_id}")

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
        known = await asyncio.to_thread(self.store.store.read_standing)
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
            if self._is_leaving:
                return
            lasted = None if self._up_at is None else time.monotonic() - self._up_at
            self._tries = 1 if lasted is not None and lasted >= _STEADY_SECONDS else self._tries + 1
            await self._rest(error)

    async def _rest(self, error: OpsError) -> None:
        """Say that the loop cannot be read because of `error`, until it is tried again."""
        now, seconds = self._clock(), delay(error, self._tries, self.plan.entry.retry_backoff_seconds)
        self.loop.down(error, now + seconds, now)
        self._host.changed(self)
        await asyncio.sleep(seconds)

    def _open(self) -> None:
        """A try begins, under a trace id of its own."""
        self._up_at = None
        self.loop.open(f"{new_trace_id()}-{trace_word(self.loop_id)}"[:_TRACE_ID_LENGTH], self._clock())
        self._host.changed(self)

    async def _connect(self) -> OpsError:
        """One connection, from its first try to its end; why it ended."""
        loop, line = self.loop, self.loop.intake.place.line
        self._forget()
        self._open()
        try:
            async with AsyncExitStack() as stack:
                # The place in the queue is given up with the first message.
                queue = await stack.enter_async_context(Queue(self._gate))
                source = self._source = self._host.open(self)
                beats = None
                if source.has_heartbeats:
                    beats = asyncio.create_task(self._beat(source), name=f"heartbeats of {self.loop_id}")
                stack.push_async_callback(self._leave, source, beats)
                if source.has_heartbeats and self.plan.endpoint is not None:
                    late = asyncio.get_running_loop().call_later(_OPENING_SECONDS, self._give_up, source)
                    stack.callback(late.cancel)
                async with asyncio.timeout(None) as self._limit:
                    error = await self._read_on(source, queue)
        except OpsError as found:
            error = self._broken or found
        except TimeoutError:  # of the limit: the source did not end by being closed
            error = self._broken or OpsError("deadline_exceeded", "the session gave the stream up")
        except Exception as defect:
            # One loop's trouble must not end its watch, nor that of others.
            error = self._defect(defect)
        finally:
            # It knows the task, whose end knows the frames, which know this session and the connection.
            self._limit = None
        forget_frames(error)
        if self._up_at is not None:
            self._note("lost", error.reason)
        moved, behind = loop.intake.place.line > line, loop.head_line > loop.intake.place.line
        # A way so slow that nothing arrived before it was given up wants small pieces and patience, until all
        # has come.
        slow = behind and (self.patient or (self._up_at is not None and not moved))
        self.patient = error.row.fault in _OF_THE_WAY and slow
        return error

    def _note(self, what: str, reason: str = "") -> None:
        """Tell traces what became of the connection."""
        loop_id, trace_id = self.loop_id, self.loop.settings.trace_id
        traced.event(what, "session.py", loop_id, loop_id=loop_id, reason=reason, ops_trace_id=trace_id)

    def _forget(self) -> None:
        """Of the connection before."""
        self._broken = self._limit = None
        self._is_answered = False

    async def _read_on(self, source: Source, queue: Queue) -> OpsError:
        """Read stream after stream of one connection: a gap is answered by another from the last line."""
        gaps = 0
        while True:
            line = self.loop.intake.place.line
            try:
                await self._read(source, queue)
            except OpsError as error:
                if error.row.fault in _OF_THE_LOOP and source.has_heartbeats and self._broken is None:
                    # Its agent is well, and says so meanwhile.
                    queue.leave()
                    self._is_answered = True
                    self._tries += 1
                    await self._rest(error)
                    if self._broken is not None:
                        raise
                    self._open()
                    continue
                gaps = gaps + 1 if self.loop.intake.place.line == line else 1
                if error.reason != "event_sequence_gap" or gaps > _GAPS:
                    raise
                self.loop.intake.reopen()
            else:
                return OpsError("stream_broken", "the stream of events ended without a goodbye")

    async def _read(self, source: Source, queue: Queue) -> None:
        loop = self.loop
        trace_id = loop.settings.trace_id or ""
        async with aclosing(source.events(loop.intake.resume(), trace_id)) as messages:
            async for message in messages:
                now = self._clock()
                if message.HasField("goodbye"):
                    raise goodbye_error(message.goodbye)
                loop.accept(message, now)
                if message.HasField("opened"):
                    queue.leave()
                    if self._up_at is None:
                        self._up_at = time.monotonic()
                        loop.up(message.opened, now)
                        self._note("connect")
                    if loop.known.state is None:
                        await self._ask_for_snapshot(source, trace_id)
                self._host.changed(self)
                while loop.is_full:
                    self.room.clear()
                    await self.room.wait()

    async def _ask_for_snapshot(self, source: Source, trace_id: str) -> None:
        """The first of a loop of which nothing is known: its events may be many. One that cannot be made is
        told by a bookmark."""
        try:
            self.loop.offer(await source.snapshot(trace_id), self._clock())
        except OpsError as error:
            if error.row.fault in _OF_THE_WAY:
                raise

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
                    self.traces.heard(source, heartbeat.trace_mark)
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
        if self._source is source and self._up_at is None and not self._is_answered:
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
            forget_frames(error)
            self._breaking = asyncio.create_task(self._end(self._source), name=f"break {self.loop_id}")

    async def _end(self, source: Source) -> None:
        await source.close()
        await asyncio.sleep(_LEAVE_SECONDS)
        if self._source is source and self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def _leave(self, source: Source, beats: "asyncio.Task[None] | None") -> None:
        self._source = None
        try:
            try:
                await source.close()
            finally:
                if beats is not None:
                    await ended(beats, _LEAVE_SECONDS)
        finally:
            await self.traces.leave(0.0 if self.plan.endpoint is None else _LEAVE_SECONDS)


def _identity(directory: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(directory)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
