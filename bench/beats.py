"""Bare streams, to compare a manager with: `python -m bench.beats serve | read TARGET COUNT SETTLE SECONDS`.

The server sends 100 bytes each five seconds on every stream. The reader has a channel and a stream for each
of COUNT sprites and reads, nothing else; after SETTLE seconds it tells what the next SECONDS cost it.
"""

import asyncio
import itertools
import resource
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import psutil

from bench import processes, sprites
from bench.receiver import tell

_BEATS = "/bench.Beats/Beats"
_BEAT = b"b" * 100
_SECONDS = 5.0
_STREAMS = itertools.count()
# Connections being opened at one time.
_OPENING = 100


async def _beats(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
    # Evenly spread over the period, not as the streams were opened, which is within a second.
    due = time.monotonic() + next(_STREAMS) * sprites.SPREAD % 1 * _SECONDS
    while True:
        yield _BEAT
        await asyncio.sleep(due - time.monotonic())
        due += _SECONDS


async def _serve() -> None:
    server = grpc.aio.server(options=sprites.MANY)
    _, name, method = _BEATS.split("/")
    handlers: dict[str, Any] = {method: grpc.unary_stream_rpc_method_handler(_beats)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    port = server.add_insecure_port("0.0.0.0:0")
    await server.start()
    tell({"ready": True, "grpc": f"127.0.0.1:{port}"})
    await server.wait_for_termination()


async def _read(target: str, opening: asyncio.Semaphore, opened: asyncio.Event) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        open_call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(_BEATS)
        call = open_call(b"")
        async with opening:
            await call.read()
        opened.set()
        while await call.read() is not grpc.aio.EOF:
            pass


async def _fan_in(target: str, count: int, settle: float, seconds: float) -> None:
    port = int(target.rpartition(":")[2])
    opening = asyncio.Semaphore(_OPENING)
    opened = [asyncio.Event() for _ in range(count)]
    async with asyncio.TaskGroup() as tasks:
        readers = [
            tasks.create_task(_read(sprites.target(number, port), opening, event))
            for number, event in enumerate(opened)
        ]
        for event in opened:
            await event.wait()
        await asyncio.sleep(settle)
        before, began = _cpu_seconds(), time.monotonic()
        await asyncio.sleep(seconds)
        cpu = (_cpu_seconds() - before) / (time.monotonic() - began)
        tell({"cpu": cpu, "rss": psutil.Process().memory_info().rss})
        for reader in readers:
            reader.cancel()


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    processes.raise_descriptor_limit()
    if sys.argv[1] == "serve":
        asyncio.run(_serve())
    else:
        target, count, settle, seconds = sys.argv[2:]
        asyncio.run(_fan_in(target, int(count), float(settle), float(seconds)))


if __name__ == "__main__":
    main()
