"""uvicorn in an event loop of ours: a listener that leaves signals, logs and the end to the program."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import uvicorn

from sprite_agent.http.connection import Connection
from sprite_agent.limits import Limits
from sprite_agent.security import Address
from spritemesh.errors import OpsError

if TYPE_CHECKING:
    from sprite_agent.certificates import Certificates
    from sprite_agent.http.handshakes import Handshakes

# A connection may wait this long for its next request.
KEEP_ALIVE_SECONDS = 75
# What requests under way get once the listener stops; the drain has waited for them before.
_LAST_SECONDS = 1
_BACKLOG = 128


class Listener(uvicorn.Server):
    """Serves an application at an address, from `start` to `stop`. address: as asked for, with the real port.
    limits None: the defaults. field: the flag that the address came from. certificates None: without TLS.

    Raises OpsError `address_unavailable` when it is made.
    """

    def __init__(
        self,
        app: Any,
        address: Address,
        limits: Limits | None = None,
        *,
        field: str = "--http",
        certificates: "Certificates | None" = None,
    ) -> None:
        self._limits = limits or Limits()
        self._certificates = certificates
        self._handshakes: Handshakes | None = None
        self._socket = _listen(address, field)
        self.address = f"{address.target.rpartition(':')[0]}:{self._socket.getsockname()[1]}"
        # It warns of whatever strangers send, and calls our answers errors.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        super().__init__(
            uvicorn.Config(
                app,
                loop="none",
                http=Connection,
                ws="none",
                interface="asgi3",
                lifespan="off",
                log_config=None,
                access_log=False,
                workers=1,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_LAST_SECONDS,
                h11_max_incomplete_event_size=self._limits.metadata_bytes,
            )
        )
        self._serving: asyncio.Task[None] | None = None
        self._accepting = asyncio.Event()
        self._ending = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections. uvicorn's own would give handshakes a minute, and bound neither."""
        if self._certificates is not None:
            # Late: without TLS nobody should wait for it.
            from sprite_agent.http.handshakes import Handshakes

            self._handshakes = Handshakes(self._certificates.context(), self._limits)
        handshakes = self._handshakes

        def connection() -> asyncio.BaseProtocol:
            made = Connection(self.config, self.server_state, self.lifespan.state, limits=self._limits)
            return made if handshakes is None else handshakes.protocol(made)

        serve = asyncio.get_running_loop().create_server
        self.servers = [
            await serve(connection, sock=listening, backlog=_BACKLOG) for listening in sockets or ()
        ]
        self.started = True

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self.server_state.connections)

    async def start(self) -> None:
        """Return when connections are taken."""
        self._serving = asyncio.create_task(self.serve(sockets=[self._socket]), name="http")
        await self._accepting.wait()

    async def stop(self) -> None:
        """Take no more connections; requests under way have a second, and then no answer. A second call
        changes nothing."""
        self.should_exit = True
        self._ending.set()
        # Just before uvicorn ends them itself and answers 500: what a control request came to is not known,
        # and is learnt from the next agent by its key.
        cut = asyncio.get_running_loop().call_later(_LAST_SECONDS, self._cut_off)
        if self._serving is not None:
            await self._serving
        cut.cancel()
        self._cut_off()
        if self.server_state.tasks:  # cancelled by now, but what they hold is theirs to give back
            await asyncio.wait(self.server_state.tasks, timeout=_LAST_SECONDS)
        self._socket.close()

    def _cut_off(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        if self._handshakes is not None:
            self._handshakes.cut_off()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the program's."""
        yield

    async def main_loop(self) -> None:
        """Wait for the end. uvicorn's own loop wakes ten times a second."""
        self._accepting.set()
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), 1.0)


def _listen(address: Address, field: str) -> socket.socket:
    host = address.target.rpartition(":")[0].removeprefix("[").removesuffix("]")
    port = int(address.target.rpartition(":")[2])
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, place = found[0]
        listening = socket.create_server(place[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        problem = f"cannot listen on {address.target}: {error.strerror or error}"
        raise OpsError("address_unavailable", problem, field=field) from error
    # Connections inherit it. Head and body go out in two writes, and the second would wait 40 ms for an
    # acknowledgement; asyncio does not see that a socket made elsewhere is TCP.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
