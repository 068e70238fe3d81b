"""grpc.health.v1, per service, with a Watch that ends when the agent drains."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

SERVING = health_pb2.HealthCheckResponse.SERVING


class DrainingHealthServicer(health_aio.HealthServicer):
    """As the stock servicer; but a Watch would hold the server's whole grace, so a drain ends it.

    Statuses are set before calls are taken and change only when the agent drains, which `drained` tells
    after the stock servicer has been told to shut down.
    """

    def __init__(self, drained: asyncio.Event) -> None:
        super().__init__()
        self._drained = drained

    async def Watch(  # type: ignore[override]  # the stock one writes to the context, this one yields
        self,
        request: health_pb2.HealthCheckRequest,
        context: Any,
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status of a service now, and again when the agent drains."""
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
