"""The TLS handshake with an agent: whose certificate it shows, who made it, and for how long it is good."""

import socket
import ssl
from collections.abc import Mapping
from typing import Any

from sprite_agent.probe.lifetime import Chain, Judged, faults_of, judge_lifetimes, lifetime_of, lifetimes_in
from sprite_agent.probe.steps import Found
from sprite_agent.probe.target import Target
from spritemesh.endpoints import Trust
from spritemesh.errors import OpsError
from spritemesh.tls import Origin, believe, client_context, present, read_pem, system_authorities
from spritemesh.tlsproblems import UNKNOWN_AUTHORITY, problem, unwanted

_SHOWN_NAMES = 4


class TlsClient:
    """Connects to one target as the manager would. Make it where there is TLS."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._trust = target.trust or Trust()
        # Names of the certificate that was shown, once there was a handshake.
        self._names: list[str] = []

    @property
    def server_name(self) -> str:
        """The name that the peer's certificate must have; "": that of the address."""
        if self._target.pinned:
            return next((name for name in self._names if "/" not in name and "*" not in name), "")
        return self._trust.server_name

    def files(self) -> tuple[bytes, bytes | None, bytes | None]:
        """Authorities, and the client's key and certificate chain, PEM. Raises `tls_files_invalid`."""
        trust = self._trust
        ca = read_pem(self._origin("ca")) if trust.ca else system_authorities()
        if not trust.cert:
            return ca, None, None
        return ca, read_pem(self._origin("key")), read_pem(self._origin("cert"))

    def secured(self, connection: socket.socket, *, http2: bool) -> ssl.SSLSocket:
        """The connection after a handshake. Closes it, and raises OpsError `tls_failed` or
        `tls_files_invalid`, when there cannot be one."""
        target = self._target
        try:
            context = self._context()
            if http2:
                context.set_alpn_protocols(["h2"])
            name = self._trust.server_name or target.host
            return context.wrap_socket(connection, server_hostname=None if target.pinned else name)
        except OSError as error:
            connection.close()
            raise self.failure(error) from error
        except BaseException:
            connection.close()
            raise

    def handshake(self, connection: socket.socket) -> Found:
        """The step. Raises OpsError as `secured`."""
        http2 = not self._target.is_http
        with self.secured(connection, http2=http2) as secured:
            certificate = secured.getpeercert() or {}
            self._names = _names_of(certificate)
            if http2:
                # With TLS 1.3 a server refuses a client's certificate after the handshake, in place of what
                # an HTTP/2 server says first.
                try:
                    ended = not secured.recv(1)
                except OSError as error:
                    raise self.failure(error) from error
                if ended:
                    raise self.failure(None)
            lifetimes: dict[str, Judged] = {"": lifetime_of(certificate), **self._own_lifetime()}
            return judge_lifetimes(_told(certificate, self._names, secured.version() or "TLS"), lifetimes)

    def failure(self, error: OSError | None) -> OpsError:
        """What went wrong on an encrypted connection, as `tls_failed`. None: the other side ended it."""
        return OpsError("tls_failed", self._problem(error))

    def _problem(self, error: OSError | None) -> str:
        if isinstance(error, TimeoutError):
            return "the other side does not go on with TLS: is it an agent without?"
        if isinstance(error, ssl.SSLCertVerificationError):
            if self._target.pinned and error.verify_code in UNKNOWN_AUTHORITY:
                return f"the agent shows another certificate than {self._trust.ca}: it runs on older files"
            return problem(error, self._trust, self._target.host)
        if error is None or isinstance(error, ConnectionError | ssl.SSLEOFError):
            return self._own_fault() or unwanted(self._trust)
        if not isinstance(error, ssl.SSLError):
            return f"the connection failed: {error.strerror or 'nobody says why'}"
        found = problem(error, self._trust, self._target.host)
        if "ALERT" in (error.reason or ""):
            found = self._own_fault() or found
        return found or f"the connection failed: {error.reason or error.strerror}"

    def _own_fault(self) -> str:
        """What this side's certificate is refused for, as far as that can be told here."""
        return "; ".join(faults_of(self._own_lifetime()))

    def _own_lifetime(self) -> dict[str, Chain]:
        """That of this side's certificates, by what begins the words on it; empty without one."""
        if not self._trust.cert:
            return {}
        origin = self._origin("cert")
        return {f"{origin} ": Chain(lifetimes_in(read_pem(origin)))}

    def _context(self) -> ssl.SSLContext:
        context = client_context()
        ca, key, cert = self.files()
        believe(context, ca, self._origin("ca"))
        if cert is not None and key is not None:
            present(context, cert, key, self._origin("cert"), self._origin("key"))
        if self._target.pinned:
            context.check_hostname = False
        return context

    def _origin(self, member: str) -> Origin:
        return Origin(self._trust.named(member), getattr(self._trust, member))


def _told(certificate: Mapping[str, Any], names: list[str], version: str) -> str:
    shown = ", ".join(names[:_SHOWN_NAMES]) or "no name"
    more = len(names) - _SHOWN_NAMES
    issuer = _common_name(certificate, "issuer") or "nobody named"
    return f"{version}; names {shown}{f' and {more} more' if more > 0 else ''}; issued by {issuer}"


def _names_of(certificate: Mapping[str, Any]) -> list[str]:
    names = [str(value) for _, value in certificate.get("subjectAltName", ())]
    return names or [name for name in (_common_name(certificate, "subject"),) if name]


def _common_name(certificate: Mapping[str, Any], member: str) -> str:
    """Of subject or issuer; of one without, its organization."""
    parts = {key: str(value) for group in certificate.get(member, ()) for key, value in group}
    return parts.get("commonName") or parts.get("organizationName") or ""
