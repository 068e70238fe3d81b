"""Handlers of gRPC as the server calls them: requests bounded in time, errors made into statuses.

Each takes its request as a stream, whatever the method says: the server calls such a handler as soon as a
call has begun, and so knows who calls, and may refuse, before anything of the request is read. On the wire
there is no difference. Handlers within raise OpsError and know nothing of statuses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc

from sprite_agent.counts import CANCELLED, OK, UNKNOWN
from spritemesh.errors import OpsError
from spritemesh.grpcstatus import DETAILS_KEY, status_code, status_details, status_message

if TYPE_CHECKING:
    from sprite_agent.admission import Arrival
    from sprite_agent.gate import Door

    _Handler = grpc.RpcMethodHandler[Any, Any]

_log = logging.getLogger("sprite_agent")


def wrap(handler: _Handler, door: Door) -> _Handler:
    """A handler behind its door."""
    if handler.request_streaming:
        return _talk(handler, door)  # of reflection, the only one
    if handler.response_streaming:
        return _stream(handler, door)
    return _unary(handler, door)


def undecodable() -> OpsError:
    """What callers are told whose request is none."""
    return OpsError("invalid_request", "the request is no message of this method", field="request")


def _unary(handler: _Handler, door: Door) -> _Handler:
    unary: Any = handler.unary_unary

    async def answer(_requests: Any, context: Any) -> Any:
        async def work(arrival: Arrival) -> Any:
            provenance = door.enter(arrival)
            seconds = door.patience
            patience = asyncio.timeout(seconds)
            try:
                async with patience:
                    with door.waits(patience):
                        data = await _read(context)
                    message = door.message(arrival, provenance, data)
                    if context.time_remaining() is None:
                        seconds = door.seconds(message)
                        patience.reschedule(asyncio.get_running_loop().time() + seconds)
                    else:
                        patience.reschedule(None)  # gRPC cancels us
                    with door.step(arrival):
                        return await unary(message, context)
            except TimeoutError:
                if patience.expired():
                    raise door.late(seconds) from None
                raise

        return await _within(door, context, work)

    return grpc.stream_unary_rpc_method_handler(answer, None, handler.response_serializer)


def _stream(handler: _Handler, door: Door) -> _Handler:
    stream: Any = handler.unary_stream

    async def answer(_requests: Any, context: Any) -> None:
        async def work(arrival: Arrival) -> None:
            provenance = door.enter(arrival)
            try:
                async with asyncio.timeout(door.patience) as patience:
                    with door.waits(patience):
                        data = await _read(context)
            except TimeoutError:
                raise door.late(door.patience) from None
            messages: AsyncIterator[Any] = stream(door.message(arrival, provenance, data), context)
            await _send(messages, context)

        await _within(door, context, work)

    return grpc.stream_stream_rpc_method_handler(answer, None, handler.response_serializer)


def _talk(handler: _Handler, door: Door) -> _Handler:
    talk: Any = handler.stream_stream

    async def answer(_requests: Any, context: Any) -> None:
        async def work(arrival: Arrival) -> None:
            provenance = door.enter(arrival)
            with door.talks.entered():
                door.check(arrival, provenance, b"")
                await _send(talk(_messages(door, context), context), context)

        await _within(door, context, work)

    return grpc.stream_stream_rpc_method_handler(answer, None, handler.response_serializer)


async def _within(door: Door, context: Any, work: Callable[[Arrival], Awaitable[Any]]) -> Any:
    """What `work` comes to, for a call that has its place, is counted, and fails with a status."""
    arrival = door.knock(context)
    reason, is_placed = CANCELLED, False
    try:
        is_placed = door.take_place(arrival)
        found = await work(arrival)
        reason = OK
        return found
    except grpc.aio.InternalError:
        pass  # a write failed: the caller is gone, and that is no defect to log
    except Exception as error:
        reason = _reason(error, door)
        await _fail(context, error, door)
    finally:
        door.ended(arrival, reason, is_placed=is_placed)


async def _read(context: Any) -> bytes | None:
    """The next message as bytes; None when there is none any more."""
    data = await context.read()
    return data if isinstance(data, bytes) else None  # gRPC's EOF


async def _messages(door: Door, context: Any) -> AsyncIterator[Any]:
    while (data := await _read(context)) is not None:
        message = door.decode(data)
        if message is None:
            raise undecodable()
        yield message


async def _send(messages: AsyncIterator[Any], context: Any) -> None:
    """Send what is made, one message on its way while the next is made."""
    sending: asyncio.Task[None] | None = None
    try:
        async for message in messages:
            if sending is not None:
                await sending
            sending = asyncio.ensure_future(context.write(message))
            await asyncio.sleep(0)  # lets it start
        if sending is not None:
            await sending
    except grpc.aio.InternalError:
        raise
    except Exception:
        if sending is not None:
            await sending  # what was made before the fault is sent before the status
        raise
    finally:
        if sending is not None:
            sending.cancel()
        await messages.aclose()  # type: ignore[attr-defined]  # they are generators


def _reason(error: Exception, door: Door) -> str:
    """Why a call ends, in counts."""
    if isinstance(error, grpc.aio.AbortError):
        return UNKNOWN  # of a health check, with a bare status
    return error.reason if isinstance(error, OpsError) else door.speaker.fault


async def _fail(context: Any, error: Exception, door: Door) -> None:
    """End a call with the rich status of an error; raises, never returns."""
    speaker = door.speaker
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, OpsError):
        _log.error("%s in a handler", speaker.fault, exc_info=error)
        # The text of a defect may hold anything: it stays in the log.
        error = OpsError(speaker.fault, f"the {speaker.name} met a defect; its log says more")
    await context.abort(
        status_code(error),
        status_message(error),
        trailing_metadata=((DETAILS_KEY, status_details(error)),),
    )
