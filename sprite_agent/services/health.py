"""grpc.health.v1, per service, with a Watch that ends when the agent drains."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

SERVING = health_pb2.HealthCheckResponse.SERVING


class DrainingHealthServicer(health_aio.HealthServicer):
    """As the stock servicer; but a Watch would hold the server's whole grace, so a drain ends it."""

    def __init__(self, drained: asyncio.Event) -> None:
        super().__init__()
        self._drained = drained

    async def Watch(  # type: ignore[override]  # the stubs miss that it is a generator
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status of a service whenever it changes, NOT_SERVING last."""
        statuses: Any = super().Watch(request, context)
        end = asyncio.ensure_future(self._drained.wait())
        following: asyncio.Future[health_pb2.HealthCheckResponse] | None = None
        last: health_pb2.HealthCheckResponse | None = None
        try:
            while True:
                if following is None:
                    following = asyncio.ensure_future(anext(statuses))
                await asyncio.wait({following, end}, return_when=asyncio.FIRST_COMPLETED)
                if following.done():
                    last = following.result()
                    following = None
                    yield last
                    continue
                if last is None or last.status == SERVING:
                    yield health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)
                return
        finally:
            end.cancel()
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            await statuses.aclose()
