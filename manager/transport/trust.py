"""TLS as a client: files become credentials, and failures are told by their cause.

Files are read anew for each connection, so that new certificates need no restart. A server that wants a
certificate, and one that wants TLS at all, hang up without a word, as gRPC tells it: who else is asked for
the reason is the server itself, by a second handshake.
"""

import re
import socket
import ssl
from collections.abc import Iterator

from manager.transport.base import Endpoint, is_http_url
from spritemesh.endpoints import Trust, is_unix_address
from spritemesh.errors import OpsError
from spritemesh.tls import (
    Origin,
    believe,
    client_context,
    present,
    read_pem,
    speaks_tls,
    system_authorities,
    verifying,
)
from spritemesh.tlsproblems import WANTS_TLS, problem, refused, told, unwanted

# Of the second handshake, and of the word after it.
_PROBE_SECONDS = 2.0
# How gRPC says that it reached somebody, and no connection came of it.
_REACHED = re.compile(
    r"failed to connect.*(?:handshake failed|Verification Check failed|Socket closed|reset by peer)",
    re.DOTALL,
)


class Files:
    """What the files of a trust hold now: PEM, b"" for what is not given. Raises OpsError
    `tls_files_invalid`, which names the file."""

    def __init__(self, trust: Trust) -> None:
        self._ca = self.cert = self.key = b""
        if trust.ca:
            ca = Origin(trust.named("ca"), trust.ca)
            self._ca = read_pem(ca)
            self.context = client_context()
            believe(self.context, self._ca, ca)
        else:
            self.context = verifying()
        if trust.cert:
            cert, key = Origin(trust.named("cert"), trust.cert), Origin(trust.named("key"), trust.key)
            self.cert, self.key = read_pem(cert), read_pem(key)
            present(self.context, self.cert, self.key, cert, key)

    @property
    def ca(self) -> bytes:
        """The authorities, those of the system where none are given."""
        return self._ca or system_authorities()


def explained(error: OpsError, endpoint: Endpoint) -> OpsError:
    """The error of a call over gRPC, or `tls_failed` with the cause when no connection came about for
    reasons of TLS. Takes seconds at worst, and makes a connection of its own."""
    if error.reason != "agent_unreachable" or not _REACHED.search(error.message):
        return error
    return _failure(endpoint, problem_of(endpoint)) or error


def unread(error: BaseException, endpoint: Endpoint, *, connected: bool) -> OpsError | None:
    """`tls_failed` when that is why a request over HTTP was never read by the server; None for others.

    connected: the client took the handshake for done. With TLS 1.3 it is told of its certificate later.
    """
    trust = endpoint.trust
    cause = next((cause for cause in _causes(error) if isinstance(cause, ssl.SSLError)), None)
    if cause is None or trust is None:
        return None
    return _failure(endpoint, refused(cause, trust) if connected else _problem(cause, endpoint))


def hung_up(endpoint: Endpoint) -> OpsError | None:
    """`tls_failed` when that may be why a server that has never answered hung up. Makes a connection."""
    return _failure(endpoint, problem_of(endpoint))


def problem_of(endpoint: Endpoint) -> str:
    """What is wrong with TLS between here and the server, found by a handshake; "" when nothing is found."""
    place = _place(endpoint)
    if place is None:
        return ""
    name, trust = _name(endpoint, place[0]), endpoint.trust
    try:
        if trust is None:
            plain = socket.create_connection(place, _PROBE_SECONDS)
            return WANTS_TLS if speaks_tls(plain, name) else ""
        context = Files(trust).context
        with (
            socket.create_connection(place, _PROBE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=name) as connection,
        ):
            return _word_after(connection, trust)
    except ssl.SSLError as error:
        return _problem(error, endpoint)
    except (OSError, OpsError):
        return ""


def _word_after(connection: ssl.SSLSocket, trust: Trust) -> str:
    """What the server says of the client's certificate, which it sees only after its own was believed."""
    try:
        if not connection.recv(1):
            return unwanted(trust)
    except TimeoutError:
        return ""
    except ssl.SSLError as error:
        return told(error, trust)
    except ConnectionError:
        return unwanted(trust)
    return ""


def _problem(error: ssl.SSLError, endpoint: Endpoint) -> str:
    place = _place(endpoint)
    return problem(error, endpoint.trust or Trust(), place[0] if place else "")


def _failure(endpoint: Endpoint, problem: str) -> OpsError | None:
    return OpsError("tls_failed", f"{endpoint.url}: {problem}") if problem else None


def _place(endpoint: Endpoint) -> tuple[str, int] | None:
    """Host and port of an endpoint; None without one."""
    if is_unix_address(endpoint.target):
        return None
    if is_http_url(endpoint.target):
        from urllib.parse import urlsplit

        parts = urlsplit(endpoint.target)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    host, _, port = endpoint.target.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _name(endpoint: Endpoint, host: str) -> str:
    """The name that the server's certificate has to have."""
    return (endpoint.trust.server_name if endpoint.trust is not None else "") or host


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
