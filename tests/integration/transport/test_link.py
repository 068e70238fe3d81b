"""One connection to an agent under the streams of a session, over a network that goes bad."""

import asyncio
import gc
import re
import time
import urllib.request
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import grpc
import pytest

from manager.transport.base import Endpoint
from manager.transport.link import PATIENT_BATCH_BYTES, Link
from spritemesh.errors import OpsError
from superloop.ops.v1 import envelope_pb2 as pb
from tests.harness.agents import TOKEN, Agent, Message, StartAgent
from tests.harness.loops import LoopFiles, event, events
from tests.harness.proxy import Proxy
from tests.harness.streams import check_stream, kinds, place, raw_events
from tests.harness.waiting import wait_for


@pytest.fixture
def agent(loop: LoopFiles, start: StartAgent) -> Agent:
    """An agent whose loop alpha has 50 events; it tells of its streams."""
    loop.append(events(1, 50))
    return start("--metrics", "127.0.0.1:0")


@pytest.fixture
def proxy(agent: Agent) -> Iterator[Proxy]:
    """The network before it."""
    with Proxy(agent.address) as found:
        yield found


@asynccontextmanager
async def linked(to: Proxy | str, token: str = TOKEN, *, patient: bool = False) -> AsyncIterator[Link]:
    """A link; when it is closed nothing of it runs any more."""
    address = to if isinstance(to, str) else to.address
    link = Link(Endpoint(address, token), patient=patient)
    others = asyncio.all_tasks()
    try:
        yield link
    finally:
        await link.close()
    left = asyncio.all_tasks() - others
    if left:
        await asyncio.wait(left, timeout=1)
    assert [task for task in left if not task.done()] == []


def watch(link: Link, after: pb.LogPosition | None = None, *, batch: int = 0) -> Any:
    """A stream of the loop alpha, with a bookmark each second."""
    return link.events("alpha", after, trace_id=None, bookmark_seconds=1.0, max_batch_bytes=batch)


async def until(stream: AsyncIterator[Any], enough: Callable[[Any], bool]) -> list[Any]:
    """Messages up to and including the first with which it is enough."""
    found: list[Any] = []
    async for message in stream:
        found.append(message)
        if enough(message):
            return found
    raise AssertionError(f"the stream ended after {len(found)} messages")


def is_bookmark(message: Message) -> bool:
    return message.HasField("bookmark")


async def error_of(work: Awaitable[Any]) -> tuple[OpsError, float]:
    """The failure of `work`, and after how many seconds it came."""
    started = time.monotonic()
    with pytest.raises(OpsError) as caught:
        await work
    return caught.value, time.monotonic() - started


async def to_the_end(stream: AsyncIterator[Any]) -> list[Any]:
    return [message async for message in stream]


async def until_it_lasts(link: Link) -> None:
    """Try until a stream comes up to its bookmark: the first try may still meet the broken connection."""
    for _ in range(10):
        async with aclosing(watch(link)) as stream:
            try:
                await until(stream, is_bookmark)
            except OpsError:
                continue
            return
    raise AssertionError("the link does not connect again")


def streams_of(agent: Agent) -> int:
    """How many streams the agent serves."""
    url = f"http://{agent.ready['metrics']}/metrics"
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        found = re.search(r"^sprite_agent_streams (\d+)", answer.read().decode(), re.MULTILINE)
    assert found is not None
    return int(found[1])


async def test_events_heartbeats_snapshot_and_clock_come_over_one_connection(
    loop: LoopFiles, agent: Agent, proxy: Proxy
) -> None:
    async with linked(proxy) as link, aclosing(watch(link)) as stream:
        messages = await until(stream, is_bookmark)
        check_stream(messages, loop.log.read_bytes())
        loop.append(event(51))
        messages += await until(stream, lambda message: message.batch.last_line == 51)
        assert [line for line, _ in raw_events(messages)] == list(range(1, 52))
        async with aclosing(link.heartbeats("alpha", interval=0.25)) as beats:
            heartbeats = [await anext(beats) for _ in range(2)]
        assert [beat.sequence for beat in heartbeats] == [1, 2]
        assert heartbeats[0].head.position.line == 51
        assert heartbeats[0].boot_id == messages[0].opened.boot_id
        snapshot = await link.snapshot("alpha", trace_id="trace-1")
        assert snapshot.trace_id == "trace-1"
        sent, told, received = await link.clock("alpha")
        assert sent <= told <= received < sent + 5
        assert proxy.accepted == 1


async def test_a_snapshot_passes_over_a_last_line_that_is_no_event(loop: LoopFiles, agent: Agent) -> None:
    loop.append(b"{garbage\n")
    async with linked(agent.address) as link:
        assert (await link.snapshot("alpha", trace_id=None)).HasField("run")


async def test_a_proxy_of_the_environment_gets_no_token(
    loop: LoopFiles, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with linked(agent.address) as link:
        assert (await link.snapshot("alpha", trace_id=None)).HasField("run")


async def test_a_stream_resumes_after_a_place(loop: LoopFiles, agent: Agent) -> None:
    data = loop.log.read_bytes()
    async with linked(agent.address) as link, aclosing(watch(link, place(data, 30))) as stream:
        messages = await until(stream, is_bookmark)
    check_stream(messages, data, start=30)
    assert "log_reset" not in kinds(messages)


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
async def test_a_cut_connection_is_told_at_once_and_the_next_stream_connects_anew(
    proxy: Proxy, reset: bool
) -> None:
    async with linked(proxy) as link:
        stream, beats = watch(link), link.heartbeats("alpha", interval=1.0)
        await until(stream, is_bookmark)
        await anext(beats)
        assert proxy.cut(reset=reset) == 1
        for broken in (stream, beats):
            error, seconds = await error_of(to_the_end(broken))
            assert error.reason == "agent_unreachable"
            assert seconds < 1
        await until_it_lasts(link)
        assert proxy.accepted == 2


async def test_a_refused_connection_is_told_at_once(proxy: Proxy) -> None:
    proxy.refuse()
    async with linked(proxy) as link:
        for call in (to_the_end(watch(link)), link.snapshot("alpha", trace_id=None), link.clock("alpha")):
            error, seconds = await error_of(call)
            assert error.reason == "agent_unreachable"
            assert seconds < 2


async def test_a_wrong_token_is_told_as_such(proxy: Proxy) -> None:
    async with linked(proxy, "wrong") as link:
        for call in (
            to_the_end(watch(link)),
            to_the_end(link.heartbeats("alpha", interval=1.0)),
            link.snapshot("alpha", trace_id=None),
            link.clock("alpha"),
        ):
            error, _ = await error_of(call)
            assert error.reason == "token_wrong"


async def test_a_missing_loop_is_told_as_the_agent_tells_it(agent: Agent) -> None:
    async with linked(agent.address) as link:
        stream = link.events("nobody", None, trace_id=None, bookmark_seconds=1.0)
        error, _ = await error_of(to_the_end(stream))
    assert error.reason == "loop_not_found"


async def test_bytes_that_are_no_message_are_the_fault_of_the_peer() -> None:
    async def send(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        yield b"\xff"

    async def answer(_request: bytes, _context: Any) -> bytes:
        return b"\xff"

    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "WatchEvents": grpc.unary_stream_rpc_method_handler(send),
        "GetSnapshot": grpc.unary_unary_rpc_method_handler(answer),
    }
    name = "superloop.ops.v1.SpriteService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with linked(f"127.0.0.1:{port}") as link:
        for call in (to_the_end(watch(link)), link.snapshot("alpha", trace_id=None)):
            error, _ = await error_of(call)
            assert error.reason == "service_response_invalid"
        await server.stop(None)


async def test_a_drained_agent_says_goodbye_and_the_streams_end(agent: Agent) -> None:
    async with linked(agent.address) as link:
        stream, beats = watch(link), link.heartbeats("alpha", interval=60.0)
        await until(stream, is_bookmark)
        await anext(beats)
        agent.signal()
        messages, heartbeats = await asyncio.gather(to_the_end(stream), to_the_end(beats))
        assert messages[-1].goodbye.reason == "agent_draining"
        assert [beat.agent.draining for beat in heartbeats] == [True]
    assert agent.wait() == 0


async def test_an_agent_that_is_killed_breaks_the_stream(agent: Agent) -> None:
    async with linked(agent.address) as link:
        stream = watch(link)
        await until(stream, is_bookmark)
        agent.process.kill()
        error, seconds = await error_of(to_the_end(stream))
    assert error.reason == "agent_unreachable"
    assert seconds < 1


async def test_a_reader_that_is_cancelled_gets_its_cancellation_and_the_agent_is_rid_of_it(
    agent: Agent,
) -> None:
    async with linked(agent.address) as link:
        opened = asyncio.Event()

        async def read() -> None:
            async for _ in watch(link):
                opened.set()

        reader = asyncio.create_task(read())
        await opened.wait()
        assert streams_of(agent) == 1
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        wait_for(lambda: not streams_of(agent), what="the agent to end the stream")
        await link.snapshot("alpha", trace_id=None)  # the link itself lives on


async def test_a_stream_that_is_left_early_ends_at_the_agent(agent: Agent) -> None:
    async with linked(agent.address) as link:
        async with aclosing(watch(link)) as stream:
            await anext(stream)
        async with aclosing(link.heartbeats("alpha", interval=1.0)) as beats:
            await anext(beats)
        await link.clock("alpha")
        wait_for(lambda: not streams_of(agent), what="the agent to end the streams")


async def test_closing_ends_what_is_open_with_an_error_for_who_reads(agent: Agent) -> None:
    async with linked(agent.address) as link:
        stream, beats = watch(link), link.heartbeats("alpha", interval=60.0)
        await until(stream, is_bookmark)
        await anext(beats)
        readers = [asyncio.create_task(error_of(to_the_end(found))) for found in (stream, beats)]
        await asyncio.sleep(0)  # lets them wait
        await link.close()
        for error, _ in await asyncio.gather(*readers):
            assert error.reason == "stream_broken"
        error, _ = await error_of(link.snapshot("alpha", trace_id=None))
        assert error.reason == "stream_broken"
        wait_for(lambda: not streams_of(agent), what="the agent to end the streams")


async def test_a_log_follows_its_agent_to_another_port(
    loop: LoopFiles, agent: Agent, proxy: Proxy, start: StartAgent
) -> None:
    async with linked(proxy) as link:
        stream = watch(link)
        first = await until(stream, is_bookmark)
        agent.process.kill()
        await error_of(to_the_end(stream))
        proxy.retarget(start().address)
        async with aclosing(watch(link, first[-1].bookmark.position)) as again:
            second = await until(again, is_bookmark)
    assert second[0].opened.boot_id != first[0].opened.boot_id
    assert raw_events(second) == []


@pytest.mark.parametrize("patient", [False, True])
async def test_half_a_second_each_way_is_only_late(loop: LoopFiles, proxy: Proxy, patient: bool) -> None:
    proxy.delay(0.5)
    async with linked(proxy, patient=patient) as link, aclosing(watch(link)) as stream:
        await until(stream, is_bookmark)
        written = time.monotonic()
        loop.append(event(51))
        await until(stream, lambda message: message.batch.last_line == 51)
        assert 0.5 <= time.monotonic() - written < 2
        assert proxy.accepted == 1


@pytest.mark.timeout(60)
async def test_a_half_open_connection_is_found_within_twenty_seconds(proxy: Proxy) -> None:
    async with linked(proxy) as link, linked(proxy, patient=True) as patient:
        streams = [watch(link), link.heartbeats("alpha", interval=1.0), watch(patient)]
        for stream in streams:
            await anext(stream)
        proxy.hold()
        for error, seconds in await asyncio.gather(*(error_of(to_the_end(stream)) for stream in streams)):
            assert error.reason == "agent_unreachable"
            assert seconds < 20
        # While it lasts no connection comes about, and that is told in time, too.
        error, seconds = await error_of(to_the_end(watch(link)))
        assert error.reason == "agent_unreachable"
        assert seconds < 20


@pytest.mark.timeout(180)
async def test_a_log_comes_completely_over_a_way_of_one_kilobyte_a_second(
    loop: LoopFiles, start: StartAgent
) -> None:
    loop.append(b"".join(event(number, message="x" * 130) for number in range(1, 91)))
    data = loop.log.read_bytes()
    agent = start()
    messages: list[Message] = []
    ages: list[float] = []

    async def hear(link: Link) -> None:
        async for beat in link.heartbeats("alpha", interval=5.0):
            age = time.time() - beat.sent_at.ToNanoseconds() / 1e9
            ages.append(age)

    with Proxy(agent.address) as proxy:
        proxy.slow(1000)
        async with linked(proxy, patient=True) as link, asyncio.TaskGroup() as group:
            hearing = group.create_task(hear(link))
            async with aclosing(watch(link, batch=PATIENT_BATCH_BYTES)) as stream:
                messages += await until(stream, lambda message: message.batch.last_line == 90)
            hearing.cancel()
        assert proxy.accepted == 1
    assert len(data) > 25_000
    check_stream(messages, data)
    # Heartbeats keep coming in between, so that a slow sprite is not taken for a dead one.
    assert max(ages) < 20


async def test_call_that_failed_leaves_nothing_for_the_collector() -> None:
    """What its error knows of its frames, and they of it, would keep the connection open for long."""
    link = Link(Endpoint("127.0.0.1:1", ""))
    known = weakref.ref(link)
    gc.disable()
    try:
        with suppress(OpsError):
            await link.snapshot("alpha", trace_id=None)
        await link.close()
        del link
        # The thread that asked why may know it for a moment more.
        for _ in range(1000):
            if known() is None:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the connection is still known")
    finally:
        gc.enable()
