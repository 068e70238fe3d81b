"""What every gRPC server of this project serves beside its own services: health, and reflection."""

import asyncio
from collections.abc import Iterable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sprite_agent.services.health import SERVING, DrainingHealthServicer
from sprite_agent.services.reflection import V1_NAME, V1ALPHA_NAME, add_reflection


async def add_standard_services(
    own: Iterable[str], server: grpc.aio.Server, drained: asyncio.Event
) -> DrainingHealthServicer:
    """Add health and reflection beside the services `own` (full names), all of which serve from now on.

    drained: as DrainingHealthServicer takes it.
    """
    health = DrainingHealthServicer(drained)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    services = (*own, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
    add_reflection(services, server)
    for name in ("", *services, V1_NAME, V1ALPHA_NAME):
        await health.set(name, SERVING)
    return health
