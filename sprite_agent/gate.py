"""What every call passes: token, drain, the translation of errors into statuses, and a count of its end.

Handlers raise OpsError and know nothing of statuses. The wrapped handlers are made once a method; only
the decision to let a call in is made for each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from sprite_agent.counts import CANCELLED, OK, UNKNOWN, Counts
from sprite_agent.security import TokenCheck
from spritemesh.errors import OpsError
from spritemesh.grpcstatus import DETAILS_KEY, status_code, status_details, status_message

_log = logging.getLogger("sprite_agent")
_HEALTH = "/grpc.health.v1.Health/"
_EDGE = "grpc"  # in counts
# How long a refused caller should wait for the next agent.
DRAIN_RETRY_SECONDS = 2.0

if TYPE_CHECKING:
    _Handler = grpc.RpcMethodHandler[Any, Any]
    # Told why a call ended: a word of sprite_agent.counts.
    _Ended = Callable[[str], None]


class Speaker(NamedTuple):
    """Whose server it is. draining, fault: reason codes of its end, and of a defect of its own."""

    name: str
    draining: str
    fault: str


_AGENT = Speaker("agent", "agent_draining", "agent_fault")


class Gate(grpc.aio.ServerInterceptor):
    """Interceptor of a server. Health checks need no token: probes have none."""

    def __init__(
        self,
        tokens: TokenCheck,
        is_draining: Callable[[], bool],
        counts: Counts | None = None,
        speaker: Speaker = _AGENT,
    ) -> None:
        """counts: where ends of calls are counted."""
        self._speaker = speaker
        self._tokens = tokens
        self._counts = counts or Counts()
        self._is_draining = is_draining
        self._wrapped: dict[str, _Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Let a call in, or answer it with a refusal of the same kind of method."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is not None and method.startswith(_HEALTH):
            return self._wrapped_once(method, handler)
        refusal = self._tokens.refusal(handler_call_details.invocation_metadata or ())
        if refusal is None and self._is_draining():
            refusal = draining(self._speaker)
        if handler is None or refusal is not None:
            refusal = refusal or OpsError("unsupported_method", f"unknown method {method[:200]}")
            self._counts.call_ended(_EDGE, UNKNOWN if handler is None else method[1:], refusal.reason)
            return _refuse(handler, refusal)
        return self._wrapped_once(method, handler)

    def _wrapped_once(self, method: str, handler: _Handler) -> _Handler:
        wrapped = self._wrapped.get(method)
        if wrapped is None:

            def ended(reason: str) -> None:
                self._counts.call_ended(_EDGE, method[1:], reason)

            wrapped = self._wrapped[method] = _wrap(handler, ended, self._speaker)
        return wrapped


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: OpsError) -> None:
    """End a call with the rich status of `error`; raises, never returns."""
    await context.abort(
        status_code(error),
        status_message(error),
        trailing_metadata=((DETAILS_KEY, status_details(error)),),
    )


def draining(speaker: Speaker) -> OpsError:
    """What callers are told of a server that is ending."""
    return OpsError(speaker.draining, f"the {speaker.name} is shutting down", retry_after=DRAIN_RETRY_SECONDS)


class _Undecodable:
    """Stands for request bytes that are no message of the method."""


def _wrap(handler: _Handler, ended: _Ended, speaker: Speaker) -> _Handler:
    decode = handler.request_deserializer

    def deserialize(data: bytes) -> Any:
        try:
            return decode(data) if decode is not None else data
        except DecodeError:
            return _Undecodable()

    if handler.request_streaming:
        talk: Any = handler.stream_stream  # of reflection, the only one

        async def call_talk(requests: Any, context: Any) -> AsyncIterator[Any]:
            reason = CANCELLED
            try:
                async for message in talk(_decoded(requests), context):
                    yield message
                reason = OK
            except Exception as error:
                reason = _reason(error)
                await _fail(context, error, speaker)
            finally:
                ended(reason)

        return grpc.stream_stream_rpc_method_handler(call_talk, deserialize, handler.response_serializer)
    if handler.response_streaming:
        stream: Any = handler.unary_stream

        async def call_stream(request: Any, context: Any) -> None:
            sending: asyncio.Task[None] | None = None
            reason = CANCELLED
            messages: AsyncIterator[Any] = stream(request, context)
            try:
                if isinstance(request, _Undecodable):
                    raise _undecodable()
                async for message in messages:
                    # One message is on its way while the next is made.
                    if sending is not None:
                        await sending
                    sending = asyncio.ensure_future(context.write(message))
                    await asyncio.sleep(0)  # lets it start
                if sending is not None:
                    await sending
                reason = OK
            except grpc.aio.InternalError:
                pass  # a write failed: the caller is gone, and that is no defect to log
            except Exception as error:
                if sending is not None:
                    await sending
                reason = _reason(error)
                await _fail(context, error, speaker)
            finally:
                ended(reason)
                if sending is not None:
                    sending.cancel()
                await messages.aclose()  # type: ignore[attr-defined]  # they are generators

        return grpc.unary_stream_rpc_method_handler(call_stream, deserialize, handler.response_serializer)
    unary: Any = handler.unary_unary

    async def call_unary(request: Any, context: Any) -> Any:
        reason = CANCELLED
        try:
            if isinstance(request, _Undecodable):
                raise _undecodable()
            answer = await unary(request, context)
            reason = OK
            return answer
        except Exception as error:
            reason = _reason(error)
            await _fail(context, error, speaker)
        finally:
            ended(reason)

    return grpc.unary_unary_rpc_method_handler(call_unary, deserialize, handler.response_serializer)


def _undecodable() -> OpsError:
    return OpsError("invalid_request", "the request is no message of this method", field="request")


async def _decoded(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, _Undecodable):
            raise _undecodable()
        yield request


def _reason(error: Exception) -> str:
    """Why a call ends, in counts."""
    if isinstance(error, grpc.aio.AbortError):
        return UNKNOWN  # of a health check, with a bare status
    return error.reason if isinstance(error, OpsError) else "agent_fault"


async def _fail(context: Any, error: Exception, speaker: Speaker) -> None:
    if isinstance(error, grpc.aio.AbortError | asyncio.CancelledError):
        raise error
    if not isinstance(error, OpsError):
        _log.error("%s in a handler", speaker.fault, exc_info=error)
        # The text of a defect may hold anything: it stays in the log.
        error = OpsError(speaker.fault, f"the {speaker.name} met a defect; its log says more")
    await abort(context, error)


def _refuse(handler: _Handler | None, refusal: OpsError) -> _Handler:
    async def refuse_unary(_request: Any, context: Any) -> None:
        await abort(context, refusal)

    async def refuse_stream(_request: Any, context: Any) -> AsyncIterator[Any]:
        await abort(context, refusal)
        yield

    if handler is None:
        return grpc.unary_unary_rpc_method_handler(refuse_unary)
    if handler.request_streaming:
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(refuse_stream)
        return grpc.stream_unary_rpc_method_handler(refuse_unary)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(refuse_stream)
    return grpc.unary_unary_rpc_method_handler(refuse_unary)
