"""Names in certificates of clients: both edges find the same, in the same order."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from sprite_agent.certificates import Certificates
from sprite_agent.guard import TlsFiles
from sprite_agent.http.calls import IDENTITIES
from sprite_agent.http.listener import Listener
from sprite_agent.peers import identities_in, identities_of
from sprite_agent.security import parse_address
from tests.harness.pki import Authority, Pair

SPIFFE, URI = "spiffe://mesh.test/ns/ops/sa/manager", "https://names.test/1"


_CASES: tuple[tuple[dict[str, Any], tuple[str, ...]], ...] = (
    ({"dns": ("b.test", "a.test"), "uris": (URI, SPIFFE)}, (SPIFFE, URI, "b.test", "a.test")),
    ({"uris": (SPIFFE,), "common_name": "manager"}, (SPIFFE,)),
    ({"dns": ("a.test", "a.test"), "common_name": "other.test"}, ("a.test",)),
    ({"common_name": "manager of ops é"}, ("manager of ops é",)),
    # What says where somebody is, or how to write to him, is no name; nor does it hide one.
    ({"addresses": ("10.0.0.1",), "emails": ("a@b.test",), "common_name": "manager"}, ("manager",)),
    ({"addresses": ("10.0.0.1",)}, ()),
    ({}, ()),
    # A name that goes on behind a zero is not the name in front of it; nor does it hide others.
    ({"uris": (f"{SPIFFE}\0.evil", URI), "common_name": "manager"}, (URI,)),
    ({"dns": ("a.test\0.evil.test",), "common_name": "manager"}, ()),
    ({"common_name": "manager\0 of nobody"}, ()),
)


async def test_both_edges_find_the_same_names(authority: Authority) -> None:
    server = authority.server()
    certificates = Certificates(TlsFiles(str(server.cert), str(server.key), str(authority.ca)))
    async with over_grpc(certificates) as ask_grpc, over_http(certificates) as ask_http:
        for names, found in _CASES:
            client = authority.pair("named", **names)
            assert await ask_grpc(authority, client) == found
            assert await ask_http(authority, client) == found


def test_names_that_cannot_be_printed_are_none() -> None:
    certificate = {
        "subject": ((("commonName", "manager"),),),
        "subjectAltName": (("DNS", "a\0.test"), ("DNS", "b\n.test"), ("URI", "")),
    }
    assert identities_in(certificate) == ()  # nor does the common name stand in for them

    class Context:
        @staticmethod
        def auth_context() -> dict[str, list[bytes]]:
            return {"peer_dns": [b"b\xff.test"], "x509_pem_cert": [b"eA=="]}

    assert identities_of(Context()) == ()


def test_connection_without_a_certificate_has_no_names() -> None:
    assert identities_in(None) == identities_in({}) == ()


@asynccontextmanager
async def over_grpc(certificates: Certificates) -> AsyncIterator[Any]:
    seen: list[tuple[str, ...]] = []

    async def call(_request: bytes, context: Any) -> bytes:
        seen.append(identities_of(context))
        return b""

    handlers: dict[str, Any] = {"Ask": grpc.unary_unary_rpc_method_handler(call)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Test", handlers),))
    port = server.add_secure_port("127.0.0.1:0", certificates.grpc_credentials())
    await server.start()

    async def ask(authority: Authority, pair: Pair) -> tuple[str, ...]:
        credentials = grpc.ssl_channel_credentials(
            authority.ca.read_bytes(), pair.key.read_bytes(), pair.cert.read_bytes()
        )
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
            method: Any = channel.unary_unary("/Test/Ask")
            await method(b"", timeout=10)
        return seen[-1]

    try:
        yield ask
    finally:
        await server.stop(None)


@asynccontextmanager
async def over_http(certificates: Certificates) -> AsyncIterator[Any]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse(scope["state"][IDENTITIES])(scope, receive, send)

    address = parse_address("127.0.0.1:0", field="--http", unix=False)
    listener = Listener(app, address, certificates=certificates)
    await listener.start()

    async def ask(authority: Authority, pair: Pair) -> tuple[str, ...]:
        context = ssl.create_default_context(cafile=authority.ca)
        context.load_cert_chain(pair.cert, pair.key)
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
            return tuple((await client.get(f"https://{listener.address}/")).json())

    try:
        yield ask
    finally:
        await asyncio.wait_for(listener.stop(), 10)
