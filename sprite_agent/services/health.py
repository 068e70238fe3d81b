"""grpc.health.v1, per service, with a Watch that ends when the agent drains."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from sprite_agent.drain import Room

SERVING = health_pb2.HealthCheckResponse.SERVING
# Whoever reaches the port may watch, without a token: more than any set of probes needs, and few enough
# to cost little.
MAX_WATCHES = 256


class DrainingHealthServicer(health_aio.HealthServicer):
    """As the stock servicer; but a Watch would hold the server's whole grace, so a drain ends it.

    Statuses are set before calls are taken and change only when the agent drains, which `drained` tells
    after the stock servicer has been told to shut down.
    """

    def __init__(self, drained: asyncio.Event, max_watches: int = MAX_WATCHES) -> None:
        super().__init__()
        self._drained = drained
        self._room = Room(max_watches, "watches of its health")

    async def List(self, request: Any, context: Any) -> Any:
        """The status of every service, which the stock servicer does not tell."""
        messages: Any = health_pb2  # the stubs know neither these messages nor the statuses
        statuses = self._server_status  # type: ignore[attr-defined]
        return messages.HealthListResponse(statuses={name: self._response(name) for name in statuses})

    async def Watch(  # type: ignore[override]  # the stock one writes to the context, this one yields
        self,
        request: health_pb2.HealthCheckRequest,
        context: Any,
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status of a service now, and again when the agent drains.

        Raises OpsError `too_many_streams`, which the gate translates.
        """
        with self._room.entered():
            response = self._response(request.service)
            yield response
            await self._drained.wait()
            last = self._response(request.service)
            if last != response:
                yield last

    def _response(self, service: str) -> health_pb2.HealthCheckResponse:
        statuses = self._server_status  # type: ignore[attr-defined]  # the stubs leave it out
        status = statuses.get(service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
        return health_pb2.HealthCheckResponse(status=status)
