"""Many subscribers of one agent in one process: `python -m tests.harness.subscribers ADDRESS LINES`.

Prints a line of JSON when all streams are open, and another when every reader has what it waits for; ends
with its standard input, as a process that is killed does. On each connection some readers of each kind sit
beside streams that nobody reads.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

import grpc

from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc
from tests.harness.agents import BEARER

CONNECTIONS = 20
# Streams of each connection.
FOLLOWERS = 10
LISTENERS = 35
STALLED = 5
SUBSCRIBERS = CONNECTIONS * (FOLLOWERS + LISTENERS + STALLED)
LOOP_ID = "alpha"
_HEARTBEATS = 3


class Crowd:
    """The streams, and what their readers found."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._open = 0
        self._stalled: list[object] = []
        self.all_open = asyncio.Event()
        self.digests: list[str] = []

    async def follow(self, stub: sprite_pb2_grpc.SpriteServiceStub) -> None:
        """Read every line, and fail on the first that does not follow the one before it."""
        request = sprite_pb2.WatchEventsRequest(loop_id=LOOP_ID, follow=True)
        line = 0
        call: Any = stub.WatchEvents(request, metadata=BEARER)
        async for message in call:
            if message.HasField("opened"):
                self._opened()
            if message.HasField("batch"):
                numbers = [event.line for event in message.batch.events]
                if numbers != list(range(line + 1, message.batch.last_line + 1)):
                    raise RuntimeError(f"after line {line}: {numbers}")
                line = message.batch.last_line
                if line >= self._lines:
                    self.digests.append(message.batch.end_digest.hex())
                    return

    async def listen(self, stub: sprite_pb2_grpc.SpriteServiceStub) -> None:
        """Take some heartbeats."""
        request = sprite_pb2.WatchHeartbeatsRequest(loop_id=LOOP_ID)
        request.interval.seconds = 1
        count = 0
        call: Any = stub.WatchHeartbeats(request, metadata=BEARER)
        async for message in call:
            count += 1
            if message.heartbeat.sequence != count:
                raise RuntimeError(f"heartbeat {count} is numbered {message.heartbeat.sequence}")
            if count == 1:
                self._opened()
            if count == _HEARTBEATS:
                return

    async def stall(self, stub: sprite_pb2_grpc.SpriteServiceStub) -> None:
        """Open a stream and never read on."""
        request = sprite_pb2.WatchEventsRequest(loop_id=LOOP_ID, follow=True)
        call: Any = stub.WatchEvents(request, metadata=BEARER)
        self._stalled.append(call)
        await call.read()
        self._opened()

    def _opened(self) -> None:
        self._open += 1
        if self._open == SUBSCRIBERS:
            self.all_open.set()


async def _run(address: str, lines: int) -> None:
    # Small windows, as a manager has, so that who does not read is soon waited for.
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0))
    crowd = Crowd(lines)
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(CONNECTIONS)]
    async with asyncio.TaskGroup() as tasks:
        for channel in channels:
            stub = sprite_pb2_grpc.SpriteServiceStub(channel)
            for kind, count in ((crowd.follow, FOLLOWERS), (crowd.listen, LISTENERS), (crowd.stall, STALLED)):
                for _ in range(count):
                    tasks.create_task(kind(stub))
        await crowd.all_open.wait()
        _tell({"open": SUBSCRIBERS})
        opened = time.monotonic()
    _tell(
        {
            "digests": sorted(set(crowd.digests)),
            "whole": len(crowd.digests),
            "seconds": time.monotonic() - opened,
        }
    )
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)


def _tell(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], int(sys.argv[2])))
