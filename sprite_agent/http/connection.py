"""A connection of the HTTP listener: what uvicorn leaves without a bound."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from sprite_agent.http.answers import CONTENT_TYPE
from sprite_agent.http.calls import IDENTITIES, LET_IN
from sprite_agent.limits import Limits
from sprite_agent.peers import identities_in
from spritemesh import __version__, jsontext
from spritemesh.names import AGENT_HEADER

# A reader that takes nothing for so long is taken for gone.
_STALLED_SECONDS = 60.0


class Connection(H11Protocol):
    """A connection that is bounded in number and time, and refuses in JSON.

    Where there are too many, one gives way that answers nobody who was let in: whoever holds connections
    open, or sends heads or bodies byte by byte, keeps nobody out.
    """

    def __init__(self, *args: Any, limits: Limits) -> None:
        super().__init__(*args)
        self._limits = limits
        self._idle_since = self.loop.time()
        self._head_due: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or refuse where there are too many."""
        super().connection_made(transport)
        self.app_state = {
            **self.app_state,
            IDENTITIES: identities_in(transport.get_extra_info("peercert")),
        }
        most = self._limits.http_connections
        if len(self.connections) > most and not self._make_room():
            self._refuse(503, "too_many_streams", f"{most} connections are served already")
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

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered."""
        # uvicorn declares `cycle` as always there, but it is None before the first request.
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    @property
    def serves(self) -> bool:
        """Whether the request that is being answered is of somebody who was let in."""
        return self.is_busy and LET_IN in self.scope["state"]

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def _make_room(self) -> bool:
        """Close another connection that serves nobody, those of strangers who still talk first, and else the
        one that has gone longest without a request; whether there is one."""
        others = (found for found in self.connections if isinstance(found, Connection) and found is not self)
        spare = [found for found in others if not (found.serves or found.transport.is_closing())]
        if not spare:
            return False
        min(spare, key=lambda found: (not found.is_busy, found._idle_since)).transport.abort()
        return True

    def _watch_head(self) -> None:
        if self.is_busy:
            if self._head_due is not None:
                self._head_due.cancel()
                self._head_due = None
        elif self._head_due is None and not self.transport.is_closing():
            self._head_due = self.loop.call_later(self._limits.request_seconds, self.transport.abort)

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = jsontext.encode({"ok": False, "error": {"code": code, "message": message}})
        headers = [
            ("content-type", CONTENT_TYPE),
            ("content-length", str(len(body))),
            ("connection", "close"),
            (AGENT_HEADER, __version__),
        ]
        events: list[h11.Event] = [h11.Response(status_code=status, headers=headers), h11.EndOfMessage()]
        # A request whose body is broken has told its method; of none other is the scope.
        if not (self.conn.our_state is h11.SEND_RESPONSE and self.scope["method"] == "HEAD"):
            events.insert(1, h11.Data(data=body))
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        if self.is_busy:
            # What answers a request whose body is broken must not answer it again.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
