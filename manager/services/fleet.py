"""ManagerService: adapters between the wire and the board."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from typing import Any, Literal

from manager.fleet.board import Board, BoardSubscription
from manager.reports import loop_status
from sprite_agent.drain import Drain
from sprite_agent.gate import Speaker, draining
from sprite_agent.services.requests import asked_page, page_of, wanted_seconds
from spritemesh.bridge.parts import json_object
from spritemesh.errors import OpsError
from spritemesh.ids import validate_loop_id
from spritemesh.jsontext import JSON
from superloop.ops.v1 import manager_pb2 as pb
from superloop.ops.v1 import manager_pb2_grpc

SPEAKER = Speaker("manager", "manager_draining", "internal_error")
# A message of so many loops is some 50 kB.
LOOPS_PER_MESSAGE = 100
# Of one page: texts of loops may be long, and a message has a limit.
_MOST_LOOPS = 200
_INTERVAL_SECONDS = (0.001, 1.0, 60.0)  # least, default, most


class FleetService(manager_pb2_grpc.ManagerServiceServicer):
    """Reads of one manager.

    repo: absolute path of the repository with the manager's files. pool: reads them.
    """

    def __init__(self, board: Board, repo: str, drain: Drain, pool: Executor) -> None:
        self._board = board
        self._repo = repo
        self._drain = drain
        self._pool = pool

    async def ListLoops(
        self, request: pb.ManagerServiceListLoopsRequest, context: Any
    ) -> pb.ManagerServiceListLoopsResponse:
        """A page of loops."""
        views = {view.loop_id: view for view in self._board.views()}
        ids, token = page_of(views, asked_page(request, _MOST_LOOPS))
        loops = [views[loop_id] for loop_id in ids]
        return pb.ManagerServiceListLoopsResponse(loops=loops, next_page_token=token)

    async def GetLoopStatus(self, request: pb.GetLoopStatusRequest, context: Any) -> pb.GetLoopStatusResponse:
        """One loop, with the document that `ops-manager status` prints."""
        loop_id = validate_loop_id(request.loop_id, field="loop_id")
        view = self._board.view(loop_id)
        if view is None:
            raise OpsError("loop_not_found", f"the fleet has no loop {loop_id}", field="loop_id")
        document = await asyncio.get_running_loop().run_in_executor(self._pool, self._status, loop_id)
        return pb.GetLoopStatusResponse(loop=view, status=json_object(document))

    async def WatchFleet(
        self, request: pb.WatchFleetRequest, context: Any
    ) -> AsyncIterator[pb.WatchFleetResponse]:
        """The whole fleet, then what changes, until the manager drains.

        Nothing waits for a slow reader but the ids of loops that changed: their views are looked up when a
        message is made.
        """
        least, default, most = _INTERVAL_SECONDS
        wanted = wanted_seconds(request, "interval")
        interval = default if wanted is None else min(max(wanted, least), most)
        chosen = {validate_loop_id(loop_id, field="loop_ids") for loop_id in request.loop_ids}
        drained = asyncio.create_task(self._drain.event.wait())
        try:
            with self._drain.stream(), self._board.subscribe() as subscription:
                changed = await subscription.changed() if len(self._board) else set[str]()
                complete = False
                while True:
                    started = time.monotonic()
                    parts = list(_parts(sorted(changed & chosen if chosen else changed)))
                    if not (parts or complete):
                        parts = [[]]  # an empty fleet is complete, too
                    for number, part in enumerate(parts, 1):
                        complete = complete or number == len(parts)
                        yield self._message(part, complete)
                    await self._drain.wait(max(0.0, started + interval - time.monotonic()))
                    changed = await _next_change(subscription, drained)
        finally:
            drained.cancel()

    def _message(self, loop_ids: list[str], complete: bool) -> pb.WatchFleetResponse:
        message = pb.WatchFleetResponse(complete=complete, fleet_id=self._board.fleet_id)
        for loop_id in loop_ids:
            view = self._board.view(loop_id)
            if view is None:
                message.removed_loop_ids.append(loop_id)
            else:
                message.loops.append(view)
        message.sent_at.FromNanoseconds(time.time_ns())
        return message

    def _status(self, loop_id: str) -> JSON:
        """The status document; None as long as there is none."""
        try:
            return loop_status(self._repo, loop_id, now=time.time()).document
        except OpsError as error:
            if error.reason == "document_missing":
                return None
            raise


async def _next_change(subscription: BoardSubscription, drained: asyncio.Task[Literal[True]]) -> set[str]:
    """Ids of loops that changed since the last call, once there are some.

    Raises OpsError `manager_draining` when the manager ends before.
    """
    change = asyncio.create_task(subscription.changed())
    try:
        await asyncio.wait((change, drained), return_when=asyncio.FIRST_COMPLETED)
        if drained.done():
            raise draining(SPEAKER)
        return change.result()
    finally:
        change.cancel()


def _parts(loop_ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(loop_ids), LOOPS_PER_MESSAGE):
        yield loop_ids[start : start + LOOPS_PER_MESSAGE]
