"""What all connections to agents over gRPC share: how gRPC is imported, options, metadata, goodbyes."""

import os

# Before the first import of grpc: its fork handlers kill children now and then.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from manager.transport.base import Endpoint
from spritemesh import traced
from spritemesh.endpoints import Trust
from spritemesh.errors import OpsError
from spritemesh.reasons import REASONS
from spritemesh.traceparent import trace_headers
from superloop.ops.v1 import sprite_pb2

# Of a unary call.
UNARY_SECONDS = 10.0
_LARGEST_MESSAGE = 4 * 1024 * 1024

Options = tuple[tuple[str, int], ...]


def options(*, ping_ms: int, ping_timeout_ms: int, window_bytes: int, connect_ms: int) -> Options:
    """Options of a channel.

    ping_ms: how often the peer is asked whether it lives; the agent takes offence at less than 10,000.
    window_bytes: how far it may run ahead of a reader that stands still. connect_ms: least time that one try
    to connect is given, the agent's first frame included.
    """
    return (
        ("grpc.keepalive_time_ms", ping_ms),
        # Of the two names the first has an effect in the versions measured.
        ("grpc.http2.ping_timeout_ms", ping_timeout_ms),
        ("grpc.keepalive_timeout_ms", ping_timeout_ms),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", window_bytes),
        ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 500),
        ("grpc.min_reconnect_backoff_ms", connect_ms),
        ("grpc.max_reconnect_backoff_ms", 5000),
        ("grpc.enable_retries", 0),
        # A token is for one address only: none of a proxy that the environment names.
        ("grpc.enable_http_proxy", 0),
    )


def connect(endpoint: Endpoint, options: Options) -> grpc.Channel:
    """A channel for calls that wait; it connects at the first. Raises OpsError `tls_files_invalid`."""
    trust = endpoint.trust
    if trust is None:
        return grpc.insecure_channel(endpoint.target, options=options)
    return grpc.secure_channel(endpoint.target, _credentials(trust), options=(*options, *_name(trust)))


def connect_aio(endpoint: Endpoint, options: Options) -> grpc.aio.Channel:
    """As `connect`, of the event loop that runs."""
    trust = endpoint.trust
    if trust is None:
        return grpc.aio.insecure_channel(endpoint.target, options=options)
    return grpc.aio.secure_channel(endpoint.target, _credentials(trust), options=(*options, *_name(trust)))


def call_metadata(endpoint: Endpoint, trace_id: str | None) -> tuple[tuple[str, str], ...]:
    """The metadata of a call that is made now: the token, the trace id where a header can hold it, and the
    step of ours that makes the call, if any."""
    token = (("authorization", f"Bearer {endpoint.token}"),) if endpoint.token else ()
    return (*token, *trace_headers(trace_id), *traced.parent_headers())


def goodbye_error(goodbye: sprite_pb2.Goodbye) -> OpsError:
    """Why a stream ended on purpose, as an error."""
    reason = goodbye.reason if goodbye.reason in REASONS else "stream_broken"
    seconds = goodbye.retry_after.ToMilliseconds() / 1000 if goodbye.HasField("retry_after") else None
    return OpsError(reason, f"the agent ended the stream: {reason}", retry_after=seconds)


def _credentials(trust: Trust) -> grpc.ChannelCredentials:
    # Late: most connections are of this host, and plain.
    from manager.transport.trust import Files

    found = Files(trust)
    return grpc.ssl_channel_credentials(found.ca, found.key or None, found.cert or None)


def _name(trust: Trust) -> tuple[tuple[str, str], ...]:
    return (("grpc.ssl_target_name_override", trust.server_name),) if trust.server_name else ()


__all__ = [
    "UNARY_SECONDS",
    "Options",
    "call_metadata",
    "connect",
    "connect_aio",
    "goodbye_error",
    "grpc",
    "options",
]
