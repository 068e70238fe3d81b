"""A network between a client and a server, which can be made bad while they talk.

A real TCP proxy on an event loop in a thread of its own; every method may be called from any thread, and has
taken effect when it returns. Two directions: "up" is from the client to the server, "down" is back.
"""

import asyncio
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Literal, TypeVar

Direction = Literal["up", "down"]
DIRECTIONS: tuple[Direction, ...] = ("up", "down")

_T = TypeVar("_T")
# The ends of a connection: to the client and to the server.
_Pair = tuple[socket.socket, socket.socket]
_PIECE_BYTES = 256 * 1024
# What a way with latency may hold, a direction of a connection.
_FLIGHT_BYTES = 16 * 1024 * 1024
# Of the proxy's own sockets on a slow way, so that what it has not forwarded stays with the sender.
_SLOW_BUFFER_BYTES = 2048
_TICKS_PER_SECOND = 20
_ANSWER_SECONDS = 10.0


class Way:
    """One direction of all connections: how bytes go, and how many did."""

    def __init__(self) -> None:
        self.rate = 0.0
        self.latency = 0.0
        self.bytes = 0
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._turn = asyncio.Lock()

    @property
    def piece(self) -> int:
        """How much to read at once."""
        return max(1, int(self.rate / _TICKS_PER_SECOND)) if self.rate else _PIECE_BYTES

    async def take(self, size: int) -> None:
        """Wait as long as so many bytes take: the rate is that of all connections together."""
        if self.rate:
            async with self._turn:
                await asyncio.sleep(size / self.rate if self.rate else 0)
        self.bytes += size


class Proxy:
    """A context manager: listens on `address` while it is open, and forwards to `upstream`, HOST:PORT.

    accepted: connections so far.
    """

    def __init__(self, upstream: str) -> None:
        self.accepted = 0
        self._upstream = _parse(upstream)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="proxy", daemon=True)
        self._listener = _listener(("127.0.0.1", 0))
        self._where: tuple[str, int] = self._listener.getsockname()
        self._accepting: asyncio.Task[None] | None = None
        self._served: dict[_Pair, asyncio.Task[None]] = {}
        self._slow = False

    def __enter__(self) -> "Proxy":
        self._thread.start()
        assert self._ready.wait(_ANSWER_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(_ANSWER_SECONDS)
        assert not self._thread.is_alive()

    @property
    def address(self) -> str:
        """Where clients connect, HOST:PORT."""
        host, port = self._where
        return f"{host}:{port}"

    @property
    def url(self) -> str:
        """As `--service-base-url` takes it."""
        return f"grpc://{self.address}"

    @property
    def open(self) -> int:
        """Connections that are open."""
        return len(self._served)

    def forwarded(self, direction: Direction) -> int:
        """Bytes that have left the proxy in a direction."""
        return self._ways[direction].bytes

    def retarget(self, upstream: str) -> None:
        """New connections go to another server; open ones stay."""
        self._upstream = _parse(upstream)

    def cut(self, *, reset: bool = True) -> int:
        """End all connections, with RST or else with FIN; how many there were."""

        async def cut() -> int:
            served = dict(self._served)
            for pair, task in served.items():
                if reset:
                    for end in pair:
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                task.cancel()
            await asyncio.gather(*served.values(), return_exceptions=True)
            return len(served)

        return self._do(cut)

    def refuse(self, refuses: bool = True) -> None:
        """Take no new connections: they are refused as by a machine where nobody listens."""

        async def switch() -> None:
            if refuses and self._accepting is not None:
                accepting, self._accepting = self._accepting, None
                accepting.cancel()
                await asyncio.gather(accepting, return_exceptions=True)
                self._listener.close()
            elif not refuses and self._accepting is None:
                self._listener = _listener(self._where)
                self._accepting = self._start(self._accept())

        self._do(switch)

    def hold(self, *directions: Direction) -> None:
        """Half-open: from now on nothing is forwarded in these directions, both by default; nothing ends."""

        async def hold() -> None:
            for direction in directions or DIRECTIONS:
                self._ways[direction].flowing.clear()

        self._do(hold)

    def release(self) -> None:
        """What was held goes on."""

        async def release() -> None:
            for way in self._ways.values():
                way.flowing.set()

        self._do(release)

    def slow(self, bytes_per_second: float) -> None:
        """Forward so much in each direction, all connections together; 0: as much as comes."""

        async def slow() -> None:
            self._slow = bytes_per_second > 0
            for way in self._ways.values():
                way.rate = bytes_per_second
            if self._slow:
                for pair in self._served:
                    for end in pair:
                        _shrink(end)

        self._do(slow)

    def delay(self, seconds: float) -> None:
        """Deliver each byte so much later, in each direction; the throughput stays."""

        async def delay() -> None:
            for way in self._ways.values():
                way.latency = seconds

        self._do(delay)

    # --- in the thread ------------------------------------------------------------------------------

    def _do(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(_ANSWER_SECONDS)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._ways: dict[Direction, Way] = {"up": Way(), "down": Way()}
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = self._start(self._accept())
        self._ready.set()
        await self._ended.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listener.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self) -> None:
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            self.accepted += 1
            # A task that is cancelled before its first step closes nothing.
            self._start(self._serve(client)).add_done_callback(partial(_close, client))

    async def _serve(self, client: socket.socket) -> None:
        with client, socket.socket() as server:
            pair = client, server
            for end in pair:
                end.setblocking(False)
                if self._slow:
                    _shrink(end)
            task = asyncio.current_task()
            assert task is not None
            self._served[pair] = task
            try:
                await self._loop.sock_connect(server, self._upstream)
                for end in pair:
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._relay(client, server, self._ways["up"]))
                    group.create_task(self._relay(server, client, self._ways["down"]))
            except* (OSError, EOFError):
                pass  # an end of it is gone, and so the other
            finally:
                del self._served[pair]

    async def _relay(self, source: socket.socket, sink: socket.socket, way: Way) -> None:
        """Forward until an end closes; then both are closed."""
        flight: deque[tuple[float, bytes]] = deque()
        landed, left = asyncio.Event(), asyncio.Event()
        in_flight = 0

        async def deliver() -> None:
            nonlocal in_flight
            while True:
                while not flight:
                    landed.clear()
                    await landed.wait()
                due, data = flight.popleft()
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await way.flowing.wait()
                if not data:
                    raise EOFError
                await self._loop.sock_sendall(sink, data)
                in_flight -= len(data)
                left.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(deliver())
            while True:
                await way.flowing.wait()
                while in_flight > _FLIGHT_BYTES:
                    left.clear()
                    await left.wait()
                data = await self._loop.sock_recv(source, way.piece)
                await way.take(len(data))
                in_flight += len(data)
                flight.append((time.monotonic() + way.latency, data))
                landed.set()
                if not data:
                    break


def _close(end: socket.socket, _task: "asyncio.Task[None]") -> None:
    end.close()


def _parse(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _listener(where: tuple[str, int]) -> socket.socket:
    listener = socket.create_server(where, backlog=1024)
    listener.setblocking(False)
    return listener


def _shrink(end: socket.socket) -> None:
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        end.setsockopt(socket.SOL_SOCKET, option, _SLOW_BUFFER_BYTES)
