"""The limits of a manager's own server."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from manager.fleet.board import Board
from manager.fleet.server import FleetServer
from sprite_agent.counts import EndedCall
from sprite_agent.guard import Guard
from sprite_agent.limits import Limits
from sprite_agent.security import parse_address
from superloop.ops.v1 import manager_pb2 as pb
from superloop.ops.v1 import manager_pb2_grpc
from tests.harness.agents import BEARER, TOKEN
from tests.harness.refusals import taken_apart

SERVICE = "superloop.ops.v1.ManagerService"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FleetServer]:
    """A server with room for one stream, of a fleet without loops."""
    address = parse_address("127.0.0.1:0", field="--listen")
    found = FleetServer(Board("fleet"), address, Guard(TOKEN, limits=Limits(streams=1)), str(tmp_path))
    yield found
    await found.stop()


async def test_a_subscriber_beyond_the_room_is_refused_and_counted(server: FleetServer) -> None:
    async with grpc.aio.insecure_channel(await server.start()) as channel:
        stub: Any = manager_pb2_grpc.ManagerServiceStub(channel)
        held = stub.WatchFleet(pb.WatchFleetRequest(), metadata=BEARER)
        assert (await held.read()).complete
        assert (server.usage.streams(), server.usage.connection_calls()) == (1, 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.WatchFleet(pb.WatchFleetRequest(), metadata=BEARER).read()
        assert taken_apart(caught.value).reason == "too_many_streams"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListLoops(pb.ManagerServiceListLoopsRequest())
        assert taken_apart(caught.value).reason == "token_missing"
        await stub.ListLoops(pb.ManagerServiceListLoopsRequest(), metadata=BEARER)
        await server.stop()
    assert server.usage.moment().connection_calls == 0
    assert server.counts.calls == {
        EndedCall("grpc", f"{SERVICE}/WatchFleet", "too_many_streams"): 1,
        EndedCall("grpc", f"{SERVICE}/ListLoops", "token_missing"): 1,
        EndedCall("grpc", f"{SERVICE}/ListLoops", "ok"): 1,
        EndedCall("grpc", f"{SERVICE}/WatchFleet", "manager_draining"): 1,
    }
