"""uvicorn in an event loop of ours: a listener that leaves signals, logs and the end to the program."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from sprite_agent.http.answers import CONTENT_TYPE
from sprite_agent.http.entry import MAX_HEAD_BYTES
from sprite_agent.security import Address
from spritemesh import __version__, jsontext
from spritemesh.errors import OpsError
from spritemesh.names import AGENT_HEADER

MAX_CONNECTIONS = 512
# A connection may wait this long for its next request, and a head may take this long to arrive.
KEEP_ALIVE_SECONDS = 75
_HEAD_SECONDS = 10.0
# A reader that takes nothing for so long is taken for gone.
_STALLED_SECONDS = 60.0
# What requests under way get once the listener stops; the drain has waited for them before.
_LAST_SECONDS = 1
_BACKLOG = 128


class Listener(uvicorn.Server):
    """Serves an application at an address, from `start` to `stop`. address: as asked for, with the real port.
    field: the flag that the address came from.

    Raises OpsError `address_unavailable` when it is made.
    """

    def __init__(self, app: Any, address: Address, *, field: str = "--http") -> None:
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
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            )
        )
        self._serving: asyncio.Task[None] | None = None
        self._accepting = asyncio.Event()
        self._ending = asyncio.Event()

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


class Connection(H11Protocol):
    """A connection that is bounded in number and time, and refuses in JSON."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_due: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or refuse where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(503, "too_many_streams", f"{MAX_CONNECTIONS} connections are served already")
            return
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End, timers included."""
        super().connection_lost(exc)
        for timer in (self._head_due, self._stalled):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Take bytes in; a head that began has to end in time."""
        super().data_received(data)
        self._watch_head()

    def pause_writing(self) -> None:
        """The peer reads too slowly; it has so long to take what waits."""
        super().pause_writing()
        self._stalled = self.loop.call_later(_STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The peer took what waited."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; without an answer when one is on its way already."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            self._refuse(400, "invalid_request", msg)
        else:
            self.transport.close()

    def _watch_head(self) -> None:
        # uvicorn declares `cycle` as always there, but it is None before the first request.
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self._head_due is not None:
                self._head_due.cancel()
                self._head_due = None
        elif self._head_due is None and not self.transport.is_closing():
            self._head_due = self.loop.call_later(_HEAD_SECONDS, self.transport.abort)

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = jsontext.encode({"ok": False, "error": {"code": code, "message": message}})
        headers = [
            ("content-type", CONTENT_TYPE),
            ("content-length", str(len(body))),
            ("connection", "close"),
            (AGENT_HEADER, __version__),
        ]
        for event in (
            h11.Response(status_code=status, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _listen(address: Address, field: str) -> socket.socket:
    host = address.target.rpartition(":")[0].removeprefix("[").removesuffix("]")
    port = int(address.target.rpartition(":")[2])
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, place = found[0]
        listening = socket.create_server(place[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        raise OpsError("address_unavailable", f"cannot listen on {address.target}", field=field) from error
    # Connections inherit it. Head and body go out in two writes, and the second would wait 40 ms for an
    # acknowledgement; asyncio does not see that a socket made elsewhere is TCP.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
