"""One HTTP request as routes see it: path, query, headers, and a body that is bounded in size and time."""

import asyncio
import re
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from sprite_agent.admission import Arrival, Right
from sprite_agent.limits import Limits
from sprite_agent.provenance import Provenance
from spritemesh.errors import OpsError
from spritemesh.ids import printable, validate_trace_id
from spritemesh.names import TRACE_ID_HEADER
from spritemesh.traceparent import TRACEPARENT_HEADER, trace_id_of

# Member of the state of a connection: names in the client's certificate.
IDENTITIES = "identities"
# Member of the state of a request: whether its caller was let in.
LET_IN = "let in"
# More than this of an unwanted body is not taken in just to keep a connection.
_MAX_DISCARDED_BYTES = 16 * 1024 * 1024
_DISCARD_SECONDS = 2.0
_MAX_PARAMETERS = 100
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,4000}\Z")
_ORIGIN = re.compile(r"\A[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")


class Call:
    """A request. path: as it was sent, percent signs included, without the query. address: the client's."""

    def __init__(self, request: Request, limits: Limits) -> None:
        self.method: str = request.method
        self.address = _address(request.scope.get("client"))
        self._state = request.scope.setdefault("state", {})
        self._identities: tuple[str, ...] = self._state.get(IDENTITIES, ())
        self._max_body_bytes = limits.request_bytes
        self._body_seconds = limits.request_seconds
        self._body: bytes | None = None
        # A proxy's form, with the origin before the path, means the same (RFC 9112, 3.2.2).
        self.path = _ORIGIN.sub("", request.scope["raw_path"].decode("ascii"), count=1) or "/"
        self.headers: list[tuple[str, bytes]] = [
            (name.decode("latin-1"), value) for name, value in request.scope["headers"]
        ]
        # Who connected: known once the call is let in (sprite_agent.admission).
        self.provenance = Provenance(edge="http")
        self._query: bytes = request.scope["query_string"]
        query = b"?" + self._query if self._query else b""
        self._target = (request.scope["raw_path"] + query).decode("latin-1")
        self.target_bytes = len(request.scope["raw_path"]) + 1 + len(self._query)
        self._parameters: dict[str, str] | None = None
        self._request = request
        self._read = 0
        self._given_up = False
        self._ended = (
            "chunked" not in self.header("transfer-encoding").lower()
            and (self.header("content-length") or "0") == "0"
        )

    def arrival(self, right: Right) -> Arrival:
        """The call as `sprite_agent.admission` takes it."""
        method = f"{self.method} {self._target}"
        return Arrival("http", method, right, self.headers, self.address, self._identities)

    def let_in(self, provenance: Provenance) -> None:
        """Note who connected, and that the connection serves somebody from now on."""
        self.provenance = provenance
        self._state[LET_IN] = True

    def header(self, name: str) -> str:
        """The first value of a header, trimmed; "" without one."""
        return next(iter(self.values(name)), "")

    def values(self, name: str) -> list[str]:
        """All values of a header, trimmed."""
        return [value.decode("utf-8", "replace").strip() for found, value in self.headers if found == name]

    def trace_id(self) -> str | None:
        """Of `X-Trace-Id`, else of a W3C `traceparent`; None without any. Raises `invalid_trace_id`."""
        trace_id = self.header(TRACE_ID_HEADER) or trace_id_of(self.header(TRACEPARENT_HEADER))
        return validate_trace_id(trace_id, field="X-Trace-Id") if trace_id else None

    # --- the query ----------------------------------------------------------------------------------

    @property
    def query(self) -> str:
        """All of it, as sent."""
        return self._query.decode("latin-1")

    def parameter(self, name: str) -> str:
        """The first value of a parameter that is not empty; "" without one, as in v1.

        Raises OpsError `invalid_request` for a query that is no UTF-8 or has too many parameters.
        """
        if self._parameters is None:
            try:
                pairs = parse_qsl(
                    self._query.decode("ascii"), errors="strict", max_num_fields=_MAX_PARAMETERS
                )
            except ValueError as error:
                raise OpsError("invalid_request", f"the query cannot be read: {error}") from error
            self._parameters = dict(reversed(pairs))
        return self._parameters.get(name, "")

    def number(self, name: str) -> int:
        """A parameter that is a whole number of 0 or more, 0 without one. Raises `invalid_request`."""
        text = self.parameter(name).strip()
        number = int(text) if _WHOLE_NUMBER.match(text) else -1
        if text and number < 0:
            raise OpsError(
                "invalid_request",
                f"{name} must be a whole number of 0 or more: {printable(text)}",
                field=name,
            )
        return max(number, 0)

    # --- the body -----------------------------------------------------------------------------------

    async def body(self) -> bytes:
        """The whole body; asked again, the same. Raises OpsError `body_too_large` or `body_timeout`, and
        ClientDisconnect."""
        if self._body is None:
            self._body = await self._read_body()
        return self._body

    async def _read_body(self) -> bytes:
        if self._announced() > self._max_body_bytes:
            raise self._too_large()
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(self._body_seconds):
                while not self._ended:
                    pieces.append(await self._piece())
                    if self._read > self._max_body_bytes:
                        raise self._too_large()
        except TimeoutError:
            raise OpsError(
                "body_timeout", f"the request body did not arrive within {self._body_seconds:g} s"
            ) from None
        return b"".join(pieces)

    async def discard_rest(self) -> bool:
        """Take in what is left of the body, within limits; whether all of it came.

        A connection that is closed while its peer still writes may lose the answer on its way.
        """
        if self._ended or self._given_up:
            return self._ended
        self._given_up = True
        if self.header("expect") and not self._read:
            return False  # its peer waits for our answer before it writes
        if self._announced() > _MAX_DISCARDED_BYTES:
            return False
        try:
            async with asyncio.timeout(_DISCARD_SECONDS):
                while self._read <= _MAX_DISCARDED_BYTES:
                    await self._piece()
                    if self._has_ended():
                        return True
        except TimeoutError:
            pass
        return False

    async def check_connected(self) -> None:
        """Raise ClientDisconnect when the client went away. For calls whose body has been taken in."""
        if self._ended and await self._request.is_disconnected():
            raise ClientDisconnect

    def _announced(self) -> int:
        """The body's length as its header tells; 0 when it does not."""
        length = self.header("content-length")
        return int(length) if length.isascii() and length.isdigit() and len(length) <= 18 else 0

    def _has_ended(self) -> bool:
        """As `_ended`, where a look at that came before: mypy takes it for unchanged."""
        return self._ended

    async def _piece(self) -> bytes:
        message = await self._request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece: bytes = message.get("body", b"")
        self._read += len(piece)
        self._ended = not message.get("more_body", False)
        return piece

    def _too_large(self) -> OpsError:
        return OpsError("body_too_large", f"the request body is larger than {self._max_body_bytes} bytes")


def _address(client: tuple[str, int] | None) -> str:
    """Of a client as ASGI tells it."""
    if client is None:
        return ""
    host, port = client
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
