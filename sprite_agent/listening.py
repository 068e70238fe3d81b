"""Options of a gRPC server, and its address: never one that somebody else serves."""

import socket

import grpc

from sprite_agent.security import Address
from spritemesh.errors import OpsError

# Measured: a vanished peer is noticed after 14 to 27 s, a second server on the same port is refused, and
# pings of the manager each 20 s are not taken for abuse.
SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    # The ping's is what finds a dead peer. Of this one gRPC makes TCP_USER_TIMEOUT: with its default of 20 s
    # a reader at 1 kB/s, whose receive window is mostly shut, was cut off every 21 to 23 s.
    ("grpc.keepalive_timeout_ms", 600_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", 256 * 1024),
    ("grpc.max_send_message_length", 4 * 1024 * 1024),
)


def listen(server: grpc.aio.Server, address: Address, field: str = "--grpc") -> str:
    """Listen; the address with its real port. field: the flag that gave it.

    Raises OpsError `address_unavailable`.
    """
    if _is_answered(address):
        raise OpsError("address_unavailable", f"another process listens on {address.target}", field=field)
    try:
        port = server.add_insecure_port(address.target)
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
