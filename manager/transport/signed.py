"""Calls over gRPC that are signed, each anew (docs/security.md)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from spritemesh.errors import OpsError
from spritemesh.names import SIGNATURE_HEADER

if TYPE_CHECKING:
    from spritemesh.signer import Signer


_Channel = TypeVar("_Channel")


class SignedChannel:
    """Stands for a channel, of either kind of gRPC, where stubs are made; for calls of one request.

    A request is serialized once, so that what is signed is what is sent.
    """

    def __init__(self, channel: Any, signer: "Signer") -> None:
        self._channel = channel
        self._signer = signer

    def unary_unary(self, method: str, request_serializer: Any, *rest: Any, **settings: Any) -> Any:
        """As of a channel."""
        return self._signed(
            method, request_serializer, self._channel.unary_unary(method, None, *rest, **settings)
        )

    def unary_stream(self, method: str, request_serializer: Any, *rest: Any, **settings: Any) -> Any:
        """As of a channel."""
        return self._signed(
            method, request_serializer, self._channel.unary_stream(method, None, *rest, **settings)
        )

    def _signed(self, method: str, serialize: Callable[[Any], bytes], call: Any) -> Callable[..., Any]:
        def signed(request: Any, *, metadata: tuple[tuple[str, str], ...] = (), **settings: Any) -> Any:
            data = serialize(request)
            header = self._signer.header(method, getattr(request, "loop_id", ""), data)
            return call(data, metadata=(*metadata, (SIGNATURE_HEADER, header)), **settings)

        return signed


def is_early(error: OpsError) -> bool:
    """Whether a signature was refused that was made before the server started, by a clock behind its own:
    that passes, for each try is signed anew."""
    return error.reason == "signature_expired" and error.retry_after is not None


def for_stubs(channel: _Channel, signer: "Signer | None") -> _Channel:
    """What stubs are made on: the channel, whose calls are signed when there is a signer."""
    if signer is None:
        return channel
    stand_in: Any = SignedChannel(channel, signer)
    return cast("_Channel", stand_in)
