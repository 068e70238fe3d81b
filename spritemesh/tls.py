"""Certificates as both ends of a connection use them: read, checked, and made into contexts.

What is in a file is checked before anybody uses it, so that a connection does not fail for a reason that
nobody tells. No message quotes a file.
"""

import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from spritemesh.errors import OpsError

# A bundle of all authorities there are takes 0.3 MiB.
MAX_PEM_BYTES = 4 * 1024 * 1024
_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----", re.ASCII
)
_BEGINNING = b"-----BEGIN CERTIFICATE-----"
_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----")
_ENCRYPTED = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")


class Origin(NamedTuple):
    """A file, and the flag or member that it is given by: begins messages, such as `--tls-key /etc/a.key`."""

    field: str
    path: str

    def __str__(self) -> str:
        return f"{self.field} {self.path}"

    def fault(self, problem: str) -> OpsError:
        """That the file cannot be used."""
        return OpsError("tls_files_invalid", f"{self} {problem}", field=self.field)


def verifying() -> ssl.SSLContext:
    """Verifies names and certificates against the system's authorities (SSL_CERT_FILE is OpenSSL's own)."""
    return ssl.create_default_context()


def client_context() -> ssl.SSLContext:
    """Verifies names and certificates, and believes nobody yet. TLS 1.2 at least, as for servers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _bound(context)
    return context


def server_context() -> ssl.SSLContext:
    """For a server, without a certificate yet. It resumes no sessions: a client that came with a certificate
    is looked at each time."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _bound(context)
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context


def read_pem(origin: Origin) -> bytes:
    """What is in a file. Raises OpsError `tls_files_invalid`."""
    try:
        with open(origin.path, "rb") as file:
            data = file.read(MAX_PEM_BYTES + 1)
    except (OSError, ValueError) as error:
        raise origin.fault(f"cannot be read: {getattr(error, 'strerror', None) or 'no path'}") from error
    if len(data) > MAX_PEM_BYTES:
        raise origin.fault(f"is larger than {MAX_PEM_BYTES} bytes")
    return data


def believe(context: ssl.SSLContext, data: bytes, origin: Origin) -> None:
    """Believe in the authorities of a PEM file. An authority in between is one, too, as gRPC has it.

    Raises OpsError `tls_files_invalid`.
    """
    try:
        context.load_verify_locations(cadata=_certificates(data, origin))
    except (ssl.SSLError, ValueError) as error:
        raise origin.fault("holds a certificate that cannot be read") from error
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def certificates_in(data: bytes) -> list[bytes]:
    """The certificates of a PEM file, each PEM."""
    return _CERTIFICATE.findall(data)


def present(
    context: ssl.SSLContext, cert: bytes, key: bytes, cert_origin: Origin, key_origin: Origin
) -> None:
    """Prove to be who a certificate says. cert: chain, its own first; key: without a passphrase; both PEM.

    Raises OpsError `tls_files_invalid` for what is no pair, or cannot be loaded now.
    """
    chain = _certificates(cert, cert_origin)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=chain)
    except (ssl.SSLError, ValueError) as error:
        raise cert_origin.fault("holds a certificate that cannot be read") from error
    if any(word in key for word in _ENCRYPTED):
        raise key_origin.fault("needs a passphrase: give a key without one")
    if not _KEY.search(key):
        raise key_origin.fault("holds no private key in PEM")
    try:
        with _in_memory(chain.encode() + b"\n" + key) as path:
            context.load_cert_chain(path, password=_no_passphrase)
    except ssl.SSLError as error:
        problem = error.reason or ""
        if problem == "KEY_VALUES_MISMATCH":
            raise key_origin.fault(f"is not the key of {cert_origin}") from error
        # OpenSSL's words for keys and digests that are too weak begin so.
        weak = problem.startswith(("EE_", "CA_"))
        raise (cert_origin if weak else key_origin).fault(f"cannot be used: {problem}") from error
    except OSError as error:
        # Of the process: no descriptor is free, or there is no /proc.
        raise key_origin.fault(f"cannot be loaded: {error.strerror or 'nobody says why'}") from error
    except ValueError as error:
        raise key_origin.fault("needs a passphrase: give a key without one") from error


def system_authorities() -> bytes:
    """The authorities that this system believes in, PEM; SSL_CERT_FILE and SSL_CERT_DIR count, as for
    OpenSSL. Raises OpsError `tls_files_invalid` when there are none."""
    paths = ssl.get_default_verify_paths()
    # A directory has each under several names.
    found: dict[bytes, None] = {}
    if paths.cafile:
        found = dict.fromkeys(_CERTIFICATE.findall(read_pem(Origin("SSL_CERT_FILE", paths.cafile))))
    elif paths.capath:
        try:
            names = sorted(os.listdir(paths.capath))
        except OSError as error:
            raise Origin("SSL_CERT_DIR", paths.capath).fault(f"cannot be read: {error.strerror}") from error
        for name in names:
            with suppress(OpsError):
                data = read_pem(Origin("SSL_CERT_DIR", os.path.join(paths.capath, name)))
                found |= dict.fromkeys(_CERTIFICATE.findall(data))
    if not found:
        raise OpsError("tls_files_invalid", "this system believes in no authorities: give --tls-ca")
    return b"\n".join(found)


def _bound(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2


def _certificates(data: bytes, origin: Origin) -> str:
    """The certificates of a PEM file, without what stands between them."""
    found = _CERTIFICATE.findall(data)
    if not found:
        raise origin.fault("holds no certificate in PEM")
    if len(found) != data.count(_BEGINNING):
        raise origin.fault("holds a certificate that is cut off")
    return b"\n".join(found).decode("ascii")


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """The path of a file with `data` that is on no disk: OpenSSL takes pairs from files only, and those at
    hand may change between two readings."""
    handle = os.memfd_create("pem")
    try:
        os.write(handle, data)
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def _no_passphrase() -> str:
    """Instead of a question on the terminal."""
    raise ValueError("no passphrase")


def speaks_tls(connection: socket.socket, server_name: str | None = None) -> bool:
    """Whether the other side of a new connection, which is closed, answers a handshake: with its certificate,
    or by refusing one that shows none. Nothing is said over it."""
    context = client_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with connection, context.wrap_socket(connection, server_hostname=server_name):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except OSError:
        return False
