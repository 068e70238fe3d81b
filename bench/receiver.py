"""A grpc.aio client in its own process: `python -m bench.receiver replay|bare|follow TARGET LOOP COUNT`.

Every line number and every range is checked, as a manager does. The same code receives from the agent
and from the bare stream, so that the comparison is between the senders.
"""

import asyncio
import resource
import sys
import time
from typing import Any

import grpc

from bench import processes, servers
from spritemesh import jsontext
from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc


class Check:
    """Takes the messages of a stream; raises RuntimeError at the first that does not follow."""

    def __init__(self) -> None:
        self.line = 0
        self.events = 0

    def take(self, message: sprite_pb2.WatchEventsResponse) -> str:
        """Kind of the message, after checking it."""
        kind = message.WhichOneof("payload") or ""
        if kind == "batch":
            batch = message.batch
            line = self.line
            if batch.first_line != line + 1 or len(batch.end_digest) != 32:
                raise RuntimeError(f"expected line {line + 1}, got {batch.first_line}")
            for event in batch.events:
                line += 1
                if event.line != line or not event.raw:
                    raise RuntimeError(f"expected line {line}, got {event.line}")
            if batch.last_line != line:
                raise RuntimeError(f"the batch ends at {batch.last_line}, its events at {line}")
            self.events += line - self.line
            self.line = line
        elif kind == "bookmark" and message.bookmark.position.line != self.line:
            raise RuntimeError(f"bookmark at {message.bookmark.position.line}, not {self.line}")
        elif kind in {"invalid_line", "log_reset"}:
            raise RuntimeError(f"unexpected {kind}")
        return kind


def tell(answer: dict[str, Any]) -> None:
    sys.stdout.write(jsontext.encode(answer).decode() + "\n")
    sys.stdout.flush()


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def _replay(call: Any, count: int) -> None:
    """Receive all there is, and tell how long it took."""
    check = Check()
    cpu = _cpu_seconds()
    before = time.perf_counter()
    kind = ""
    async for message in call:
        kind = check.take(message)
    seconds = time.perf_counter() - before
    if kind != "goodbye" or check.events != count:
        raise RuntimeError(f"{check.events} of {count} events, then {kind or 'nothing'}")
    tell({"seconds": seconds, "cpu": _cpu_seconds() - cpu})


async def _follow(call: Any, count: int) -> None:
    """Receive appended lines, and tell how old each was when it was here, in seconds."""
    check = Check()
    ages: list[float] = []
    ready = False
    async for message in call:
        now = time.monotonic_ns()
        kind = check.take(message)
        if kind == "batch":
            for event in message.batch.events:
                written = jsontext.parse(event.raw)["data"]["written_ns"]
                ages.append((now - written) / 1e9)
        elif kind == "bookmark" and not ready:
            # Later ones tell of state files that changed meanwhile.
            ready = True
            tell({"ready": True})
        if len(ages) >= count:
            tell({"ages": ages})
            return


async def _run(mode: str, target: str, loop_id: str, count: int) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        await channel.channel_ready()
        if mode == "bare":
            bare: grpc.aio.UnaryStreamMultiCallable[bytes, sprite_pb2.WatchEventsResponse]
            bare = channel.unary_stream(
                servers.STREAM, response_deserializer=sprite_pb2.WatchEventsResponse.FromString
            )
            await _replay(bare(b""), count)
            return
        stub = sprite_pb2_grpc.SpriteServiceStub(channel)
        if mode == "replay":
            request = sprite_pb2.WatchEventsRequest(loop_id=loop_id)
            await _replay(stub.WatchEvents(request, metadata=processes.METADATA), count)
        else:
            request = sprite_pb2.WatchEventsRequest(loop_id=loop_id, follow=True)
            await _follow(stub.WatchEvents(request, metadata=processes.METADATA), count)


def main() -> None:
    mode, target, loop_id, count = sys.argv[1:]
    asyncio.run(_run(mode, target, loop_id, int(count)))


if __name__ == "__main__":
    main()
