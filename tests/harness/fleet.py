"""A manager's server over a board that the test fills, and views to fill it with."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc

from manager.fleet.board import Board
from manager.fleet.server import FleetServer
from sprite_agent.guard import Guard
from sprite_agent.security import parse_address
from superloop.ops.v1 import manager_pb2 as pb
from superloop.ops.v1 import manager_pb2_grpc
from tests.harness.agents import TOKEN

_T = TypeVar("_T")
_SECONDS = 15.0
UP, DOWN = pb.ConnectionView.STATE_UP, pb.ConnectionView.STATE_DOWN
Stub = manager_pb2_grpc.ManagerServiceStub


def loop_view(loop_id: str, *, at: float | None = None, **members: Any) -> pb.LoopView:
    """A loop that is well, but for `members`. at: of its last heartbeat, epoch seconds; None: now."""
    view = pb.LoopView(
        loop_id=loop_id,
        sprite_id=f"sprite of {loop_id}",
        transport="sprite_service",
        connection=pb.ConnectionView(state=UP, target="127.0.0.1:50551"),
        agent=pb.AgentView(state=pb.AgentView.STATE_ALIVE, boot_id="b" * 32, version="1"),
        runtime=pb.RuntimeView(state=pb.RuntimeView.STATE_ALIVE, pid=7),
        state="running",
        iteration="3",
        applied_line=10,
        committed_line=10,
        head_line=10,
        sequence_status="ok",
        health_status="healthy",
        last_trace_id="0fd3c1ab-1234-4123-8123-123456789abc",
    )
    view.agent.heartbeat_at.FromNanoseconds(int((time.time() if at is None else at) * 1e9))
    for name, value in members.items():
        if isinstance(value, list):
            getattr(view, name).extend(value)
        elif hasattr(value, "DESCRIPTOR"):
            getattr(view, name).MergeFrom(value)
        else:
            setattr(view, name, value)
    return view


class ServedFleet:
    """A FleetServer with an event loop and a thread of its own. address: as gRPC takes it."""

    def __init__(self, repo: Path, token: str, listen: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.board = Board("test fleet")
        address = parse_address(listen, field="--listen")

        async def start() -> tuple[FleetServer, str]:
            server = FleetServer(self.board, address, Guard(token), str(repo))
            return server, await server.start()

        try:
            self.server, self.address = self.run(start())
        except BaseException:
            self._end()
            raise

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do something in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)

    def call(self, work: Callable[[], object]) -> None:
        """The same, of a function."""

        async def wrapped() -> None:
            work()

        self.run(wrapped())

    def put(self, *views: pb.LoopView) -> None:
        """Show these loops."""

        def put() -> None:
            for view in views:
                self.board.put(view)

        self.call(put)

    def remove(self, loop_id: str) -> None:
        """Take a loop out of the fleet."""
        self.call(lambda: self.board.remove(loop_id))

    def stop(self) -> None:
        """As a manager that ends."""
        self.run(self.server.stop())

    def close(self) -> None:
        """Leave nothing behind."""
        self.stop()
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()


@contextmanager
def served_fleet(repo: Path, *, token: str = TOKEN, listen: str = "127.0.0.1:0") -> Iterator[ServedFleet]:
    """A running server."""
    fleet = ServedFleet(repo, token, listen)
    try:
        yield fleet
    finally:
        fleet.close()


@contextmanager
def connected(address: str) -> Iterator[grpc.Channel]:
    """A connection of the test's own."""
    with grpc.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
        yield channel
