"""One request over HTTP, with bounds: what a check needs, and no more."""

import http.client
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from sprite_agent.probe.network import Route, refuse_plaintext
from sprite_agent.probe.target import Target
from spritemesh import jsontext
from spritemesh.errors import OpsError
from spritemesh.httperrors import told_reason
from spritemesh.jsontext import JSON

if TYPE_CHECKING:
    from sprite_agent.probe.tls import TlsClient

# More of an answer is not read: a snapshot and ten events are smaller.
_MOST_BYTES = 32 * 1024 * 1024
_EXCERPT_BYTES = 200


class Answer(NamedTuple):
    """What a server gave. headers: names in lower case."""

    what: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def document(self) -> JSON:
        """The body of a success. Raises OpsError: the reason that a refusal names, `service_http_error`, or
        `service_response_invalid` when it is no JSON."""
        if not self.ok:
            raise self.refusal()
        try:
            return jsontext.parse(self.body, max_depth=jsontext.MAX_DOCUMENT_DEPTH)
        except jsontext.JSONError as error:
            raise OpsError(
                "service_response_invalid", f"{self.what}: the body is no JSON: {error}"
            ) from error

    def refusal(self, *, has_token: bool = True) -> OpsError:
        """The error that an answer stands for that is no success."""
        told = told_reason(self.body)
        if told is not None:
            return OpsError(*told)
        excerpt = self.body[:_EXCERPT_BYTES].decode("utf-8", "replace").strip() or "no body"
        reason = "service_http_error"
        if self.status == 401:
            reason = "token_wrong" if has_token else "token_missing"
        return OpsError(reason, f"{self.what}: {self.status}: {excerpt}")


class HttpClient:
    """Asks one service, on a connection a request. seconds: of silence."""

    def __init__(self, target: Target, route: Route, tls: "TlsClient | None", seconds: float) -> None:
        self._target = target
        self._route = route
        self._tls = tls
        self._seconds = seconds

    def get(self, path: str, loop_id: str = "") -> Answer:
        """The answer, whatever its status. path: with its query.

        Raises OpsError: `agent_unreachable`, `deadline_exceeded`, `tls_failed`, `message_too_large`, or
        `service_response_invalid` for what is no HTTP.
        """
        target = self._target
        what = f"GET {target.path}{path}"
        client = http.client.HTTPConnection(target.host, target.port, timeout=self._seconds)
        headers = {"accept": "application/json", "user-agent": "spritemesh-check", "connection": "close"}
        headers |= dict(target.credentials(what, loop_id))
        try:
            client.sock = self._connection()
            client.request("GET", f"{target.path}{path}", headers=headers)
            response = client.getresponse()
            body = response.read(_MOST_BYTES + 1)
            found = {name.lower(): value for name, value in response.getheaders()}
        except TimeoutError as error:
            raise OpsError("deadline_exceeded", f"{what}: no answer within {self._seconds:g} s") from error
        except http.client.HTTPException as error:
            raise OpsError("service_response_invalid", f"{what}: the answer is no HTTP") from error
        except OSError as error:
            if self._tls is not None:
                # With TLS 1.3 a certificate of ours is refused only now.
                raise self._tls.failure(error) from error
            raise OpsError(
                "agent_unreachable", f"{what}: {error.strerror or 'the connection broke'}"
            ) from error
        finally:
            client.close()
        if len(body) > _MOST_BYTES:
            raise OpsError("message_too_large", f"{what}: the answer is longer than {_MOST_BYTES} bytes")
        return Answer(what, response.status, found, body)

    def refuse_plaintext(self, seconds: float) -> None:
        """Raise OpsError `tls_failed` when the service would rather be asked with TLS. seconds: at most."""
        refuse_plaintext(self._target, self._route, seconds)

    def _connection(self) -> socket.socket:
        connection = self._route.connection()
        return connection if self._tls is None else self._tls.secured(connection, http2=False)
