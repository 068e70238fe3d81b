"""When which loop is committed: rounds of steps that are due, one after the other, written in a thread."""

import asyncio
import heapq
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from manager.core.facts import Known
from manager.core.session_record import session_document, session_judgement
from manager.core.step import Step
from manager.fleet.commits import Write, Written, defect_error, write_round
from manager.fleet.session import Session
from spritemesh import files
from spritemesh.errors import OpsError

_log = logging.getLogger("ops_manager")
# Steps that are due so soon go along, seconds.
_SLACK_SECONDS = 0.01
# From one round to the next, seconds: in a large fleet some step is due at any moment, and a round for each
# would cost more than its steps.
_PACE_SECONDS = 0.05
# How often the disk is made to take what was committed, seconds.
_SYNC_SECONDS = 1.0
# Steps of one round: the first of them waits for the last.
_ROUND = 128
# Steps whose history is read at a time: that of many loops, as after a reload, is megabytes that come and
# go, and leave memory in pieces.
_HISTORIES = 4
# Making steps holds up the streams; others get a turn after so long, seconds.
_TURN_SECONDS = 0.01


class Schedule:
    """Commits sessions. directory: where their files are. told: hears of each step that is on disk. clock:
    that of the sessions."""

    def __init__(
        self, directory: str, told: Callable[[Session, Step], None], clock: Callable[[], float]
    ) -> None:
        self._directory = directory
        self._told = told
        self._clock = clock
        self._unsynced = False
        self._due: list[tuple[float, int, Session]] = []
        self._at: dict[Session, float] = {}
        self._number = count()
        self._wake = asyncio.Event()
        # One: rounds must not overtake each other.
        self._writer = ThreadPoolExecutor(1, "commit")
        self._syncer = ThreadPoolExecutor(1, "sync")

    def look(self, session: Session) -> None:
        """Something of the session changed: its next step may be due, or due earlier."""
        due = session.loop.due_at()
        if due is None or not session.is_owner or self._at.get(session, due + 1) <= due:
            return
        self._at[session] = due
        heapq.heappush(self._due, (due, next(self._number), session))
        if self._due[0][2] is session:
            self._wake.set()

    async def run(self) -> None:
        """Commit until cancelled."""
        while True:
            ready = self._ready(self._clock() + _SLACK_SECONDS)
            if ready:
                began = time.monotonic()
                await self._round(ready)
                await asyncio.sleep(max(0.0, began + _PACE_SECONDS - time.monotonic()))
                continue
            self._wake.clear()
            seconds = self._due[0][0] - self._clock() if self._due else 60.0
            try:
                async with asyncio.timeout(max(0.0, min(seconds, 1.0))):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def sync(self) -> None:
        """Have the disk take what was committed, each second, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SYNC_SECONDS)
            if self._unsynced:
                self._unsynced = False
                await loop.run_in_executor(self._syncer, files.sync_file_system, self._directory)

    def close(self) -> None:
        """No round is under way any more."""
        self._writer.shutdown()
        self._syncer.shutdown()
        files.sync_file_system(self._directory)

    def _ready(self, until: float) -> list[Session]:
        ready: list[Session] = []
        while self._due and len(ready) < _ROUND and self._due[0][0] <= until:
            due, _, session = heapq.heappop(self._due)
            if self._at.get(session) != due:
                continue  # it was due earlier after all, and is done
            del self._at[session]
            at = session.loop.due_at()
            if at is not None and at <= until and session.is_owner:
                ready.append(session)
            else:
                self.look(session)
        return ready

    async def _round(self, sessions: list[Session]) -> None:
        loop = asyncio.get_running_loop()
        writes: list[tuple[Session, Write]] = []
        turn = time.monotonic()
        for few in _batched(sessions):
            whole = [session for session in few if session.loop.is_whole]
            if whole:
                histories = await loop.run_in_executor(self._writer, _histories, whole)
                for session, history in zip(whole, histories, strict=True):
                    if history is not None:
                        session.loop.remember(history)
                turn = time.monotonic()
            read = set(whole)
            for session in few:
                if session.loop.due_at() is None or not session.is_owner:
                    continue  # its session ended meanwhile
                if session.loop.is_whole and session not in read:
                    self.look(session)  # it became so while others' rows were read: its own are yet to come
                    continue
                try:
                    writes.append((session, self._step(session)))
                except Exception as defect:
                    # One loop's trouble must not end the commits of the others.
                    self._fail(session, defect_error(defect))
                if time.monotonic() - turn > _TURN_SECONDS:
                    await asyncio.sleep(0)
                    turn = time.monotonic()
        if not writes:
            return
        self._unsynced = True
        done = await loop.run_in_executor(self._writer, write_round, [write for _, write in writes])
        for (session, write), written in zip(writes, done, strict=True):
            self._settle(session, write.step, written)

    def _step(self, session: Session) -> Write:
        now = self._clock()
        step = session.loop.step(now)
        told, document = session_judgement(session.loop), None
        if step.fresh or told != session.told:
            session.told, document = told, session_document(session.loop, now)
        return Write(session.store, step, session.loop.settings, document)

    def _settle(self, session: Session, step: Step, written: Written) -> None:
        if written.error is not None:
            self._fail(session, written.error)
            return
        session.loop.written(step, telemetry_writable=written.telemetry_writable, now=self._clock())
        self._told(session, step)
        session.room.set()
        self.look(session)

    def _fail(self, session: Session, error: OpsError) -> None:
        if error.reason == "internal_error" and session.loop.unwritable != error.reason:
            _tell(session, error.__cause__)  # once: it is tried again each second
        session.loop.failed(error, self._clock())
        session.told = ()
        session.room.set()
        self.look(session)


def _batched(sessions: list[Session]) -> Iterator[list[Session]]:
    """Pieces of a round, in its order, with `_HISTORIES` whole steps at most in each."""
    few: list[Session] = []
    whole = 0
    for session in sessions:
        few.append(session)
        whole += session.loop.is_whole
        if whole == _HISTORIES:
            yield few
            few, whole = [], 0
    if few:
        yield few


def _histories(sessions: list[Session]) -> list[Known | None]:
    return [_history(session) for session in sessions]


def _history(session: Session) -> Known | None:
    """None: the files hold what nobody thought of; the step goes without."""
    try:
        return session.store.store.read_history(session.plan.settings.window)
    except Exception as defect:
        _tell(session, defect)
        return None


def _tell(session: Session, defect: BaseException | None) -> None:
    _log.error("internal_error in the commits of %s", session.loop_id, exc_info=defect)
