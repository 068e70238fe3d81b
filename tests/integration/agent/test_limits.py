"""How many streams an agent serves at the same time, by a server with room for few."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from sprite_agent.admission import Admission
from sprite_agent.changes import ChangeHub
from sprite_agent.drain import Drain
from sprite_agent.gate import Gate
from sprite_agent.heartbeat import HeartbeatSource
from sprite_agent.lag import LagProbe
from sprite_agent.runtime.repository import Repository
from sprite_agent.security import TokenCheck
from sprite_agent.services.sprite import SpriteService
from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc
from tests.harness.agents import CALL_SECONDS
from tests.harness.loops import LoopFiles, Repo, events
from tests.harness.refusals import Refusal, taken_apart

ROOM = 3


@pytest.fixture
async def small(repo: Repo) -> AsyncIterator[Any]:
    """A stub of a real server in this process, with room for three streams."""
    hub = ChangeHub()
    drain = Drain(hub.wake_all, max_streams=ROOM)
    repository = Repository(str(repo.root))
    with ThreadPoolExecutor(2) as pool:
        service = SpriteService(repository, hub, HeartbeatSource(repository, LagProbe()), drain, pool)
        server = grpc.aio.server(interceptors=(Gate(Admission(TokenCheck("")), lambda: drain.started),))
        sprite_pb2_grpc.add_SpriteServiceServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield sprite_pb2_grpc.SpriteServiceStub(channel)
        drain.start()
        assert await drain.wait_for_streams(CALL_SECONDS), "a place was never given back"
        await server.stop(0)
    hub.close()
    repository.close()


async def refused(call: Any) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    return taken_apart(caught.value)


async def test_stream_beyond_the_room_is_told_to_come_back(small: Any, loop: LoopFiles) -> None:
    loop.append(events(1, 2))
    following = sprite_pb2.WatchEventsRequest(loop_id="alpha", follow=True)
    beating = sprite_pb2.WatchHeartbeatsRequest()
    held = [small.WatchEvents(following), small.WatchEvents(following), small.WatchHeartbeats(beating)]
    for call in held:
        await call.read()
    for call in (small.WatchEvents(following), small.WatchHeartbeats(beating)):
        found = await refused(call)
        assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too_many_streams")
        assert found.retry_seconds
    # Single requests are answered all the time.
    request = sprite_pb2.GetSnapshotRequest(loop_id="alpha")
    assert (await small.GetSnapshot(request)).snapshot.sequence_value == 2

    held.pop().cancel()
    async with asyncio.timeout(CALL_SECONDS):
        while True:
            call = small.WatchHeartbeats(beating)
            try:
                assert (await call.read()).heartbeat.sequence == 1
                break
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                await asyncio.sleep(0.01)
    for left in (*held, call):
        left.cancel()
