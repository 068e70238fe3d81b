"""Following: what is appended arrives at once, and whatever happens to the log is told."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from superloop.ops.v1 import sprite_pb2_grpc
from tests.harness.agents import Message, StartAgent
from tests.harness.loops import LoopFiles, Repo, event, events
from tests.harness.streams import (
    EventStream,
    Reset,
    check_stream,
    kinds,
    place,
    raw_events,
    until,
    until_end_of,
    until_line,
    watch,
)
from tests.harness.waiting import wait_for

Stub = sprite_pb2_grpc.SpriteServiceStub
MakeLoop = Callable[..., LoopFiles]
# Well below the safety poll of a second: what comes this fast came by notice.
SOON = 0.5


def following(stub: Stub, loop: LoopFiles, **members: Any) -> EventStream:
    """A stream that stays."""
    return watch(stub, loop.loop_id, follow=True, **members)


def test_appended_line_arrives_at_once(stub: Stub, make_loop: MakeLoop) -> None:
    loop = make_loop(events(1, 2))
    stream = following(stub, loop)
    messages = until(stream, "bookmark")
    for number in range(3, 8):
        started = time.monotonic()
        loop.append(event(number))
        messages += until_line(stream, number)
        assert time.monotonic() - started < SOON
    check_stream(messages, events(1, 7))
    stream.cancel()


def test_stream_stays_open_and_says_that_it_follows(stub: Stub, make_loop: MakeLoop) -> None:
    stream = following(stub, make_loop())
    messages = until(stream, "bookmark")
    assert messages[0].opened.follow
    assert stream.is_active()
    stream.cancel()


def test_idle_stream_gets_bookmarks_at_its_interval(stub: Stub, make_loop: MakeLoop) -> None:
    loop = make_loop(events(1, 2))
    stream = following(stub, loop, bookmark_interval=Duration(seconds=1))
    first = until(stream, "bookmark")[-1]
    (later,) = until(stream, "bookmark")
    assert later.bookmark.position == place(events(1, 2))
    # The snapshot travels only when it changed.
    assert first.bookmark.HasField("snapshot")
    assert not later.bookmark.HasField("snapshot")
    gap = later.sent_at.ToNanoseconds() - first.sent_at.ToNanoseconds()
    assert 0.9e9 < gap < 2.5e9
    stream.cancel()


def test_changed_state_file_brings_a_bookmark_without_an_event(stub: Stub, make_loop: MakeLoop) -> None:
    loop = make_loop(events(1, 2))
    stream = following(stub, loop, bookmark_interval=Duration(seconds=60))
    until(stream, "bookmark")
    started = time.monotonic()
    loop.put("approval.json", {"status": "pending"})
    (message,) = until(stream, "bookmark")
    assert time.monotonic() - started < SOON
    assert message.bookmark.snapshot.run.status == "awaiting_approval"
    assert message.bookmark.position == place(events(1, 2))
    stream.cancel()


def test_torn_line_is_held_back_until_its_newline(stub: Stub, make_loop: MakeLoop) -> None:
    loop = make_loop(event(1))
    stream = following(stub, loop)
    until(stream, "bookmark")
    line = event(2, message="x" * 9000)
    for at in range(0, len(line) - 1, 4096):
        loop.append(line[at : min(at + 4096, len(line) - 1)])
    loop.append(b"\n" + event(3))
    messages = until_line(stream, 3)
    assert [number for number, _ in raw_events(messages)] == [2, 3]
    stream.cancel()


@pytest.mark.parametrize(
    ("fresh", "reason"),
    [
        (events(5, 9), Reset.REASON_REPLACED),
        (event(9), Reset.REASON_REPLACED),
        (events(1, 2) + events(7, 9), Reset.REASON_REWRITTEN),
        (events(1, 2), Reset.REASON_TRUNCATED),
    ],
    ids=["another run", "another, shorter", "history rewritten", "cut short"],
)
@pytest.mark.parametrize("way", ["renamed over", "deleted and made anew", "written in place"])
def test_log_that_becomes_another_is_told_and_sent_whole(
    stub: Stub, make_loop: MakeLoop, fresh: bytes, reason: int, way: str
) -> None:
    data = events(1, 4)
    loop = make_loop(data)
    stream = following(stub, loop)
    until(stream, "bookmark")
    if way == "renamed over":
        loop.replace(fresh)
    elif way == "deleted and made anew":
        loop.log.unlink()
        loop.log.write_bytes(fresh)
    else:
        with loop.log.open("r+b") as file:
            # One write, then the cut: a log is never empty for a moment here, which would be another case.
            file.write(fresh)
            file.truncate()
    last = fresh.count(b"\n")
    messages = until_end_of(stream, fresh)
    resets = [message.log_reset for message in messages if message.HasField("log_reset")]
    if way == "renamed over":
        assert [reset.reason for reset in resets] == [reason]
        assert resets[0].requested == place(data)
    else:
        # What lies between may be met half done; but the last word is the whole fresh log.
        assert resets
    at = max(number for number, kind in enumerate(kinds(messages)) if kind == "log_reset")
    check_stream(messages[at + 1 :], fresh)
    loop.append(event(99))
    messages = until_line(stream, last + 1)
    assert raw_events(messages)[-1] == (last + 1, event(99)[:-1].decode())
    stream.cancel()


def test_log_that_is_deleted_is_waited_for(stub: Stub, make_loop: MakeLoop) -> None:
    loop = make_loop(events(1, 3))
    stream = following(stub, loop)
    until(stream, "bookmark")
    loop.log.unlink()
    # Long enough for the agent to look at the missing file several times.
    for number in range(5):
        loop.put("approval.json", {"round": number})
        time.sleep(0.05)
    loop.append(events(21, 22))
    messages = until_line(stream, 2)
    assert "log_reset" in kinds(messages)
    assert [raw for _, raw in raw_events(messages)] == events(21, 22).decode().splitlines()
    stream.cancel()


def test_whole_loop_directory_may_be_made_anew(stub: Stub, make_loop: MakeLoop) -> None:
    loop = make_loop(events(1, 3))
    stream = following(stub, loop)
    until(stream, "bookmark")
    shutil.rmtree(loop.directory)
    os.mkdir(loop.directory)
    loop.append(events(31, 32))
    messages = until_line(stream, 2)
    assert messages[-1].batch.end_digest == place(events(31, 32)).digest
    loop.append(event(33))
    assert raw_events(until_line(stream, 3))[-1][0] == 3
    stream.cancel()


def test_event_limit_ends_a_following_stream(stub: Stub, make_loop: MakeLoop) -> None:
    loop = make_loop(event(1))
    stream = following(stub, loop, max_events=3)
    until(stream, "bookmark")
    loop.append(events(2, 6))
    messages = until(stream, "goodbye")
    assert [line for line, _ in raw_events(messages)] == [2, 3]
    assert kinds(messages)[-2:] == ["bookmark", "goodbye"]
    assert messages[-2].bookmark.position == place(events(1, 3))
    assert messages[-1].goodbye.reason == "max_events_reached"


def test_many_followers_of_one_log_each_get_every_line_once(stub: Stub, make_loop: MakeLoop) -> None:
    loop = make_loop(events(1, 50))
    streams = [following(stub, loop) for _ in range(20)]
    found = [until(stream, "bookmark") for stream in streams]
    for number in range(51, 151):
        loop.append(event(number))
    for stream, messages in zip(streams, found, strict=True):
        messages += until_line(stream, 150)
        check_stream(messages, events(1, 150))
        assert [line for line, _ in raw_events(messages)] == list(range(1, 151))
        stream.cancel()


def test_writers_at_work_are_followed_to_the_last_line(stub: Stub, make_loop: MakeLoop) -> None:
    """Several writers append torn lines at once; what the file holds in the end is what arrived."""
    loop = make_loop()
    stream = following(stub, loop)

    def write(writer: int) -> None:
        for number in range(60):
            line = event(number, message=f"{writer}" * 5000)
            loop.append(line[:4096])
            loop.append(line[4096:])

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(3)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    loop.append(b"\n" + event(0, "the_end"))
    data = loop.log.read_bytes()
    messages = until_line(stream, data.count(b"\n"))
    check_stream(messages, data)
    assert raw_events(messages)[-1][1] == event(0, "the_end")[:-1].decode()
    stream.cancel()


def test_log_that_stays_away_ends_the_stream_with_a_reason(
    repo: Repo, start: StartAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, since nobody wants to wait for the patience of a real agent."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from sprite_agent.changes import ChangeHub
    from sprite_agent.drain import Drain
    from sprite_agent.heartbeat import HeartbeatSource
    from sprite_agent.lag import LagProbe
    from sprite_agent.runtime.repository import Repository
    from sprite_agent.services import following as following_module
    from sprite_agent.services.sprite import SpriteService
    from superloop.ops.v1 import sprite_pb2

    monkeypatch.setattr(following_module, "LOG_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(following_module, "SAFETY_POLL_SECONDS", 0.05)
    loop = repo.loop("alpha", events(1, 2))

    class Context:
        def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
            return ()

    async def run() -> list[Message]:
        hub = ChangeHub()
        repository = Repository(str(repo.root))
        with ThreadPoolExecutor(1) as pool:
            service = SpriteService(
                repository, hub, HeartbeatSource(repository, LagProbe()), Drain(hub.wake_all), pool
            )
            request = sprite_pb2.WatchEventsRequest(loop_id="alpha", follow=True)
            messages = []
            async with asyncio.timeout(10):
                async for message in service.WatchEvents(request, Context()):
                    messages.append(message)
                    if message.HasField("bookmark") and loop.log.exists():
                        loop.log.unlink()
        hub.close()
        repository.close()
        return messages

    messages = asyncio.run(run())
    assert messages[-1].goodbye.reason == "log_unavailable"
    assert messages[-1].goodbye.retry_after.ToMilliseconds() > 0


def test_agent_without_notices_still_sees_every_change(
    repo: Repo, start: StartAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks each second then, and two followers do not hide lines from each other."""
    limit = "/proc/sys/fs/inotify/max_user_instances"
    if not os.path.exists(limit):
        pytest.skip("no inotify here")
    loop = repo.loop("alpha", events(1, 2))
    hook = repo.root.parent / "sitecustomize.py"
    hook.write_text("import sys\nsys.modules['inotify_simple'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(hook.parent))
    agent = start()
    with agent.stub() as stub:
        streams = [following(stub, loop, bookmark_interval=Duration(seconds=60)) for _ in range(2)]
        for stream in streams:
            until(stream, "bookmark")
        started = time.monotonic()
        loop.append(event(3))
        for stream in streams:
            assert raw_events(until_line(stream, 3))[-1][0] == 3
        assert time.monotonic() - started < 4
        for stream in streams:
            stream.cancel()


def test_cancelled_followers_are_forgotten(repo: Repo, start: StartAgent) -> None:
    loop = repo.loop("alpha", events(1, 2))
    agent = start()
    with agent.stub() as stub:
        for _ in range(2):
            for stream in [following(stub, loop) for _ in range(100)]:
                until(stream, "bookmark")
                stream.cancel()
        settled = agent.rss_bytes
        for _ in range(4):
            for stream in [following(stub, loop) for _ in range(100)]:
                until(stream, "bookmark")
                stream.cancel()
        assert agent.rss_bytes - settled < 12 << 20
    agent.signal()
    started = time.monotonic()
    assert agent.wait() == 0
    assert time.monotonic() - started < 3
    assert "Traceback" not in agent.said()
    wait_for(lambda: "cut off" not in agent.said())
