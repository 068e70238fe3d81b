"""HTTP as the manager speaks it: one request, a bounded answer, and the error that an answer stands for.

No redirects, since a token is for one address only; no proxies and no other settings of the environment,
for the same reason.
"""

import ssl
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import NamedTuple
from urllib.parse import quote, urlencode

import httpx

from manager.transport.base import Endpoint
from manager.transport.signed import is_early
from manager.transport.trust import Files, hung_up, unread
from spritemesh import jsontext, tls, traced
from spritemesh.errors import OpsError
from spritemesh.httperrors import told_reason
from spritemesh.jsontext import JSON
from spritemesh.names import AGENT_HEADER, SIGNATURE_HEADER
from spritemesh.reasons import Fault
from spritemesh.secrets import Scrubber
from spritemesh.signing import http_loop_id
from spritemesh.traceparent import trace_headers

# An answer is never longer; reading stops there.
MAX_ANSWER_BYTES = 256 * 1024 * 1024
_EXCERPT_CHARS = 300
# The longest wait that a server may ask for.
_LONGEST_RETRY_AFTER_SECONDS = 60.0
# Who answers there is asked here, and not for long.
_HEALTH_PATH = "/healthz"
_HEALTH_SECONDS = 5.0
# What v1 tries again (contract D.5).
RETRIED_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
# Known reasons of which time may mend the cause.
_RETRIED_FAULTS = frozenset({Fault.BUSY, Fault.CONCURRENT, Fault.LATE, Fault.LIMIT, Fault.PEER})


class Timeouts(NamedTuple):
    """Seconds. connect: until the connection stands. silence: between two signs of life. whole: until the
    answer has come to its end."""

    connect: float = 5.0
    silence: float = 30.0
    whole: float = 120.0


class Answer(NamedTuple):
    """What a server gave. what: method and URL, for messages. scrubber: knows the token, which a server may
    repeat: nothing is quoted without it."""

    what: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    scrubber: Scrubber

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def document(self) -> JSON:
        """The body. Raises OpsError `service_response_invalid` when it is no JSON."""
        try:
            return jsontext.parse(self.body, max_depth=jsontext.MAX_DOCUMENT_DEPTH)
        except jsontext.JSONError as error:
            raise OpsError(
                "service_response_invalid",
                f"{self.what}: {self.status}, and the body is no JSON: {self.scrubber.scrub(str(error))}",
            ) from error


class NoAnswer(Exception):
    """There was no answer. error: why. sent: the request may have arrived nevertheless."""

    def __init__(self, error: OpsError, *, sent: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.sent = sent


class HttpClient:
    """Requests to one service; connections are kept. base_url: without a slash at its end.

    Raises OpsError `tls_files_invalid` when it is made.
    """

    def __init__(self, endpoint: Endpoint, timeouts: Timeouts | None = None) -> None:
        token = endpoint.token
        self.base_url = endpoint.target
        self.has_token = bool(token)
        self._endpoint = endpoint
        # Whether an answer so far was that of an agent; a v1 service says nothing of itself.
        self.is_agent = False
        self.was_answered = False  # by anybody
        self._asked = False
        self._scrubber = Scrubber([f"Bearer {token}", token] if token else ())
        self._timeouts = timeouts or Timeouts()
        self._client = self._made()

    def renew(self) -> None:
        """Go on with the certificates that are there by now, unless they are just being written."""
        if self._endpoint.trust is not None:
            before = self._client
            with suppress(OpsError):
                self._client = self._made()
                before.close()

    def _made(self) -> httpx.Client:
        """Raises OpsError `tls_files_invalid`."""
        token = self._endpoint.token
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "ops-manager"}
        if token:
            headers |= {"Authorization": f"Bearer {token}", "X-Ops-Token": token}
        return httpx.Client(
            headers=headers, trust_env=False, follow_redirects=False, verify=_context(self._endpoint)
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        trace_id: str | None = None,
        body: bytes | None = None,
        silence: float | None = None,
    ) -> Answer:
        """The answer to one request, whatever its status.

        silence: instead of the client's, for a request that takes its time. Raises NoAnswer; OpsError
        `message_too_large` for an answer that is longer than MAX_ANSWER_BYTES.
        """
        url = f"{self.base_url}{path}"
        if query:
            url += "?" + urlencode(query, quote_via=quote, safe="")
        what = f"{method} {url}"
        times = self._timeouts
        seconds = times.silence if silence is None else silence
        headers = dict((*trace_headers(trace_id), *traced.parent_headers()))
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            request = self._client.build_request(
                method,
                url,
                headers=headers,
                content=body,
                timeout=httpx.Timeout(seconds, connect=times.connect),
                extensions=self._server_name(),
            )
            self._sign(request, path, body or b"")
            with closing(self._client.send(request, stream=True)) as response:
                self.was_answered = True
                self.is_agent = self.is_agent or AGENT_HEADER in response.headers
                data = _read(response, what, time.monotonic() + max(times.whole, seconds))
                return Answer(what, response.status_code, response.headers, data, self._scrubber)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise self._no_answer("agent_unreachable", what, error, sent=False) from error
        except httpx.TimeoutException as error:
            raise self._no_answer("deadline_exceeded", what, error, sent=True) from error
        except httpx.TransportError as error:
            raise self._no_answer("agent_unreachable", what, error, sent=True) from error
        except httpx.InvalidURL as error:
            raise OpsError("invalid_request", f"{what}: {error}") from error

    def _sign(self, request: httpx.Request, path: str, body: bytes) -> None:
        signer = self._endpoint.signer
        if signer is None:
            return
        # As it goes over the wire, which need not be as it was given. A lone ? does not count for the agent.
        target = request.url.raw_path.decode("ascii")
        if not request.url.query:
            target = target.removesuffix("?")
        loop_id = http_loop_id(path.partition("?")[0], request.url.query.decode("ascii"), body)
        header = signer.header(f"{request.method} {target}", loop_id, body)
        request.headers[SIGNATURE_HEADER] = header

    def ask_agent(self) -> bool | None:
        """Whether an agent answers there, asked unless it is known; None: nobody says."""
        if not (self.is_agent or self._asked):
            try:
                self._asked = self.request("GET", _HEALTH_PATH, silence=_HEALTH_SECONDS).ok
            except (NoAnswer, OpsError):
                return None
        return self.is_agent or (False if self._asked else None)

    def close(self) -> None:
        self._client.close()

    def _server_name(self) -> dict[str, str]:
        """The name that the server's certificate must have, as httpx takes it."""
        trust = self._endpoint.trust
        return {"sni_hostname": trust.server_name} if trust is not None and trust.server_name else {}

    def _no_answer(self, reason: str, what: str, error: Exception, *, sent: bool) -> NoAnswer:
        failure = unread(error, self._endpoint, connected=sent)
        if failure is not None:
            return NoAnswer(failure, sent=False)
        if sent and reason == "agent_unreachable" and not self.was_answered:
            failure = hung_up(self._endpoint)
            if failure is not None:
                return NoAnswer(failure, sent=sent)
        # It may quote what came instead of HTTP.
        said = self._scrubber.scrub(str(error)) or type(error).__name__
        # v1 shows a request without an answer as code 000 (contract D.5).
        return NoAnswer(OpsError(reason, f"{what}: 000: {said}"), sent=sent)


def error_of(answer: Answer, *, has_token: bool) -> OpsError:
    """The error that an answer stands for that is no success (contract D.2).

    Of a bridge of ours with its own reason; otherwise the message holds method, URL, code and the beginning
    of the body (contract D.5).
    """
    return _told_error(answer) or plain_error(answer, has_token=has_token)


def plain_error(answer: Answer, *, has_token: bool) -> OpsError:
    """The error of a service that knows no reasons: method, URL, code and the beginning of the body."""
    message = failure_text(answer)
    if answer.status == 401:
        return OpsError("token_wrong" if has_token else "token_missing", message)
    return OpsError("service_http_error", message, retry_after=_retry_after(answer))


def failure_text(answer: Answer) -> str:
    """Method, URL, code and the beginning of the body (contract D.5)."""
    scrubber = answer.scrubber
    size = 4 * (_EXCERPT_CHARS + scrubber.longest)
    text = scrubber.scrub(answer.body[:size], cut=len(answer.body) > size)
    return f"{answer.what}: {answer.status}: {text[:_EXCERPT_CHARS].strip() or 'no body'}"


def may_mend(answer: Answer, error: OpsError) -> bool:
    """Whether the same request, sent again, may be answered otherwise (contract D.5).

    Where the reason is known it decides: a missing loop is asked for once, not three times as by v1 (L16).
    """
    if error.reason == "service_http_error":
        return answer.status in RETRIED_STATUSES
    return error.row.fault in _RETRIED_FAULTS or is_early(error)


def _told_error(answer: Answer) -> OpsError | None:
    """The error that a bridge of ours names; None when the answer names no reason of the table."""
    told = told_reason(answer.body)
    if told is None:
        return None
    reason, message = told
    return OpsError(reason, answer.scrubber.scrub(message), retry_after=_retry_after(answer))


def _retry_after(answer: Answer) -> float | None:
    text = answer.headers.get("retry-after", "")
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        return None
    return min(float(text), _LONGEST_RETRY_AFTER_SECONDS)


def _read(response: httpx.Response, what: str, deadline: float) -> bytes:
    data = bytearray()
    for piece in response.iter_raw():
        data += piece
        if len(data) > MAX_ANSWER_BYTES:
            raise OpsError(
                "message_too_large",
                f"{what}: {response.status_code}: the answer is longer than {MAX_ANSWER_BYTES} bytes",
            )
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer does not come to its end")
    return bytes(data)


def _context(endpoint: Endpoint) -> ssl.SSLContext:
    """What its trust says; for plain HTTP, one that trusts nobody costs nothing."""
    return tls.client_context() if endpoint.trust is None else Files(endpoint.trust).context
