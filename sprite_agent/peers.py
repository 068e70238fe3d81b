"""Who is at the other end of a connection: what gRPC and TLS tell of it.

The names of a client's certificate are, in this order: its SPIFFE ids and other URIs, its DNS names, and,
where it has none of those, its common name (RFC 6125, 6.4.4). Addresses and e-mail addresses name nobody
here. Names that are not printable count as none: no list could show them.
"""

import binascii
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

_SPIFFE = "spiffe://"
# How a certificate may write a name down (RFC 5280, 4.1.2.4): what it has instead of a byte of zero.
_ENCODINGS = {"latin-1": 1, "utf-8": 1, "utf-16-be": 2, "utf-32-be": 4}


def address_of(context: Any) -> str:
    """The peer of a gRPC call as host:port, such as "127.0.0.1:4711" or "[::1]:4711"; "unix" for a socket."""
    kind, _, place = str(context.peer()).partition(":")
    return unquote(place) if kind in {"ipv4", "ipv6"} else kind


def identities_of(context: Any) -> tuple[str, ...]:
    """The names in the certificate that the peer of a gRPC call proved; none without one."""
    found: Mapping[str, Iterable[bytes]] = context.auth_context()
    certificate = _content(next(iter(found.get("x509_pem_cert", ())), b""))
    if not certificate:
        return ()  # most calls: without TLS there is nothing to compare
    uris, hosts, names = (
        [_whole(value, certificate) for value in found.get(key, ())]
        for key in ("peer_uri", "peer_dns", "x509_common_name")
    )
    return _identities(uris, hosts, names)


def identities_in(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The names in a certificate as `ssl.SSLSocket.getpeercert` tells it; the same as over gRPC."""
    if not certificate:
        return ()
    alternatives = certificate.get("subjectAltName", ())
    uris = [value for kind, value in alternatives if kind == "URI"]
    hosts = [value for kind, value in alternatives if kind == "DNS"]
    parts = [part for group in certificate.get("subject", ()) for part in group]
    return _identities(uris, hosts, [value for kind, value in parts if kind == "commonName"])


def _whole(value: bytes, certificate: bytes) -> str:
    """A name as the certificate has it; one that is no UTF-8, or goes on behind a zero, becomes unprintable.

    gRPC ends names at a zero, so that "spiffe://mesh/ops" and a zero and anything else would pass for the
    name in front. What is cut off stands in the certificate with the zero behind it.
    """
    name = value.decode("utf-8", "surrogateescape")
    for encoding, width in _ENCODINGS.items():
        if name.encode(encoding, "replace") + bytes(width) in certificate:
            return name + "\0"
    return name


@lru_cache(maxsize=1024)
def _content(pem: bytes) -> bytes:
    """The bytes of a certificate; none where it cannot be read. Each call of a connection asks for them."""
    lines = [line for line in pem.split(b"\n") if line and not line.startswith(b"-")]
    try:
        return binascii.a2b_base64(b"".join(lines))
    except binascii.Error:
        return b""


def _identities(uris: list[str], hosts: list[str], common_names: list[str]) -> tuple[str, ...]:
    uris = sorted(uris, key=lambda uri: not uri.startswith(_SPIFFE))  # of equals, the order stays
    names = [*uris, *hosts] or common_names[:1]
    return tuple(dict.fromkeys(name for name in names if name and name.isprintable()))
