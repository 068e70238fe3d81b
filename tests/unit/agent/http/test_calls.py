"""One request: its query, and a body that may be anything."""

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from sprite_agent.http import calls
from sprite_agent.http.calls import Call
from sprite_agent.limits import Limits
from spritemesh.errors import OpsError

LIMITS = Limits(request_seconds=0.02)


def call(*pieces: Any, path: bytes = b"/ops/control", query: bytes = b"", **headers: str) -> Call:
    """A call whose body comes in these pieces; a number: nothing for so many seconds; None: it breaks off."""
    coming = list(pieces)
    headers.setdefault("transfer_encoding", "chunked")

    async def receive() -> dict[str, Any]:
        piece = coming.pop(0)
        if isinstance(piece, float):
            await asyncio.sleep(piece)
            piece = b""
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(coming)}

    scope = {
        "type": "http",
        "method": "POST",
        "raw_path": path,
        "query_string": query,
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items() if value
        ],
    }
    return Call(Request(scope, receive), LIMITS)


async def refused(found: Call) -> str:
    with pytest.raises(OpsError) as caught:
        await found.body()
    return caught.value.reason


async def test_a_body_comes_in_pieces() -> None:
    assert await call(b"a", b"", b"b").body() == b"ab"


async def test_a_request_without_a_body_waits_for_none() -> None:
    for length in ("", "0"):
        found = call(transfer_encoding="", content_length=length)
        assert await found.body() == b""
        assert await found.discard_rest()


async def test_a_body_has_a_limit() -> None:
    assert len(await call(b"x" * LIMITS.request_bytes).body()) == LIMITS.request_bytes
    large = call(b"x" * LIMITS.request_bytes, b"x", b"x")
    assert await refused(large) == "body_too_large"
    assert await large.discard_rest()
    announced = call(b"x", transfer_encoding="", content_length=str(LIMITS.request_bytes + 1))
    assert await refused(announced) == "body_too_large"


async def test_a_slow_body_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_DISCARD_SECONDS", 0.02)
    slow = call(b"{", 60.0, b"}")
    assert await refused(slow) == "body_timeout"
    assert not await call(60.0, b"}").discard_rest()


async def test_an_endless_body_is_not_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_MAX_DISCARDED_BYTES", 10)
    endless = call(*[b"xxxx"] * 10)
    assert not await endless.discard_rest()
    assert not await endless.discard_rest()
    assert not await call(b"x", transfer_encoding="", content_length="11").discard_rest()


async def test_a_client_that_leaves_is_noticed() -> None:
    with pytest.raises(ClientDisconnect):
        await call(b"{", None).body()
    with pytest.raises(ClientDisconnect):
        await call(b"{", None).discard_rest()


async def test_a_client_that_asks_first_gets_its_answer_first() -> None:
    assert not await call(b"x", expect="100-continue").discard_rest()


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/ops/x", "/ops/x"),
        (b"http://host:1/ops/x", "/ops/x"),
        (b"https://host", "/"),
        (b"*", "*"),
        (b"//host/ops", "//host/ops"),
        (b"/a%2Fb", "/a%2Fb"),
        (b"/http://b", "/http://b"),
    ],
)
def test_the_path_is_as_sent(target: bytes, path: str) -> None:
    assert call(path=target).path == path
