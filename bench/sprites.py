"""One process that stands for a whole fleet's agents: `python -m bench.sprites REPO COUNT`.

Every sprite has an address of its own (`target`), one loop, and one log that grows by a line each five
seconds. What it says is what `sprite_agent` says in its place: batches with running digests and true ranges,
a bookmark with the snapshot after a line, idle bookmarks, heartbeats at the granted interval. REPO holds the
loop whose snapshot all of them copy. Only files are missing, which readers cannot see: so many agents in
earnest would cost more than the machine has.
"""

import asyncio
import gc
import hashlib
import itertools
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from bench import processes
from bench.fixtures import event_lines, live_line
from sprite_agent.runtime.events import fill_events
from sprite_agent.runtime.feed import duration
from sprite_agent.runtime.loop import LoopReader
from spritemesh import __version__, jsontext
from spritemesh.ids import new_boot_id
from spritemesh.times import format_utc
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc

# Service of the fleet itself, for the benchmark: when the lines of some loops were written.
WRITTEN = "/bench.Fleet/Written"
FIRST_LINES = 20
EVENT_SECONDS = 5.0
_LEADING_EDGE_SECONDS = 0.005
SPREAD = 0.618034  # golden section: phases that are even for any number of sprites
# Of one server that stands for many: requests that wait to be taken up are not to be refused at random, which
# gRPC begins at 1,000.
MANY = (
    ("grpc.so_reuseport", 0),
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
)
_OPTIONS = (
    *MANY,
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


def loop_id(number: int) -> str:
    """Id of the loop of a sprite, from 0. All are of one length."""
    return f"fleet-{number:05}"


def target(number: int, port: int) -> str:
    """Address of a sprite: one of the loopback's network for each, so that none shares a connection."""
    return f"127.{64 + number // 62_500}.{number // 250 % 250}.{number % 250 + 1}:{port}"


class _Sprite:
    """One sprite's log and state in memory.

    template: snapshot of the loop `loop_id(0)`, serialized. written: when each line was, monotonic ns; 0 for
    the first ones.
    """

    def __init__(self, number: int, template: bytes) -> None:
        self.loop_id = loop_id(number)
        self.sprite_id = f"sprite-{number:05}"
        self.boot_id = new_boot_id()
        self.phase = number * SPREAD % 1
        self.lines: list[bytes] = []
        self.digests = [hashlib.sha256().digest()]
        self.written: list[int] = []
        self._size = 0
        self._hasher = hashlib.sha256()
        self._first_digest = b""
        self._ears: set[asyncio.Event] = set()
        # Both ids are of one length, so the lengths within the message stay true.
        self._snapshot = pb.LoopRunSnapshot.FromString(
            template.replace(loop_id(0).encode(), self.loop_id.encode())
        )
        self._heartbeat_at = jsontext.parse(self._snapshot.runtime.heartbeat.json)["timestamp"]

    def append(self, line: bytes, *, written: int = 0) -> None:
        """Let the runtime write a line."""
        self.lines.append(line[:-1])
        self.written.append(written)
        self._hasher.update(line)
        self._size += len(line)
        self.digests.append(self._hasher.digest())
        self._first_digest = self._first_digest or self.digests[1]
        for ear in self._ears:
            ear.set()

    @contextmanager
    def listen(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever something changed."""
        ear = asyncio.Event()
        self._ears.add(ear)
        try:
            yield ear
        finally:
            self._ears.discard(ear)

    def position(self, line: int) -> pb.LogPosition:
        """The place after so many lines."""
        return pb.LogPosition(
            line=line, digest=self.digests[line], first_line_digest=self._first_digest if line else b""
        )

    def head(self) -> sprite_pb2.LogHead:
        """The end of the log."""
        return sprite_pb2.LogHead(position=self.position(len(self.lines)), size_bytes=self._size)

    def snapshot(self) -> pb.LoopRunSnapshot:
        """What is true now; not to be changed."""
        snapshot = self._snapshot
        line = len(self.lines)
        last = jsontext.parse(self.lines[-1])
        now = time.time()
        snapshot.emitted_at = format_utc(now)
        snapshot.sequence_value = snapshot.health.event_count = line
        snapshot.cursor.event_line_offset = snapshot.cursor.event_line_count = line
        snapshot.health.last_event_at, snapshot.health.last_event_name = last["timestamp"], last["event"]
        snapshot.position.CopyFrom(self.position(line))
        log = snapshot.artifacts.events
        log.size_bytes, log.line_count, log.sha256 = self._size, line, self.digests[line].hex()
        log.mtime_epoch = int(now)
        # The agent keeps the runtime's heartbeat file fresh.
        heartbeat, file = snapshot.runtime.heartbeat, snapshot.artifacts.heartbeat
        heartbeat.json = heartbeat.json.replace(self._heartbeat_at, snapshot.emitted_at)
        self._heartbeat_at = snapshot.emitted_at
        file.sha256, file.mtime_epoch = hashlib.sha256(heartbeat.json.encode()).hexdigest(), int(now)
        return snapshot


class _Service(sprite_pb2_grpc.SpriteServiceServicer):
    """SpriteService of every sprite; the loop id says which."""

    def __init__(self, sprites: dict[str, _Sprite]) -> None:
        self._sprites = sprites
        self._began = time.time()

    async def ListLoops(
        self, _request: sprite_pb2.ListLoopsRequest, context: Any
    ) -> sprite_pb2.ListLoopsResponse:
        # The request does not say which sprite is meant.
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "a manager knows its loops")
        raise AssertionError  # abort raises

    async def GetSnapshot(
        self, request: sprite_pb2.GetSnapshotRequest, context: Any
    ) -> sprite_pb2.GetSnapshotResponse:
        sprite = await self._sprite(request.loop_id, context)
        return sprite_pb2.GetSnapshotResponse(snapshot=sprite.snapshot())

    async def WatchEvents(
        self, request: sprite_pb2.WatchEventsRequest, context: Any
    ) -> AsyncIterator[sprite_pb2.WatchEventsResponse]:
        sprite = await self._sprite(request.loop_id, context)
        line = request.after.line
        if line >= len(sprite.digests) or request.after.digest not in {b"", sprite.digests[line]}:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"line {line} is not of this log")
        interval = request.bookmark_interval.ToMilliseconds() / 1e3 or 5.0
        opened = sprite_pb2.Opened(
            agent_version=__version__,
            boot_id=sprite.boot_id,
            capabilities=("control",),
            follow=True,
            bookmark_interval=duration(interval),
            start=sprite.position(line),
            sprite_id=sprite.sprite_id,
        )
        yield _message(sprite, opened=opened)
        marked_line, marked_at = -1, 0.0
        with sprite.listen() as ear:
            while True:
                ear.clear()
                if line < len(sprite.lines):
                    batch = _batch(sprite, line)
                    line = batch.last_line  # before the turn is given away: more may be written meanwhile
                    yield _message(sprite, batch=batch)
                    await asyncio.sleep(_LEADING_EDGE_SECONDS)
                    continue
                # As the agent does: new lines bring a bookmark once a second at most.
                now = time.monotonic()
                pace = interval if marked_line == line else min(1.0, interval)
                if now >= marked_at + pace:
                    bookmark = sprite_pb2.Bookmark(position=sprite.position(line))
                    if marked_line != line:
                        bookmark.snapshot.CopyFrom(sprite.snapshot())
                    marked_line, marked_at = line, now
                    yield _message(sprite, bookmark=bookmark)
                    continue
                await _wait(ear, marked_at + pace - now)

    async def WatchHeartbeats(
        self, request: sprite_pb2.WatchHeartbeatsRequest, context: Any
    ) -> AsyncIterator[sprite_pb2.WatchHeartbeatsResponse]:
        sprite = await self._sprite(request.loop_id, context)
        interval = request.interval.ToMilliseconds() / 1e3 or 5.0
        heartbeat = sprite_pb2.Heartbeat(
            boot_id=sprite.boot_id,
            sprite_id=sprite.sprite_id,
            granted_interval=duration(interval),
            agent=sprite_pb2.AgentFacts(version=__version__, pid=7, rss_bytes=50_000_000),
            runtime=sprite_pb2.RuntimeProcess(
                pid=8, alive=True, rss_bytes=90_000_000, loop_id=sprite.loop_id, stage="loop_start"
            ),
            loop_id=sprite.loop_id,
        )
        for began in (heartbeat.agent.started_at, heartbeat.runtime.started_at):
            began.FromNanoseconds(int(self._began * 1e9))
        # The manager connects to all within seconds; in earnest they were started at any time.
        due = time.monotonic() + sprite.phase * interval
        while True:
            heartbeat.sequence += 1
            heartbeat.sent_at.FromNanoseconds(time.time_ns())
            used = time.time() - self._began
            heartbeat.agent.cpu_time.CopyFrom(duration(used * 0.0015))
            heartbeat.runtime.cpu_time.CopyFrom(duration(used * 0.1))
            heartbeat.head.CopyFrom(sprite.head())
            yield sprite_pb2.WatchHeartbeatsResponse(heartbeat=heartbeat)
            await asyncio.sleep(due - time.monotonic())
            due += interval

    async def written(self, request: StringValue, _context: Any) -> StringValue:
        """Of loops, given as JSON: when each of their lines was written."""
        found = {wanted: self._sprites[wanted].written for wanted in jsontext.parse(request.value)}
        return StringValue(value=jsontext.encode(found).decode())

    async def _sprite(self, wanted: str, context: Any) -> _Sprite:
        if processes.METADATA[0] not in ((item[0], item[1]) for item in context.invocation_metadata()):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is missing or wrong")
        sprite = self._sprites.get(wanted)
        if sprite is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no loop {wanted}")
            raise AssertionError  # abort raises
        return sprite


def _batch(sprite: _Sprite, after: int) -> pb.EventBatch:
    """All lines after so many; the logs are too short for more than one batch."""
    line = len(sprite.lines)
    batch = pb.EventBatch(
        source=pb.Source(repo_path="/srv/sprite", loop_id=sprite.loop_id),
        emitted_at=format_utc(time.time()),
        first_line=after + 1,
        last_line=line,
        line_count=line,
        end_digest=sprite.digests[line],
    )
    fill_events(batch.events, after + 1, sprite.lines[after:])
    return batch


def _message(sprite: _Sprite, **payload: Any) -> sprite_pb2.WatchEventsResponse:
    message = sprite_pb2.WatchEventsResponse(head=sprite.head(), **payload)
    message.sent_at.FromNanoseconds(time.time_ns())
    return message


async def _wait(ear: asyncio.Event, seconds: float) -> None:
    """Wait for the event, so long at most. A timer is a fifth of the price of `asyncio.wait_for`."""
    timer = asyncio.get_running_loop().call_later(seconds, ear.set)
    try:
        await ear.wait()
    finally:
        timer.cancel()


async def _write(sprites: list[_Sprite]) -> None:
    """Let each sprite's runtime write a line once in five seconds, one after the other."""
    due = time.monotonic()
    for sprite in itertools.cycle(sprites):
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        line = live_line(len(sprite.lines), loop_id=sprite.loop_id)
        sprite.append(line, written=time.monotonic_ns())
        due += EVENT_SECONDS / len(sprites)


async def _serve(repo: str, count: int) -> None:
    template = LoopReader(repo, loop_id(0)).snapshot().SerializeToString()
    sprites = [_Sprite(number, template) for number in range(count)]
    for sprite in sprites:
        for _, line in zip(range(FIRST_LINES), event_lines(loop_id=sprite.loop_id), strict=False):
            sprite.append(line.encode())
    service = _Service({sprite.loop_id: sprite for sprite in sprites})
    server = grpc.aio.server(options=_OPTIONS)
    sprite_pb2_grpc.add_SpriteServiceServicer_to_server(service, server)
    handler = grpc.unary_unary_rpc_method_handler(
        service.written,
        request_deserializer=StringValue.FromString,
        response_serializer=StringValue.SerializeToString,
    )
    _, name, method = WRITTEN.split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {method: handler}),))
    port = server.add_insecure_port("0.0.0.0:0")  # the whole network of the loopback
    await server.start()
    sys.stdout.write(jsontext.encode({"ready": True, "grpc": f"127.0.0.1:{port}"}).decode() + "\n")
    sys.stdout.flush()
    await _write(sprites)


def main() -> None:
    processes.raise_descriptor_limit()
    # A pass over all sprites takes a tenth of a second, which would count as the manager's.
    gc.disable()
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))


if __name__ == "__main__":
    main()
