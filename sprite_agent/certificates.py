"""A server's certificates, which may change at any time: each handshake gets those that are there by then.

Files are changed one after the other, or all at once behind a link as those of a Kubernetes Secret are. What
is there is checked as a whole; until it is right, the files before stay in force.
"""

import logging
import os
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple

from sprite_agent.guard import TlsFiles
from spritemesh.renewed import Renewed, Secret
from spritemesh.tls import Origin, believe, present, read_pem, server_context

if TYPE_CHECKING:
    import grpc

_log = logging.getLogger("sprite_agent")


class _Found(NamedTuple):
    """What was in the files. ca: b"" when clients need no certificates."""

    cert: bytes
    key: bytes
    ca: bytes


class _InForce(NamedTuple):
    """Files that were checked. context: for HTTP."""

    found: _Found
    context: ssl.SSLContext


class Certificates:
    """What the files of the flags hold; handshakes of any thread may ask.

    Raises OpsError `tls_files_invalid`, which names flag and file, when it is made.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._cert = Origin("--tls-cert", os.path.abspath(files.cert))
        self._key = Origin("--tls-key", os.path.abspath(files.key))
        self._ca = Origin("--tls-ca", os.path.abspath(files.ca)) if files.ca else None
        given = (self._cert, self._key, self._ca)
        self._in_force = Renewed(
            self._read,
            [origin.path for origin in given if origin is not None],
            Secret(self._key.path, str(self._key)),
            log=_log,
            kept="the files before",
            told=self._told,
        )

    @property
    def proves_peers(self) -> bool:
        """Whether clients need certificates."""
        return self._ca is not None

    def current(self) -> _InForce:
        """What a handshake that begins now is to use. Costs a stat a file; never raises."""
        return self._in_force.current()

    def context(self) -> ssl.SSLContext:
        """For an HTTP server: each handshake gets one of its own."""
        context = _Current(ssl.PROTOCOL_TLS_SERVER)
        context.certificates = self
        return context

    def grpc_credentials(self) -> "grpc.ServerCredentials":
        """For a gRPC server, which asks at each handshake.

        Where clients prove who they are, each is told the content anew, and so takes tickets of no session
        before: one that is resumed would not be looked at again, however long its certificate has expired.
        """
        import grpc

        told = self.current()

        def renewed() -> Any:
            """The files' content; None when it is the one before, which the types do not know."""
            nonlocal told
            found = self.current()
            if found is told and not self.proves_peers:
                return None
            told = found
            return _configuration(found.found)

        return grpc.dynamic_ssl_server_credentials(_configuration(told.found), renewed, self.proves_peers)

    def _told(self, before: _InForce, now: _InForce) -> str | None:
        return None if now.found == before.found else f"{self._cert} and the files beside it were read anew"

    def _read(self) -> _InForce:
        found = _Found(
            read_pem(self._cert), read_pem(self._key), read_pem(self._ca) if self._ca is not None else b""
        )
        context = server_context()
        context.sslobject_class = _Handshake
        present(context, found.cert, found.key, self._cert, self._key)
        if self._ca is not None:
            believe(context, found.ca, self._ca)
            context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["http/1.1"])
        return _InForce(found, context)


class _Current(ssl.SSLContext):
    """Begins each handshake with the certificates that are there by then.

    To load new ones into one context would keep authorities that were removed.
    """

    certificates: Certificates

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **kwargs: Any
    ) -> ssl.SSLObject:
        """asyncio asks for this at each connection."""
        made = self.certificates.current().context.wrap_bio(incoming, outgoing, *args, **kwargs)
        if isinstance(made, _Handshake):
            made.outgoing = outgoing
        return made


class _Handshake(ssl.SSLObject):
    """Tells a client why it is refused.

    asyncio closes the connection with the alert still in its hands. As long as it takes the handshake for one
    that goes on, it sends what there is; then the client hangs up, or the time for handshakes ends.
    """

    outgoing: ssl.MemoryBIO | None = None
    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        """One step."""
        if self._failure is not None:
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            if self.outgoing is None or not self.outgoing.pending:
                raise
            self._failure = error
            raise ssl.SSLWantReadError from error


def _configuration(found: _Found) -> "grpc.ServerCertificateConfiguration":
    import grpc

    return grpc.ssl_server_certificate_configuration([(found.key, found.cert)], found.ca or None)
