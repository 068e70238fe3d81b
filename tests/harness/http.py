"""HTTP as bytes: what a client library would hide or mend."""

import json
import socket
import ssl
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.harness.agents import CALL_SECONDS, TOKEN

WITH_TOKEN = f"X-Ops-Token: {TOKEN}\r\n".encode()


class HttpAnswer(NamedTuple):
    """One answer. headers: names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body, which must be JSON in ASCII, declared as such and with its length."""
        assert self.headers["content-type"] == "application/json"
        assert int(self.headers["content-length"]) == len(self.body)
        assert self.body.isascii()
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        """Status and code of an error body."""
        document = self.document
        assert set(document) == {"ok", "error"}
        assert document["ok"] is False
        assert set(document["error"]) == {"code", "message"}
        return self.status, document["error"]["code"]

    @property
    def message(self) -> str:
        return str(self.document["error"]["message"])


def get(target: str, headers: bytes = WITH_TOKEN, *, method: str = "GET", version: str = "1.1") -> bytes:
    """The bytes of a request without a body."""
    return f"{method} {target} HTTP/{version}\r\nHost: sprite\r\n".encode() + headers + b"\r\n"


def post(target: str, body: bytes | Any, headers: bytes = WITH_TOKEN) -> bytes:
    """The bytes of a request with a body; what is not bytes becomes JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    length = f"Content-Length: {len(data)}\r\n".encode()
    return get(target, headers + length, method="POST") + data


class HttpWire:
    """One connection."""

    def __init__(self, address: str, context: ssl.SSLContext | None = None) -> None:
        """context: of TLS."""
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), CALL_SECONDS)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname=host)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self.socket.close()

    def ask(self, request: bytes, *, method: str = "") -> HttpAnswer:
        """Send one request and read its answer. method HEAD: no body follows."""
        self.socket.sendall(request)
        return self.answer(has_body=method != "HEAD")

    def answer(self, *, has_body: bool = True) -> HttpAnswer:
        """The next answer."""
        status_line = self._file.readline()
        assert status_line.startswith(b"HTTP/1.1 "), status_line
        headers = {}
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("ascii").partition(":")
            headers[name.strip().lower()] = value.strip()
        body = self._file.read(int(headers["content-length"])) if has_body else b""
        return HttpAnswer(int(status_line.split()[1]), headers, body)

    def is_closed(self) -> bool:
        """Whether the other side has closed, after all that was answered; waits for either."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True


def ask(address: str, request: bytes, *, method: str = "") -> HttpAnswer:
    """One request on a connection of its own."""
    with HttpWire(address) as wire:
        return wire.ask(request, method=method)
