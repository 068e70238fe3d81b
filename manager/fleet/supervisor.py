"""A fleet's sessions: begun and ended as the registry says, committed, judged as time passes."""

import asyncio
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial

from manager.core.clones import Clones, Start
from manager.core.facts import Settings
from manager.core.liveness import Record
from manager.core.registry import Entry, Registry
from manager.core.step import Step
from manager.core.view import loop_view
from manager.fleet.alerts import AlertDesk
from manager.fleet.board import Board
from manager.fleet.clock import SteadyClock
from manager.fleet.registry import endpoint_of
from manager.fleet.schedule import Schedule
from manager.fleet.session import Plan, Session
from manager.fleet.sources import Source, Sources
from manager.fleet.tracedesk import TraceDesk
from manager.store import LoopStore, loop_files
from spritemesh.errors import OpsError
from superloop.ops.v1 import manager_pb2 as pb
from superloop.ops.v1 import sprite_pb2

_log = logging.getLogger("ops_manager")
# Sessions that connect at the same time.
_CONNECTING = 100
_TICK_SECONDS = 1.0
# This process did not run for so long: what nobody heard meanwhile may wait in the sockets.
_LATE_SECONDS = 5.0
# How often it is looked for intents of other programs, seconds.
_INTENT_SECONDS = 5.0


class Supervisor:
    """Runs the sessions of a fleet. One event loop uses it.

    settings: makes those of an entry. alerts None: alerts are not sent. environment: holds the tokens.
    """

    def __init__(
        self,
        repo: str,
        board: Board,
        *,
        settings: Callable[[Entry], Settings],
        alerts: AlertDesk | None,
        environment: Mapping[str, str],
    ) -> None:
        self._repo = repo
        self._board = board
        self._settings = settings
        self._alerts = alerts
        self._environment = environment
        self._sources = Sources(repo)
        self._clock = SteadyClock()
        self._schedule = Schedule(repo, self._committed, self._clock)
        self._traces = TraceDesk()
        self._gate = asyncio.Semaphore(_CONNECTING)
        self._sessions: dict[str, tuple[Session, asyncio.Task[None]]] = {}
        self._entries: dict[str, Entry] = {}
        self._clones = Clones()
        self._by_sprite: dict[str, set[Session]] = defaultdict(set)
        self._known_by: dict[Session, tuple[str, tuple[str, ...]]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    # --- the fleet ----------------------------------------------------------------------------------

    async def start(self, registry: Registry) -> None:
        """Begin with a checked registry."""
        for work, name in (
            (self._schedule.run(), "commits"),
            (self._schedule.sync(), "syncs"),
            (self._tick(), "ticks"),
        ):
            task = asyncio.create_task(work, name=name)
            task.add_done_callback(_tell_defect)
            self._tasks.append(task)
        await self.apply(registry)

    async def apply(self, registry: Registry) -> None:
        """Make the fleet what a checked registry says; sessions of entries that did not change go on."""
        wanted = {entry.loop_id: entry for entry in registry.loops}
        gone = [loop_id for loop_id, entry in self._entries.items() if wanted.get(loop_id) != entry]
        for loop_id in gone:
            del self._entries[loop_id]
        await self._end(gone)
        for loop_id in gone:
            if loop_id not in wanted:
                self._board.remove(loop_id)
        self._board.fleet_id = registry.fleet_id
        for loop_id, entry in wanted.items():
            if loop_id not in self._entries:
                self._entries[loop_id] = entry
                if entry.enabled:
                    self._begin(entry)
                else:
                    self._board.put(_disabled(entry))

    async def stop(self) -> None:
        """End all sessions; what they know is on disk then, as far as it can be."""
        self._stopping = True
        await self._end(list(self._sessions))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._schedule.close()
        await self._traces.close()
        self._sources.close()
        if self._alerts is not None:
            await asyncio.to_thread(self._alerts.close)

    def _begin(self, entry: Entry) -> None:
        plan = Plan(entry, endpoint_of(entry, self._environment), self._settings(entry))
        store = LoopStore(loop_files(self._repo, entry.loop_id))
        session = Session(plan, store, self, self._gate, self._clock, self._traces)
        task = asyncio.create_task(session.run(), name=f"session {entry.loop_id}")
        task.add_done_callback(_tell_defect)
        self._sessions[entry.loop_id] = session, task
        self._board.follow(entry.loop_id, lambda: self._view(session))

    async def _end(self, loop_ids: list[str]) -> None:
        for loop_id in loop_ids:
            if loop_id in self._sessions:
                self._dismiss(loop_id)
        # Whoever waits here may be cancelled, as a reload is by a stop: their last steps go on all the same.
        if self._ending:
            await asyncio.wait(set(self._ending))

    def _renew(self, session: Session) -> None:
        """Begin a session anew whose directory is another one by now."""
        _log.warning("the directory %s was removed: its session begins anew", session.store.store.paths.ops)
        session.displace()
        self._dismiss(session.loop_id)

    def _dismiss(self, loop_id: str) -> None:
        """Have a session end, and hear of it when it has."""
        session, task = self._sessions.pop(loop_id)
        if self._stopping:
            task.cancel()  # quicker, and what it costs ends with the process
        else:
            session.leave(task)
        self._ending.add(task)
        task.add_done_callback(partial(self._ended, session))

    def _ended(self, session: Session, task: "asyncio.Task[None]") -> None:
        self._ending.discard(task)
        self._forget(session)
        entry = session.plan.entry
        if session.is_displaced and self._entries.get(entry.loop_id) is entry and not self._stopping:
            self._begin(entry)

    # --- what sessions tell -------------------------------------------------------------------------

    def changed(self, session: Session) -> None:
        self._board.touch(session.loop_id)
        self._schedule.look(session)

    def open(self, session: Session) -> Source:
        return self._sources.open(session.plan.endpoint, session.loop_id, patient=session.patient)

    def heard(self, session: Session, heartbeat: sprite_pb2.Heartbeat, now: float) -> None:
        """Whether two agents live under one sprite id."""
        if session.plan.endpoint is None:
            return
        keys = self._keys(session)
        known = [self._clones.hear_again(key, heartbeat.boot_id, now) for key in keys]
        if all(known) and not session.loop.frozen:
            return
        started_at = heartbeat.agent.started_at.ToNanoseconds() / 1e9
        offset = heartbeat.sent_at.ToNanoseconds() / 1e9 - now
        start = Start(heartbeat.boot_id, (heartbeat.agent.pid, started_at), started_at - offset)
        for key in keys:
            self._clones.hear(key, start, now)
            self._judge_clones(key, now)

    def ended(self, session: Session) -> None:
        start = session.loop.liveness.start
        if start is not None:
            for key in self._keys(session):
                self._clones.end(key, start.boot_id)

    def _keys(self, session: Session) -> tuple[str, ...]:
        """What a sprite is known by: the registry's word, its agent's, its address."""
        told = session.loop.liveness.sprite_id
        known = self._known_by.get(session)
        if known is not None and known[0] == told:
            return known[1]
        self._forget(session)
        target = session.plan.endpoint
        ours = session.plan.entry.sprite_id
        named = (
            ("registry", ours),
            # Where the registry says who it is, no agent can pass for another sprite and freeze that one.
            ("agent", "" if ours else told),
            ("address", "" if target is None else target.target),
        )
        keys = tuple(f"{kind}:{key}" for kind, key in named if key)
        self._known_by[session] = told, keys
        for key in keys:
            self._by_sprite[key].add(session)
        return keys

    def _forget(self, session: Session) -> None:
        _, keys = self._known_by.pop(session, ("", ()))
        for key in keys:
            self._by_sprite[key].discard(session)
            if not self._by_sprite[key]:
                del self._by_sprite[key]

    def _judge_clones(self, key: str, now: float) -> None:
        boot_ids = self._clones.boot_ids(key, now)
        for session in self._by_sprite.get(key, ()):
            loop = session.loop
            if len(boot_ids) > 1 and not loop.frozen:
                detail = {"active": True, "spriteId": key.partition(":")[2], "bootIds": boot_ids}
                loop.freeze("sprite_cloned", Record("sprite_cloned", detail), now)
                self.changed(session)
            elif loop.frozen and not self._is_cloned(session, now):
                loop.freeze("", Record("sprite_cloned", {"active": False}), now)
                self.changed(session)

    def _is_cloned(self, session: Session, now: float) -> bool:
        return any(len(self._clones.boot_ids(key, now)) > 1 for key in self._keys(session))

    # --- time ---------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        intents_at, before = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            stepped, now, passed = self._clock.catch_up(), self._clock(), time.monotonic()
            late, before = passed - before - _TICK_SECONDS, passed
            look = passed - intents_at >= _INTENT_SECONDS
            if look:
                intents_at = passed
            if stepped:
                self._clones.shift(stepped)
            for session, _ in list(self._sessions.values()):
                if stepped:
                    session.loop.shift(stepped)
                if late > _LATE_SECONDS:
                    session.loop.excuse(late)
                try:
                    self._tick_session(session, now, look=look)
                except Exception as defect:
                    # One loop's trouble must not stop the time of the others.
                    _log.error("internal_error in the ticks of %s", session.loop_id, exc_info=defect)

    def _tick_session(self, session: Session, now: float, *, look: bool) -> None:
        if now >= session.loop.wake_at:
            session.tick(now)
            self._schedule.look(session)
        if session.loop.frozen:
            for key in self._keys(session):
                self._judge_clones(key, now)
        if look and session.has_lost_its_place():
            self._renew(session)
        elif look:
            self._look_for_intents(session, now)
            if self._alerts is not None:
                self._alerts.tick(session)

    def _look_for_intents(self, session: Session, now: float) -> None:
        """Others step in: what came of it is part of health."""
        store = session.store.store
        try:
            stat = os.stat(store.paths.intents)
        except OSError:
            return
        seen = (stat.st_mtime_ns, stat.st_size)
        if session.intents_seen != seen:
            session.intents_seen = seen
            session.loop.intent(store.last_intent(), now)
            self.changed(session)

    # --- steps and views ----------------------------------------------------------------------------

    def _committed(self, session: Session, step: Step) -> None:
        self._board.touch(session.loop_id)
        if step.outcome.escalations and self._alerts is not None:
            self._alerts.escalated(session)

    def _view(self, session: Session) -> pb.LoopView:
        endpoint = session.plan.endpoint
        return loop_view(
            session.loop,
            target=self._repo if endpoint is None else endpoint.target,
            sprite_id=session.plan.entry.sprite_id,
            now=self._clock(),
        )


def _disabled(entry: Entry) -> pb.LoopView:
    view = pb.LoopView(loop_id=entry.loop_id, sprite_id=entry.sprite_id, transport=entry.transport)
    view.connection.state = pb.ConnectionView.STATE_DISABLED
    view.agent.state = pb.AgentView.STATE_UNKNOWN
    view.runtime.state = pb.RuntimeView.STATE_UNKNOWN
    view.updated_at.GetCurrentTime()
    return view


def _tell_defect(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        reason = error.reason if isinstance(error, OpsError) else "internal_error"
        _log.error("%s in %s", reason, task.get_name(), exc_info=error)
