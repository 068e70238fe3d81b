"""The way to an agent: its name, and whether anybody listens there."""

import os
import socket
import time

from sprite_agent.probe.steps import Found, milliseconds, skip, well
from sprite_agent.probe.target import Target
from spritemesh.errors import OpsError

_SHOWN_ADDRESSES = 4


class Route:
    """Resolves and connects. seconds: of one try to connect."""

    def __init__(self, target: Target, seconds: float) -> None:
        self._target = target
        self._seconds = seconds
        self._addresses: list[tuple[socket.AddressFamily, tuple[str, int]]] = []

    def resolve(self) -> Found:
        """The step: addresses of the name. Raises OpsError `name_not_resolved`."""
        target = self._target
        if not target.host:
            return skip("a Unix socket has no name")
        begun = time.monotonic()
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            told = error.strerror if isinstance(error, OSError) else "it is no host name"
            raise OpsError("name_not_resolved", f"{target.host}: {told}") from error
        for family, _, _, _, address in found:
            place = (family, (str(address[0]), int(address[1])))
            if place not in self._addresses:
                self._addresses.append(place)
        names = [address[0] for _, address in self._addresses]
        shown = ", ".join(names[:_SHOWN_ADDRESSES])
        more = len(names) - _SHOWN_ADDRESSES
        return well(f"{shown}{f' and {more} more' if more > 0 else ''} in {milliseconds(begun)}")

    def connect(self) -> Found:
        """The step: the first address that takes a connection. Raises OpsError `agent_unreachable`."""
        begun = time.monotonic()
        with self.connection() as connection:
            place = connection.getpeername()
        shown = place if isinstance(place, str) else f"{place[0]} port {place[1]}"
        return well(f"{shown} in {milliseconds(begun)}")

    def connection(self) -> socket.socket:
        """A connection; needs `resolve`. Raises OpsError `agent_unreachable` for the last address tried."""
        target = self._target
        if not target.host:
            return self._connected(socket.AF_UNIX, target.path)
        failure = OpsError("agent_unreachable", f"{target.host} has no address")
        for family, address in self._addresses:
            try:
                return self._connected(family, address)
            except OpsError as error:
                failure = error
        raise failure

    def _connected(self, family: socket.AddressFamily, address: str | tuple[str, int]) -> socket.socket:
        connection = socket.socket(family, socket.SOCK_STREAM)
        # Every address has its turn within one step.
        connection.settimeout(self._seconds / max(1, len(self._addresses)))
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            shown = address if isinstance(address, str) else f"{address[0]} port {address[1]}"
            told = "no answer" if isinstance(error, TimeoutError) else os.strerror(error.errno or 0)
            raise OpsError("agent_unreachable", f"{shown}: {told}") from error
        connection.settimeout(self._seconds)
        return connection


def refuse_plaintext(target: Target, route: Route, seconds: float) -> None:
    """Raise OpsError `tls_failed` when what was asked in plaintext, and gave no answer, wants TLS.

    seconds: that a handshake may take; without any left, nothing is found out.
    """
    if target.trust is not None or not target.host or seconds <= 0:
        return
    # Late: without TLS nobody should wait for it.
    from spritemesh.tls import speaks_tls
    from spritemesh.tlsproblems import WANTS_TLS

    try:
        connection = route.connection()
    except OpsError:
        return
    connection.settimeout(seconds)
    if speaks_tls(connection):
        raise OpsError("tls_failed", WANTS_TLS)
