"""manager.fleet.traces: when a stream is opened and left, what waits for room, what is told of trouble."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from manager.core.facts import Known
from manager.core.live import LiveLoop
from manager.core.liveness import Record
from manager.fleet import traces as module
from manager.fleet.sources import Source
from manager.fleet.tracedesk import TraceDesk
from manager.fleet.traces import LoopTraces
from manager.runtime_traces import drain
from manager.store import loop_files
from manager.store.runtime_traces import TraceStore
from manager.transport.base import Endpoint, Retry
from manager.transport.grpc import GrpcTransport
from manager.transport.link import Link
from spritemesh.errors import OpsError
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2, telemetry_pb2
from tests.harness.spans import span

Message = telemetry_pb2.WatchTracesResponse


def opened() -> Message:
    return Message(opened=telemetry_pb2.TraceOpened(follow=True))


def batch(first: int, last: int) -> Message:
    lines = [
        telemetry_pb2.Line(number=number, record=pb.JsonObject(json=span(number).decode()[:-1]))
        for number in range(first, last + 1)
    ]
    found = telemetry_pb2.LineBatch(
        first_line=first, last_line=last, end_digest=b"e" * 32, first_line_digest=b"f" * 32, lines=lines
    )
    return Message(file="trace.jsonl", batch=found)


def bookmark() -> Message:
    return Message(bookmark=telemetry_pb2.TraceBookmark())


class ScriptedSource:
    """Streams of messages that the test hands out; an OpsError ends one."""

    def __init__(self) -> None:
        self.asked: list[int] = []  # line after which each stream was to begin
        self.left = 0
        self.messages: asyncio.Queue[Message | OpsError] = asyncio.Queue()

    async def traces(
        self, after: Sequence[telemetry_pb2.FilePlace]
    ) -> AsyncGenerator[telemetry_pb2.WatchTracesResponse, None]:
        self.asked.append(after[0].position.line if after else 0)
        try:
            while True:
                message = await self.messages.get()
                if isinstance(message, OpsError):
                    raise message
                yield message
        finally:
            self.left += 1

    def put(self, *messages: Message | OpsError) -> None:
        for message in messages:
            self.messages.put_nowait(message)


class Scene:
    """A loop's traces, as its session has them."""

    loop_id = "alpha"

    def __init__(self, root: Path) -> None:
        self.paths = loop_files(str(root), "alpha")
        self.script = ScriptedSource()
        self.source = cast("Source", self.script)
        self.loop = LiveLoop(cast("Any", _Settings()), Known(), 0.0)
        self.told: list[tuple[object, object]] = []
        self.loop.note = self._note  # type: ignore[method-assign]
        self.desk = TraceDesk()
        self.traces = LoopTraces(self, TraceStore(self.paths, "alpha"), self.desk)

    def _note(self, record: Record, now: float) -> None:
        self.told.append((record.detail["active"], record.detail.get("cause")))

    def changed(self) -> None:
        """Nobody looks."""

    def now(self) -> float:
        return time.time()

    @property
    def stored(self) -> int:
        path = Path(self.paths.runtime_traces)
        return path.read_bytes().count(b"\n") if path.is_file() else 0

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - of threads and files, which set no event
                await asyncio.sleep(0.005)


class _Settings:
    """What a LiveLoop asks of its settings before anything came."""

    loop_id = "alpha"
    trace_id = "t"


def play(root: Path, story: Callable[[Scene], Coroutine[Any, Any, None]]) -> Scene:
    async def run() -> Scene:
        scene = Scene(root)
        await story(scene)
        await scene.traces.leave(0.5)
        await scene.traces.settle()
        await scene.desk.close()
        return scene

    return asyncio.run(run())


def test_stream_is_open_while_marks_change_and_closed_when_it_is_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_QUIET_SECONDS", 0.0)

    async def story(scene: Scene) -> None:
        script = scene.script
        scene.traces.heard(scene.source, 0)
        await asyncio.sleep(0)
        assert script.asked == []
        scene.traces.heard(scene.source, 7)
        script.put(opened(), batch(1, 3))
        await scene.until(lambda: scene.stored == 3)
        # Between two messages a heartbeat told of more, which may not have come by this bookmark.
        scene.traces.heard(scene.source, 8)
        script.put(bookmark(), bookmark())
        await scene.until(lambda: script.left == 1)
        assert script.messages.empty()
        scene.traces.heard(scene.source, 8)
        await asyncio.sleep(0)
        assert script.asked == [0]
        scene.traces.heard(scene.source, 9)
        await scene.until(lambda: script.asked == [0, 3])

    assert play(tmp_path, story).told == []


def test_what_was_read_to_its_end_is_not_asked_for_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_QUIET_SECONDS", 0.0)

    async def before(scene: Scene) -> None:
        scene.traces.heard(scene.source, 7)
        scene.script.put(opened(), batch(1, 3), bookmark())
        await scene.until(lambda: scene.script.left)

    async def after(scene: Scene) -> None:
        scene.traces.heard(scene.source, 7)
        await asyncio.sleep(0.02)
        assert scene.script.asked == []
        scene.traces.heard(scene.source, 8)
        await scene.until(lambda: scene.script.asked == [3])

    play(tmp_path, before)
    play(tmp_path, after)


def test_lines_that_are_no_events_are_counted(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        scene.traces.heard(scene.source, 7)
        scene.script.put(
            opened(), Message(file="t", invalid_line=sprite_pb2.InvalidLine(line=1)), batch(1, 1)
        )
        await scene.until(lambda: scene.traces.size)

    assert play(tmp_path, story).loop.counts.trace_failures == 1


def test_what_is_gathered_when_a_session_ends_is_stored(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        scene.traces.heard(scene.source, 7)
        scene.script.put(opened(), batch(1, 3))
        await scene.until(lambda: scene.traces.size)

    scene = play(tmp_path, story)
    assert (scene.stored, scene.loop.counts.trace_lines) == (3, 3)


def test_stream_waits_when_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROOM_BYTES", 1000)

    async def story(scene: Scene) -> None:
        path = Path(scene.paths.runtime_traces)
        scene.traces.heard(scene.source, 7)
        scene.script.put(opened(), batch(1, 1))
        await scene.until(lambda: scene.stored)
        path.unlink()
        path.mkdir()
        scene.script.put(*(batch(number, number) for number in range(2, 32)))
        await scene.until(lambda: scene.loop.counts.trace_failures)
        waiting = scene.script.messages.qsize()
        assert waiting > 20
        assert scene.traces.size < 1500
        path.rmdir()
        await scene.until(lambda: scene.stored == 30)
        await scene.until(lambda: len(scene.told) == 2)

    assert play(tmp_path, story).told == [(True, "telemetry_unwritable"), (False, None)]


def test_lost_stream_is_told_once_the_connection_proves_to_be_well(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        scene.traces.heard(scene.source, 7)
        scene.script.put(opened(), batch(1, 1), OpsError("stream_broken", "gone"))
        await scene.until(lambda: scene.script.left == 1)
        assert scene.told == []
        while len(scene.script.asked) < 2:
            scene.traces.heard(scene.source, 7)
            await asyncio.sleep(0.01)
        scene.script.put(opened(), bookmark())
        await scene.until(lambda: len(scene.told) == 2)
        assert scene.script.asked == [0, 1]

    scene = play(tmp_path, story)
    assert scene.told == [(True, "stream_broken"), (False, None)]
    assert scene.loop.counts.trace_failures == 1


def test_lost_connection_is_none_of_its_troubles(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        scene.traces.heard(scene.source, 7)
        scene.script.put(opened())
        await scene.until(lambda: scene.script.asked)
        scene.script.put(OpsError("stream_broken", "gone"))
        await scene.until(lambda: scene.script.left == 1)
        await scene.traces.leave(0.5)
        scene.traces.heard(scene.source, 7)

    assert play(tmp_path, story).told == []


def test_agent_without_traces_is_asked_once_a_connection(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        scene.script.put(OpsError("unsupported_method", "older"))
        for mark in (7, 8, 9):
            scene.traces.heard(scene.source, mark)
            await asyncio.sleep(0.02)
        assert scene.script.asked == [0]
        await scene.traces.leave(0.5)
        scene.traces.heard(scene.source, 9)
        await scene.until(lambda: len(scene.script.asked) == 2)

    scene = play(tmp_path, story)
    assert (scene.told, scene.loop.counts.trace_failures) == ([], 0)


def test_stream_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STUCK_SECONDS", 0.02)

    async def story(scene: Scene) -> None:
        scene.traces.heard(scene.source, 7)
        await scene.until(lambda: scene.script.asked)
        await asyncio.sleep(0.03)
        scene.traces.heard(scene.source, 7)
        await scene.until(lambda: scene.script.left == 1)
        scene.traces.heard(scene.source, 7)

    assert play(tmp_path, story).told == [(True, "deadline_exceeded")]


def test_damaged_cursor_is_told_and_loses_no_stored_line(tmp_path: Path) -> None:
    paths = loop_files(str(tmp_path), "alpha")
    TraceStore(paths, "alpha").write([span(1)], {})
    Path(paths.traces_cursor).write_text("{}")

    async def story(scene: Scene) -> None:
        scene.traces.heard(scene.source, 7)
        scene.script.put(opened(), batch(1, 3))
        await scene.until(lambda: scene.stored == 4)

    assert play(tmp_path, story).told == [(True, "cursor_invalid"), (False, None)]


def test_nothing_is_written_into_a_directory_that_is_another_by_now(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        scene.traces.heard(scene.source, 7)
        scene.script.put(opened(), batch(1, 3))
        await scene.until(lambda: scene.traces.size)
        scene.traces.halt()

    assert play(tmp_path, story).stored == 0


def test_agent_that_knows_no_traces_is_no_failure(tmp_path: Path) -> None:
    async def run() -> None:
        server = grpc.aio.server()
        endpoint = Endpoint(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", "token")
        await server.start()
        link = Link(endpoint)
        with pytest.raises(OpsError) as failure:
            await anext(link.traces("alpha", [], bookmark_seconds=60.0))
        assert failure.value.reason == "unsupported_method"
        await link.close()
        transport = GrpcTransport(endpoint, Retry())
        paths = loop_files(str(tmp_path), "alpha")
        assert await asyncio.to_thread(drain, paths, transport, "alpha") is None
        transport.close()
        await server.stop(None)

    asyncio.run(run())
