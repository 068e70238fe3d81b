"""Options of a gRPC server, and its address: never one that somebody else serves."""

import socket
from typing import TYPE_CHECKING

import grpc

from sprite_agent.limits import Limits
from sprite_agent.security import Address
from spritemesh.errors import OpsError

if TYPE_CHECKING:
    from sprite_agent.certificates import Certificates

# Where a bound of ours answers with a reason, gRPC's own stands behind it, so much further away.
_MESSAGE_TIMES = 2
_MORE_METADATA_BYTES = 8 * 1024
_MORE_STREAMS = 64
# Calls that nobody has looked at yet, before some are refused at random, and before all are. With the 1,000
# of gRPC itself one connection that opens and resets streams got calls of others refused.
_PENDING = (2048, 4096)


def server_options(limits: Limits) -> tuple[tuple[str, int], ...]:
    """Options of a server.

    Measured: a vanished peer is noticed after 14 to 27 s, a second server on the same port is refused, and
    pings of the manager each 20 s are not taken for abuse; more than two at less than 10 s are.
    """
    metadata_bytes = limits.metadata_bytes + _MORE_METADATA_BYTES
    return (
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
        # The ping's is what finds a dead peer. Of this one gRPC makes TCP_USER_TIMEOUT: with its default of
        # 20 s a reader at 1 kB/s, whose receive window is mostly shut, was cut off every 21 to 23 s.
        ("grpc.keepalive_timeout_ms", 600_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Until the client's first SETTINGS are there, TLS included.
        ("grpc.server_handshake_timeout_ms", round(limits.request_seconds * 1000)),
        ("grpc.max_connection_idle_ms", round(limits.idle_seconds * 1000)),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_concurrent_streams", limits.streams_per_connection + _MORE_STREAMS),
        ("grpc.server.max_pending_requests", _PENDING[0]),
        ("grpc.server.max_pending_requests_hard_limit", _PENDING[1]),
        # Between the two gRPC refuses some at random.
        ("grpc.max_metadata_size", metadata_bytes),
        ("grpc.absolute_max_metadata_size", metadata_bytes + _MORE_METADATA_BYTES),
        ("grpc.max_receive_message_length", limits.request_bytes * _MESSAGE_TIMES),
        ("grpc.max_send_message_length", 4 * 1024 * 1024),
    )


def listen(
    server: grpc.aio.Server,
    address: Address,
    field: str = "--grpc",
    certificates: "Certificates | None" = None,
) -> str:
    """Listen; the address with its real port. field: the flag that gave it. certificates None: no TLS.

    Raises OpsError `address_unavailable`.
    """
    if _is_answered(address):
        raise OpsError("address_unavailable", f"another process listens on {address.target}", field=field)
    try:
        if certificates is None:
            port = server.add_insecure_port(address.target)
        else:
            port = server.add_secure_port(address.target, certificates.grpc_credentials())
    except RuntimeError as error:
        problem = f"cannot listen on {address.target}: it is in use, or no address of this host"
        raise OpsError("address_unavailable", problem, field=field) from error
    if address.target.startswith("unix:"):
        return address.target
    return f"{address.target.rpartition(':')[0]}:{port}"


def _is_answered(address: Address) -> bool:
    """Whether a process listens on this Unix socket: gRPC would take the path away from it unasked."""
    if not address.target.startswith("unix:"):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(address.target.removeprefix("unix://"))
        except TimeoutError:
            return True  # it is there, and busy
        except OSError:
            return False
    return True
