"""Asks a running manager for its fleet."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from manager.fleet.document import Fleet
from manager.transport.base import Endpoint
from manager.transport.channel import Options, call_metadata, connect_aio, grpc, options
from manager.transport.signed import for_stubs
from sprite_agent.runtime.feed import duration
from spritemesh.errors import OpsError
from spritemesh.grpcstatus import error_from_status
from spritemesh.names import LISTEN_TOKEN_VARIABLE
from superloop.ops.v1 import manager_pb2 as pb
from superloop.ops.v1 import manager_pb2_grpc

# Of all that a manager tells at once.
ANSWER_SECONDS = 10.0
_OPTIONS: Options = options(ping_ms=12_000, ping_timeout_ms=5_000, window_bytes=262_144, connect_ms=5_000)


async def watch_fleet(endpoint: Endpoint, *, interval: float) -> AsyncGenerator[pb.WatchFleetResponse, None]:
    """The messages of a WatchFleet stream, which ends by an error only; interval: wanted seconds.

    Raises OpsError: `fleet_not_running` when nobody answers, `manager_draining` when the manager ends, and
    others. Close it to leave early.
    """
    async with connect_aio(endpoint, _OPTIONS) as channel:
        stub = manager_pb2_grpc.ManagerServiceStub(for_stubs(channel, endpoint.signer))
        call = stub.WatchFleet(
            pb.WatchFleetRequest(interval=duration(interval)), metadata=call_metadata(endpoint, None)
        )
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise await _error(error, endpoint) from error
        finally:
            call.cancel()
    raise OpsError("stream_broken", f"{endpoint.target} ended the stream without a reason")


async def read_fleet(endpoint: Endpoint) -> Fleet:
    """The fleet as it is now. Raises OpsError as watch_fleet, and `deadline_exceeded` after 10 s."""
    views: dict[str, pb.LoopView] = {}
    try:
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            aclosing(watch_fleet(endpoint, interval=60.0)) as messages,
        ):
            async for message in messages:
                views.update((view.loop_id, view) for view in message.loops)
                if message.complete:
                    return Fleet(
                        message.fleet_id, sent_at(message), [views[loop_id] for loop_id in sorted(views)]
                    )
    except TimeoutError as error:
        raise OpsError(
            "deadline_exceeded", f"{endpoint.target} did not tell its fleet in {ANSWER_SECONDS:g} s"
        ) from error
    raise AssertionError("a stream ends by an error")


def sent_at(message: pb.WatchFleetResponse) -> float:
    """The manager's clock when the message was made, epoch seconds."""
    return message.sent_at.ToNanoseconds() / 1e9 if message.HasField("sent_at") else time.time()


async def _error(error: grpc.aio.AioRpcError, endpoint: Endpoint) -> OpsError:
    target = endpoint.target
    found = error_from_status(error.code(), error.details() or "", error.trailing_metadata(), peer=target)
    if found.reason == "agent_unreachable":
        # Late: who connects needs none of it.
        from manager.transport.trust import explained

        told = await asyncio.to_thread(explained, found, endpoint)
        if told.reason == "tls_failed":
            return told
        return OpsError("fleet_not_running", f"no manager answers at {found.message}")
    if found.reason == "token_missing":
        return OpsError(
            found.reason,
            f"the manager at {target} wants its token: give --token-file, or set {LISTEN_TOKEN_VARIABLE}",
            field="--token-file",
        )
    return found
