"""Takes an address for the agent's gRPC server, and never one that somebody else serves."""

import socket

import grpc

from sprite_agent.security import Address
from spritemesh.errors import OpsError


def listen(server: grpc.aio.Server, address: Address) -> str:
    """Listen; the address with its real port. Raises OpsError `address_unavailable`."""
    if _is_answered(address):
        raise OpsError("address_unavailable", f"another process listens on {address.target}", field="--grpc")
    try:
        port = server.add_insecure_port(address.target)
    except RuntimeError as error:
        raise OpsError("address_unavailable", f"cannot listen on {address.target}", field="--grpc") from error
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
