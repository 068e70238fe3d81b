"""The bridge itself: defects, and being full."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import httpx
import pytest

from sprite_agent.desk import ControlDesk
from sprite_agent.drain import Drain
from sprite_agent.http.bridge import Bridge
from sprite_agent.runtime.loop import LoopReader
from sprite_agent.runtime.repository import Repository
from sprite_agent.security import TokenCheck
from tests.harness.loops import Repo, events


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as found:
        yield found


def client(repo: Repo, pool: ThreadPoolExecutor, *, max_streams: int = 10) -> httpx.AsyncClient:
    """Talks to an open bridge of the repository, which controls nothing."""
    drain = Drain(lambda: None, max_streams)
    desk = cast("ControlDesk", None)
    bridge = Bridge(Repository(str(repo.root)), TokenCheck(""), drain, pool, desk)
    transport = httpx.ASGITransport(cast("Any", bridge))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


async def test_a_defect_is_no_more_than_a_status(
    repo: Repo, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    repo.loop("alpha", events(1, 1))

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(LoopReader, "snapshot", broken)
    async with client(repo, pool) as calls:
        answer = await calls.get("/ops/snapshot", params={"loopId": "alpha"})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "agent_fault"
    assert "secret" not in answer.text
    assert "secret" in caplog.text


async def test_what_cannot_be_spooled_is_told_before_the_first_byte(
    repo: Repo, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.loop("alpha", events(1, 100))
    monkeypatch.setattr("sprite_agent.http.events._MEMORY_BYTES", 1)
    monkeypatch.setattr("tempfile.tempdir", str(repo.root / "none"))
    async with client(repo, pool) as calls:
        answer = await calls.get("/ops/events", params={"loopId": "alpha"})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "state_unwritable"


async def test_a_full_agent_says_when_to_come_back(repo: Repo, pool: ThreadPoolExecutor) -> None:
    async with client(repo, pool, max_streams=0) as calls:
        answer = await calls.get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "too_many_streams"
    assert int(answer.headers["retry-after"]) > 0
