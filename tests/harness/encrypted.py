"""Connections with TLS, as strangers make them: none of the code that is tested."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import httpx
from cryptography import x509

from tests.harness.agents import BEARER, CALL_SECONDS, TOKEN
from tests.harness.pki import Authority, Pair


def context_of(authority: Authority, pair: Pair | None = None) -> ssl.SSLContext:
    """Believes one authority, and shows a certificate."""
    context = ssl.create_default_context(cafile=authority.ca)
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    return context


@contextmanager
def secured(address: str, authority: Authority, pair: Pair | None = None) -> Iterator[grpc.Channel]:
    """A connection over gRPC of the test's own."""
    credentials = grpc.ssl_channel_credentials(
        authority.ca.read_bytes(), *((pair.key.read_bytes(), pair.cert.read_bytes()) if pair else ())
    )
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
    with grpc.secure_channel(address, credentials, options=options) as channel:
        yield channel


@contextmanager
def browsing(address: str, authority: Authority, pair: Pair | None = None) -> Iterator[httpx.Client]:
    """A client over HTTP with the token."""
    with httpx.Client(
        base_url=f"https://{address}",
        verify=context_of(authority, pair),
        trust_env=False,
        timeout=CALL_SECONDS,
        headers={"X-Ops-Token": TOKEN},
    ) as client:
        yield client


def serial_at(address: str, authority: Authority, pair: Pair | None = None) -> int:
    """Serial number of the certificate that a server shows. Raises ssl.SSLError when it refuses ours."""
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), CALL_SECONDS) as plain,
        context_of(authority, pair).wrap_socket(plain, server_hostname=host) as connection,
    ):
        shown = connection.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).serial_number


def call(channel: grpc.Channel, method: str, request: bytes = b"", *, token: bool = True) -> Any:
    """The status, message and trailers of a unary call, whatever they are."""
    stub: Any = channel.unary_unary(method)
    try:
        stub(request, metadata=BEARER if token else (), timeout=CALL_SECONDS)
    except grpc.RpcError as error:
        failed: Any = error
        return failed.code(), failed.details(), tuple(failed.trailing_metadata())
    return grpc.StatusCode.OK, "", ()
