"""One POST to one sink, within one time limit, and what came of it.

An answer of 2xx is the acknowledgement, whatever becomes of its body: asking again would tell the sink
twice. Exceptions of the HTTP library hold addresses and headers, and so perhaps secrets. Therefore none of
their words is used: a failure is told by its class alone.
"""

import logging
import threading
from typing import NamedTuple

import httpx

from manager.alerts.secrets import Scrubber
from manager.core.alert_rows import Answer
from spritemesh import __version__

_MESSAGE_CHARS = 300
# Far more than is kept of an answer.
_ANSWER_BYTES = 16 * 1024
# Refusals that pass by themselves: time-out, too early, too many requests.
_PASSING = frozenset({408, 425, 429})

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


class Delivery:
    """Sends requests, each over a connection of its own. Close it at the end."""

    def __init__(self) -> None:
        # Both tell the address of each request to whoever listens.
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = httpx.Client(
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def close(self) -> None:
        self._client.close()

    def send(self, post: Post, scrubber: Scrubber) -> Answer:
        """Send, and wait for the answer no longer than `post.timeout`. Raises nothing."""
        exchange = _Exchange(self._client, post)
        # The library limits each step, not their sum, and no step of finding an address. A thread that is
        # left behind holds one socket until the other side lets go, or the process ends.
        thread = threading.Thread(target=exchange.run, name="alert-delivery", daemon=True)
        thread.start()
        thread.join(post.timeout)
        status, cut = exchange.status, exchange.cut
        if status is None:
            return _no_answer(exchange.failure or "sink_timeout", post.timeout)
        message = _message(exchange.body, scrubber, cut=cut)
        return Answer(_reason_of_status(status), status, message)


class _Exchange:
    """A request under way in a thread. `status` is set as soon as there is one."""

    def __init__(self, client: httpx.Client, post: Post) -> None:
        self._client = client
        self._post = post
        self.status: int | None = None
        self.body = b""
        self.cut = False
        self.failure = ""

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
                        self.cut = True
                        break
        except Exception as error:
            # Whatever it is, its words may hold secrets.
            self.failure = _reason_of(error)


def _merged(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    chosen = {name.lower(): (name.encode(), value.encode()) for name, value in headers}
    return list(chosen.values())


def _reason_of(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "sink_timeout"
    if isinstance(error, httpx.NetworkError) and not isinstance(error, httpx.ConnectError):
        return "sink_failed"
    if isinstance(error, httpx.RemoteProtocolError):
        return "sink_failed"
    # An address that is none, a header that cannot be sent, nobody who listens, a certificate of another.
    return "sink_unreachable"


def _reason_of_status(status: int) -> str:
    """ "" for success, else why not."""
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return "sink_redirected"
    return "sink_rejected" if 400 <= status < 500 and status not in _PASSING else "sink_failed"


def _no_answer(reason: str, timeout: float) -> Answer:
    words = {
        "sink_timeout": f"no answer within {timeout:g} s",
        "sink_unreachable": "no connection could be made",
        "sink_failed": "the connection ended without an answer",
    }
    return Answer(reason, None, words[reason])


def _message(body: bytes, scrubber: Scrubber, *, cut: bool) -> str | None:
    """What is kept of an answer (contract I.3), without secrets."""
    text = body.decode("utf-8", "replace")
    if cut:
        # A secret may go on where reading ended.
        text = text[: max(0, len(text) - scrubber.longest)]
    text = scrubber.scrub(text).replace("\0", "").rstrip("\n").replace("\n", " ")
    return text[:_MESSAGE_CHARS] or None
