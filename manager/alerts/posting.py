"""One POST to one sink, within one time limit, and what came of it.

An answer of 2xx is the acknowledgement, whatever becomes of its body: asking again would tell the sink
twice. Exceptions of the HTTP library hold addresses and headers, and so perhaps secrets. Therefore none of
their words is used: a failure is told by its class alone.
"""

import logging
import ssl
import threading
from typing import NamedTuple

import httpx

from manager.core.alert_rows import Answer
from spritemesh import __version__, tls
from spritemesh.secrets import Scrubber

_MESSAGE_CHARS = 300
# Far more than is kept of an answer.
_ANSWER_BYTES = 16 * 1024
# Refusals that pass by themselves: time-out, too early, too many requests.
_PASSING = frozenset({408, 425, 429})

_TELL_THE_END = ("content-length", "transfer-encoding")

_HEADERS = [
    ("User-Agent", f"spritemesh/{__version__}"),
    ("Accept", "*/*"),
    # What is kept of an answer is read as it comes, and a packed one could be as large as it likes.
    ("Accept-Encoding", "identity"),
]


class Post(NamedTuple):
    """A request. headers: in order, of a repeated name the last. timeout: seconds for all of it."""

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    timeout: float


class Poster:
    """Sends requests, each over a connection of its own. Close it at the end."""

    def __init__(self) -> None:
        # Both tell the address of each request to whoever listens.
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = httpx.Client(
            follow_redirects=False,
            trust_env=False,
            verify=tls.verifying(),
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def close(self) -> None:
        self._client.close()

    def send(self, post: Post, scrubber: Scrubber) -> Answer:
        """Send, and wait for the answer no longer than `post.timeout`. Raises nothing."""
        exchange = _Exchange(self._client, post)
        # The library limits each step, not their sum, and no step of finding an address. A thread that is
        # left behind holds one socket until the other side lets go, or the process ends.
        thread = threading.Thread(target=exchange.run, name="alert-post", daemon=True)
        thread.start()
        thread.join(post.timeout)
        status, is_whole = exchange.status, exchange.is_whole
        if status is None:
            return exchange.failure or Answer("sink_timeout", None, f"no answer within {post.timeout:g} s")
        message = _message(exchange.body, scrubber, cut=not is_whole)
        return Answer(_reason_of_status(status), status, message)


class _Exchange:
    """A request under way in a thread.

    `status` is set as soon as there is one; `is_whole` after `body`, when that has come to an end that the
    sink had told. `failure` is set when there is no answer.
    """

    def __init__(self, client: httpx.Client, post: Post) -> None:
        self._client = client
        self._post = post
        self.status: int | None = None
        self.body = b""
        self.is_whole = False
        self.failure: Answer | None = None

    def run(self) -> None:
        post = self._post
        try:
            headers = _merged([*_HEADERS, *post.headers])
            with self._client.stream(
                "POST", post.url, content=post.body, headers=headers, timeout=post.timeout
            ) as response:
                self.status = response.status_code
                for piece in response.iter_raw():
                    self.body += piece
                    if len(self.body) >= _ANSWER_BYTES:
                        return
                # Where no end was told, the connection may have been lost in the middle.
                self.is_whole = not response.headers.keys().isdisjoint(_TELL_THE_END)
        except Exception as error:
            # Whatever it is, its words may hold secrets.
            self.failure = _failure(error, post.timeout)


def _merged(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    chosen = {name.lower(): (name.encode(), value.encode()) for name, value in headers}
    return list(chosen.values())


def _failure(error: Exception, timeout: float) -> Answer:
    """Why there was no answer, told by the class of an error."""
    if isinstance(error, httpx.TimeoutException):
        return Answer("sink_timeout", None, f"no answer within {timeout:g} s")
    causes = [error]
    # The library names no cause itself everywhere.
    while isinstance(causes[-1].__context__, Exception):
        causes.append(causes[-1].__context__)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return Answer("sink_unreachable", None, "TLS failed: its certificate cannot be verified")
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return Answer("sink_unreachable", None, "TLS failed")
    if isinstance(error, httpx.ConnectError):
        return Answer("sink_unreachable", None, "no connection could be made")
    if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
        return Answer("sink_failed", None, "the connection ended without an answer")
    # An address that is none, a header that cannot be sent.
    return Answer("sink_unreachable", None, "the request could not be formed")


def _reason_of_status(status: int) -> str:
    """ "" for success, else why not."""
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return "sink_redirected"
    return "sink_rejected" if 400 <= status < 500 and status not in _PASSING else "sink_failed"


def _message(body: bytes, scrubber: Scrubber, *, cut: bool) -> str | None:
    """What is kept of an answer (contract I.3), without secrets. cut: there may have been more."""
    text = scrubber.scrub(body, cut=cut).replace("\0", "").rstrip("\n").replace("\n", " ")
    return text[:_MESSAGE_CHARS] or None
