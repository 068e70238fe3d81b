"""An agent that tells what cannot be, or nothing: its loop says so, and no other is the worse for it."""

import asyncio
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import grpc
import pytest

from manager.core.registry import Entry, Registry, parse_registry
from manager.fleet import schedule, session
from manager.fleet import supervisor as fleet_supervisor
from manager.fleet.board import Board
from manager.fleet.commits import write_round
from manager.fleet.supervisor import Supervisor
from manager.fleet.tracedesk import TraceDesk
from manager.store import LoopStore, loop_files
from spritemesh import files
from spritemesh.errors import OpsError
from superloop.ops.v1 import manager_pb2 as pb
from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc
from tests.harness.agents import TOKEN
from tests.harness.live_fleet import ALIVE, SILENT, TOKEN_VARIABLE, Document, Fleet, entry, recent
from tests.harness.sprites import Sprites
from tests.harness.waiting import wait_for
from tests.unit.core.test_observe import SETTINGS

_NEVER = 10**18  # seconds that no date has


def heartbeat(**members: Any) -> sprite_pb2.Heartbeat:
    """One of a runtime that lives."""
    beat = sprite_pb2.Heartbeat(boot_id="b-1", sequence=1, **members)
    beat.sent_at.GetCurrentTime()
    beat.granted_interval.FromSeconds(1)
    beat.agent.pid = beat.runtime.pid = 7
    beat.agent.started_at.GetCurrentTime()
    beat.runtime.started_at.GetCurrentTime()
    beat.runtime.alive = True
    return beat


class Hostile(sprite_pb2_grpc.SpriteServiceServicer):
    """Serves an empty log. beat None: it never answers at all. pauses: before the heartbeat of the first
    connection, of the second and so on, which is the only one."""

    def __init__(self, beat: sprite_pb2.Heartbeat | None, pauses: Iterator[float]) -> None:
        self._beat = beat
        self._pauses = pauses
        self.ended = threading.Event()

    def ListLoops(self, request: Any, context: grpc.ServicerContext) -> Any:
        return sprite_pb2.ListLoopsResponse()

    def WatchEvents(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        if self._beat is not None:
            opened = sprite_pb2.WatchEventsResponse()
            opened.opened.boot_id = "b-1"
            yield opened
        self.ended.wait()

    def WatchHeartbeats(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        if self._beat is not None and not self.ended.wait(next(self._pauses)):
            yield sprite_pb2.WatchHeartbeatsResponse(heartbeat=self._beat)
        self.ended.wait()

    def GetSnapshot(self, request: Any, context: grpc.ServicerContext) -> Any:
        response = sprite_pb2.GetSnapshotResponse()
        response.snapshot.source.loop_id = request.loop_id
        return response


@contextmanager
def hostile(beat: sprite_pb2.Heartbeat | None, *pauses: float) -> Iterator[str]:
    """The address of such an agent. pauses: the last one again and again."""
    agent = Hostile(beat, chain(pauses, repeat(pauses[-1] if pauses else 0.0)))
    server = grpc.server(ThreadPoolExecutor(64))
    sprite_pb2_grpc.add_SpriteServiceServicer_to_server(agent, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        agent.ended.set()
        server.stop(None).wait()


def with_impossible(*path: str) -> sprite_pb2.Heartbeat:
    """A heartbeat of which one time is none."""
    beat = heartbeat()
    target: Any = beat
    for name in path:
        target = getattr(target, name)
    target.seconds = _NEVER
    return beat


@pytest.mark.parametrize(
    "path",
    [("sent_at",), ("agent", "started_at"), ("runtime", "started_at"), ("granted_interval",)],
    ids=".".join,
)
def test_impossible_times_of_one_agent_stop_no_other_loop(
    sprites: Sprites, fleet: Fleet, path: tuple[str, ...]
) -> None:
    good = sprites.make("good", recent(1, 3))
    with hostile(with_impossible(*path)) as url:
        fleet.register(entry("bad", url), entry("good", good.agent.url))
        manager = fleet.start()
        told = manager.wait_for("bad", lambda view: view.connection.reason)
        assert told.connection.reason == "service_response_invalid"
        good.loop.append(recent(4, 5))
        fleet.wait_until_read("good", 5)
        assert manager.stop() == 0


@pytest.fixture
async def supervisor(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Supervisor, Board]]:
    """One in this process, without a fleet yet, and its board; a token is set."""
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    monkeypatch.setattr(fleet_supervisor, "_CONNECTING", 1)
    monkeypatch.setattr(fleet_supervisor, "_TICK_SECONDS", 0.05)
    board = Board("fleet")
    made = Supervisor(
        str(fleet.root),
        board,
        settings=lambda entry: SETTINGS._replace(loop_id=entry.loop_id, transport=entry.transport),
        alerts=None,
        environment=os.environ,
    )
    try:
        yield made, board
    finally:
        await made.stop()


def registry(*loops: Document) -> Registry:
    return parse_registry({"schemaVersion": "v1", "loops": list(loops)})


def hold(directory: Path) -> None:
    """Take the lock that the session should have, and give it back."""
    with files.locked_directory(str(directory), wait_seconds=0.2):
        return


async def until(board: Board, loop_id: str, condition: Callable[[pb.LoopView], object]) -> None:
    """Waits beside the supervisor."""

    def holds() -> object:
        view = board.view(loop_id)
        return view is not None and condition(view)

    await asyncio.to_thread(wait_for, holds)


async def test_agent_that_never_answers_is_given_up_and_holds_up_nobody(
    sprites: Sprites, supervisor: tuple[Supervisor, Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine, or a proxy before it, answers pings all the while."""
    monkeypatch.setattr(session, "_OPENING_SECONDS", 0.3)
    good = sprites.make("good", recent(1, 3))
    made, board = supervisor
    with hostile(None) as url:
        await made.start(registry(entry("bad", url), entry("good", good.agent.url)))
        await until(board, "bad", lambda view: view.connection.reason == "deadline_exceeded")
        await until(board, "good", lambda view: view.committed_line == 3)
        await made.stop()


async def test_agent_that_was_away_for_long_is_given_time_to_be_heard_again(
    supervisor: tuple[Supervisor, Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a slow way the first heartbeat comes seconds after the stream of events is open."""
    monkeypatch.setattr(session, "_STUCK_SECONDS", 1.0)
    beat = heartbeat()
    beat.granted_interval.FromMilliseconds(200)
    made, board = supervisor
    with hostile(beat, 0.0, 0.5) as url:
        await made.start(registry(entry("slow", url)))
        await until(board, "slow", lambda view: view.agent.state == SILENT)
        await until(board, "slow", lambda view: view.connection.failures)
        await until(board, "slow", lambda view: view.agent.state == ALIVE)
        await made.stop()


async def test_stop_in_the_midst_of_a_reload_waits_for_what_is_being_written(
    sprites: Sprites, fleet: Fleet, supervisor: tuple[Supervisor, Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, may_go_on = threading.Event(), threading.Event()
    may_go_on.set()

    def slowly(writes: Any) -> Any:
        writing.set()
        may_go_on.wait(10)
        return write_round(writes)

    monkeypatch.setattr(schedule, "write_round", slowly)
    sprite = sprites.make("good", recent(1, 3))
    made, board = supervisor
    await made.start(registry(entry("good", sprite.agent.url)))
    await until(board, "good", lambda view: view.committed_line == 3)

    may_go_on.clear()
    writing.clear()
    disabled = entry("good", sprite.agent.url, enabled=False)
    reload = asyncio.create_task(made.apply(registry(disabled)))
    await asyncio.to_thread(wait_for, writing.is_set)
    reload.cancel()
    await asyncio.wait([reload])
    stop = asyncio.create_task(made.stop())
    with pytest.raises(OpsError, match="another process holds"):
        await asyncio.to_thread(hold, fleet.path("good", "ops"))
    assert not stop.done()
    may_go_on.set()
    await stop
    assert fleet.records("good")[-1] == "session_closed"


async def test_session_that_leaves_keeps_its_lock_until_its_last_step_is_written(
    sprites: Sprites, fleet: Fleet, supervisor: tuple[Supervisor, Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, may_go_on = threading.Event(), threading.Event()
    may_go_on.set()

    def slowly(writes: Any) -> Any:
        writing.set()
        may_go_on.wait(10)
        return write_round(writes)

    monkeypatch.setattr(schedule, "write_round", slowly)
    monkeypatch.setattr(session, "_PARTING_SECONDS", 0.1)
    sprite = sprites.make("good", recent(1, 3))
    made, board = supervisor
    await made.start(registry(entry("good", sprite.agent.url)))
    await until(board, "good", lambda view: view.committed_line == 3)

    may_go_on.clear()
    writing.clear()
    other = entry("good", sprite.agent.url)
    other["service"]["retryBackoffSeconds"] = 0.2
    reload = asyncio.create_task(made.apply(registry(other)))
    await asyncio.to_thread(wait_for, writing.is_set)
    await asyncio.wait([reload], timeout=0.5)
    assert not reload.done()
    with pytest.raises(OpsError, match="another process holds"):
        await asyncio.to_thread(hold, fleet.path("good", "ops"))
    may_go_on.set()
    await reload
    assert "session_closed" in fleet.records("good")


async def test_session_that_is_cancelled_while_it_leaves_listens_no_more(tmp_path: Path) -> None:
    heard, closed = asyncio.Event(), asyncio.Event()

    class Quiet:
        """Heartbeats that go on until somebody stops listening; no log."""

        has_heartbeats = True

        async def events(self, *_: object) -> AsyncIterator[sprite_pb2.WatchEventsResponse]:
            yield sprite_pb2.WatchEventsResponse(opened=sprite_pb2.Opened(boot_id="b"))
            await heard.wait()
            raise OpsError("stream_broken", "it ended")

        async def heartbeats(self) -> AsyncIterator[sprite_pb2.Heartbeat]:
            while True:
                yield heartbeat()
                heard.set()
                await asyncio.sleep(0.01)

        async def close(self) -> None:
            closed.set()

        async def snapshot(self, _: str) -> None:
            raise OpsError("events_missing", "there is none")

    class Host:
        def changed(self, watched: session.Session) -> None:
            if watched.loop.due_at() is not None:
                watched.loop.written(watched.loop.step(time.time()), telemetry_writable=True)
                watched.room.set()

        def heard(self, *_: object) -> None:
            return

        def ended(self, *_: object) -> None:
            return

        def open(self, _: object) -> Any:
            return Quiet()

    host: Any = Host()
    made = session.Session(
        session.Plan(Entry("a"), None, SETTINGS),
        LoopStore(loop_files(str(tmp_path), "a")),
        host,
        asyncio.Semaphore(1),
        time.time,
        TraceDesk(),
    )
    task = asyncio.create_task(made.run())
    # From then on it waits for who listens there.
    await closed.wait()
    made.leave(task)
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    assert not [other for other in asyncio.all_tasks() if other.get_name() == "heartbeats of a"]


async def test_session_that_has_ended_needs_no_collector(tmp_path: Path) -> None:
    host: Any = None
    plan = session.Plan(Entry("a"), None, SETTINGS)
    store = LoopStore(loop_files(str(tmp_path), "a"))
    made = session.Session(plan, store, host, asyncio.Semaphore(1), time.time, TraceDesk())
    left = weakref.ref(made)
    del made
    assert left() is None


async def test_loop_whose_steps_meet_a_defect_says_so_and_stops_no_other(
    sprites: Sprites, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    nothing: Any = None
    broken = SETTINGS._replace(loop_id="bad", thresholds=nothing)
    bad, good = (sprites.make(name, recent(1, 3)) for name in ("bad", "good"))
    board = Board("fleet")
    made = Supervisor(
        str(fleet.root),
        board,
        settings=lambda entry: broken if entry.loop_id == "bad" else SETTINGS._replace(loop_id="good"),
        alerts=None,
        environment={TOKEN_VARIABLE: TOKEN},
    )
    await made.start(registry(entry("bad", bad.agent.url), entry("good", good.agent.url)))
    try:
        await until(board, "bad", lambda view: view.counts.commit_failures >= 2)
        await until(board, "good", lambda view: view.committed_line == 3)
    finally:
        await made.stop()
    assert fleet.records("good")[-1] == "session_closed"
    assert [row.message for row in caplog.records] == ["internal_error in the commits of bad"]
