"""Clients that are slow on purpose, or too many: no connection is held for ever."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from starlette.types import Receive, Scope, Send

from sprite_agent.http import connection as connections
from sprite_agent.http import listener as module
from sprite_agent.http.answers import json_answer
from sprite_agent.http.calls import LET_IN
from sprite_agent.http.listener import Listener
from sprite_agent.limits import Limits
from sprite_agent.security import parse_address

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
# No wait of a test takes longer unless something is broken.
SECONDS = 10.0
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def short(scope: Scope, receive: Receive, send: Send) -> None:
    await json_answer({"ok": True})(scope, receive, send)


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    answer = json_answer("x" * 50_000_000)
    await answer(scope, receive, send)


@asynccontextmanager
async def serving(
    app: Application, limits: Limits | None = None
) -> AsyncIterator[Callable[[], Awaitable[Streams]]]:
    """A listener, and a way to connect to it."""
    listener = Listener(app, parse_address("127.0.0.1:0", field="--http"), limits)
    await listener.start()
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> Streams:
        host, _, port = listener.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writers.append(writer)
        return reader, writer

    try:
        async with asyncio.timeout(SECONDS):
            yield connect
    finally:
        for writer in writers:
            writer.close()
        await listener.stop()
        await listener.stop()  # changes nothing


async def rest(reader: asyncio.StreamReader) -> bytes:
    """All that comes before the end, however it ends."""
    data = b""
    try:
        while piece := await reader.read(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


async def test_a_connection_that_never_asks_is_closed() -> None:
    async with serving(short, Limits(request_seconds=0.05)) as connect:
        reader, _ = await connect()
        assert await rest(reader) == b""


async def test_a_head_that_trickles_in_is_cut_off() -> None:
    async with serving(short, Limits(request_seconds=0.05)) as connect:
        reader, writer = await connect()
        for request in (REQUEST, REQUEST):  # the time begins anew with each request
            writer.write(request)
            assert await reader.readuntil(b"}") != b""
        ended = asyncio.create_task(rest(reader))
        while not ended.done():
            writer.write(b"G")
            await asyncio.sleep(0.005)
        assert await ended == b""


async def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_ALIVE_SECONDS", 0.05)
    async with serving(short) as connect:
        reader, writer = await connect()
        writer.write(REQUEST)
        assert (await rest(reader)).endswith(b'{"ok":true}')


async def test_a_reader_that_stands_still_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_STALLED_SECONDS", 0.05)
    async with serving(endless) as connect:
        reader, writer = await connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a socket's
        writer.write(REQUEST)
        await asyncio.sleep(0.3)  # longer than it may stand still
        writer.transport.resume_reading()  # type: ignore[attr-defined]  # it is a socket's
        assert len(await rest(reader)) < 50_000_000


async def test_one_connection_too_many_is_told_so_while_all_are_answered() -> None:
    begun, go = asyncio.Semaphore(0), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"][LET_IN] = True
        begun.release()
        await go.wait()
        await short(scope, receive, send)

    async with serving(slow, Limits(http_connections=2)) as connect:
        busy = [await connect(), await connect()]
        for _, writer in busy:
            writer.write(REQUEST)
            await begun.acquire()
        reader, _ = await connect()
        refused = await rest(reader)
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b'"code":"too_many_streams"' in refused
        go.set()
        for reader, _ in busy:
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")


async def test_connections_that_ask_nothing_keep_nobody_out() -> None:
    async with serving(short, Limits(http_connections=2)) as connect:
        first, silent = await connect(), await connect()
        silent[1].write(b"GET / HT")
        first[1].write(REQUEST)  # since when it has been idle for the shorter time
        await first[0].readuntil(b"}")
        reader, writer = await connect()
        writer.write(REQUEST)
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
        assert await rest(silent[0]) == b""
        first[1].write(REQUEST)
        assert (await first[0].readuntil(b"}")).startswith(b"HTTP/1.1 200 ")


async def test_what_is_under_way_at_the_end_is_finished() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await go.wait()
        await short(scope, receive, send)

    listener = Listener(slow, parse_address("127.0.0.1:0", field="--http"))
    await listener.start()
    host, _, port = listener.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(REQUEST)
    await begun.wait()
    ending = asyncio.create_task(listener.stop())
    await asyncio.sleep(0)
    go.set()
    assert (await rest(reader)).endswith(b'{"ok":true}')
    await ending
    writer.close()


async def test_what_does_not_end_is_cancelled_and_gives_back_what_it_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LAST_SECONDS", 0.05)
    begun, given_back = asyncio.Event(), asyncio.Event()

    async def stuck(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            given_back.set()

    listener = Listener(stuck, parse_address("127.0.0.1:0", field="--http"))
    await listener.start()
    host, _, port = listener.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(REQUEST)
    await begun.wait()
    await listener.stop()
    assert given_back.is_set()
    await rest(reader)
    writer.close()
