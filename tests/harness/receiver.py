"""A real HTTP server that answers by a script, and keeps what it was asked.

It stands in for webhooks, for a v1 service, and for servers that misbehave.
"""

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

# A test that waits longer for a request is broken.
_CONNECTION_SECONDS = 30.0
_PIECE = 65536


class Answer(NamedTuple):
    """What a request gets.

    delay_seconds: wait before answering; the end of the receiver cuts it short. closes: close the connection
    without an answer. repeat: send the body so often (for bodies too large to hold). keep_open: after the
    body, neither a length nor an end is told: the reader waits on.
    """

    status: int = 200
    body: str | bytes = "ok"
    headers: Mapping[str, str] = {}
    delay_seconds: float = 0.0
    closes: bool = False
    repeat: int = 1
    keep_open: bool = False


def redirect(location: str, status: int = 302) -> Answer:
    """An answer that sends the asker elsewhere."""
    return Answer(status, "", {"Location": location})


class Request(NamedTuple):
    """What was asked. path: with its query. headers: names as sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: str

    def header(self, name: str) -> str | None:
        """A header, whatever the case of its name."""
        return next((value for found, value in self.headers.items() if found.lower() == name.lower()), None)


class Receiver:
    """A running server. It answers POSTs from `responses` and GETs from `gets` by path without query.

    Each list is gone through in order, and its last answer repeats; without one the answer is 200 `ok`.
    """

    def __init__(
        self,
        responses: Sequence[Answer] = (),
        gets: Mapping[str, Sequence[Answer]] | None = None,
    ) -> None:
        self.responses = list(responses)
        self.gets = {path: list(answers) for path, answers in (gets or {}).items()}
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._given: dict[str, int] = {}
        self._ended = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in order of arrival."""
        with self._lock:
            return list(self._requests)

    def take(self) -> list[Request]:
        """The requests since the last call."""
        with self._lock:
            taken, self._requests = self._requests, []
        return taken

    def close(self) -> None:
        """End; requests that still wait for their answer get none."""
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def choose(self, request: Request) -> Answer:
        """Keep a request, and give the answer whose turn it is."""
        path = request.path.partition("?")[0]
        script, answers = (
            ("POST", self.responses) if request.method == "POST" else (path, self.gets.get(path, []))
        )
        with self._lock:
            self._requests.append(request)
            number = self._given.get(script, 0)
            self._given[script] = number + 1
        return answers[min(number, len(answers) - 1)] if answers else Answer()

    def wait(self, seconds: float) -> bool:
        """Wait, unless the receiver ends first; whether it did."""
        return self._ended.wait(seconds)


@contextmanager
def receiving(*responses: Answer, gets: Mapping[str, Sequence[Answer]] | None = None) -> Iterator[Receiver]:
    """A receiver for the time of a block."""
    receiver = Receiver(responses, gets)
    try:
        yield receiver
    finally:
        receiver.close()


def answers(script: Sequence[Mapping[str, Any]]) -> list[Answer]:
    """The answers of a golden case: objects with `status`, `body` and perhaps `headers`."""
    return [Answer(item["status"], item["body"], item.get("headers") or {}) for item in script]


class _Server(ThreadingHTTPServer):
    # Its end waits for the threads of requests: none outlives the test.
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        # A kept connection would hold its thread until the client leaves.
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the client has left already
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no fault of the server."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _CONNECTION_SECONDS

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode("utf-8", "replace")
        request = Request(self.command, self.path, dict(self.headers.items()), body)
        answer = self.server.receiver.choose(request)
        if answer.delay_seconds and self.server.receiver.wait(answer.delay_seconds):
            self.close_connection = True
            return
        if answer.closes:
            self.close_connection = True
            return
        data = answer.body.encode() if isinstance(answer.body, str) else answer.body
        self.send_response(answer.status)
        known = {"content-type": "application/json", **{k.lower(): v for k, v in answer.headers.items()}}
        if answer.keep_open:
            self.close_connection = True
        elif "content-length" not in known:
            known["content-length"] = str(len(data) * answer.repeat)
        for name, value in known.items():
            self.send_header(name, value)
        self.end_headers()
        for _ in range(answer.repeat):
            for start in range(0, len(data), _PIECE):
                self.wfile.write(data[start : start + _PIECE])
        if answer.keep_open:
            self.wfile.flush()
            self.server.receiver.wait(_CONNECTION_SECONDS)

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
