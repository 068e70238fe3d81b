"""Connections with TLS, bounded in number from their first byte on.

asyncio tells an application of a connection when its handshake is done. Until then nobody counts it, and
whoever opens many and says nothing would take all the files that the process may open.
"""

import asyncio
from asyncio.sslproto import SSLProtocol
from typing import TYPE_CHECKING, Any

from sprite_agent.limits import Limits

if TYPE_CHECKING:
    import ssl

# How many handshakes may be under way beside the connections that are served.
MORE_CONNECTIONS = 512


class Handshakes:
    """Of one listener. context: what each handshake begins with."""

    def __init__(self, context: "ssl.SSLContext", limits: Limits) -> None:
        self._context = context
        self._most = limits.http_connections + MORE_CONNECTIONS
        self._seconds = limits.request_seconds
        self._open: dict[_Secured, asyncio.WriteTransport] = {}

    def protocol(self, application: asyncio.Protocol) -> asyncio.BaseProtocol:
        """For a new connection: TLS, and the application behind it."""
        return _Secured(self, application, self._context, self._seconds)

    def begins(self, connection: "_Secured", transport: asyncio.WriteTransport) -> bool:
        """Whether there is room for a connection."""
        if len(self._open) >= self._most:
            return False
        self._open[connection] = transport
        return True

    def ends(self, connection: "_Secured") -> None:
        """A connection has ended, or was never let in."""
        self._open.pop(connection, None)

    def cut_off(self) -> None:
        """End all that there are."""
        for transport in list(self._open.values()):
            transport.abort()


class _Secured(SSLProtocol):
    def __init__(
        self, owner: Handshakes, application: asyncio.Protocol, context: "ssl.SSLContext", seconds: float
    ) -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        done.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody else asks
        limit: Any = seconds  # typeshed knows whole ones only
        super().__init__(loop, application, context, done, server_side=True, ssl_handshake_timeout=limit)
        self._owner = owner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake, or end the connection: there is no way yet to say why."""
        if isinstance(transport, asyncio.WriteTransport) and not self._owner.begins(self, transport):
            transport.abort()
            return
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._owner.ends(self)
        super().connection_lost(exc)
