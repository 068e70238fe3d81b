"""The bridge itself: defects, and being full."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, cast

import httpx
import pytest

from manager.transport.http_client import RETRIED_STATUSES
from sprite_agent.admission import Admission
from sprite_agent.deadlines import late
from sprite_agent.desk import ControlDesk
from sprite_agent.drain import Drain
from sprite_agent.http.answers import error_answer
from sprite_agent.http.bridge import Bridge
from sprite_agent.limits import Limits
from sprite_agent.runtime.loop import LoopReader
from sprite_agent.runtime.repository import Repository
from sprite_agent.security import TokenCheck
from tests.harness.loops import Repo, events


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as found:
        yield found


def client(
    repo: Repo,
    pool: ThreadPoolExecutor,
    *,
    max_streams: int = 10,
    limits: Limits | None = None,
    proves_peers: bool = False,
) -> httpx.AsyncClient:
    """Talks to a bridge of the repository that wants no token, and controls nothing."""
    drain = Drain(lambda: None, max_streams)
    desk = cast("ControlDesk", None)
    admission = Admission(TokenCheck(""), limits, proves_peers=proves_peers)
    bridge = Bridge(Repository(str(repo.root)), admission, drain, pool, desk)
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


async def test_an_answer_that_takes_too_long_is_refused(
    repo: Repo, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.loop("alpha", events(1, 1000))
    go = Event()

    def stuck(*_: object, **__: object) -> None:
        go.wait(10)

    monkeypatch.setattr(LoopReader, "snapshot", stuck)
    async with client(repo, pool, limits=Limits(unary_seconds=0.02)) as calls:
        answer = await calls.get("/ops/snapshot", params={"loopId": "alpha"})
    go.set()
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    assert "0.02 s" in answer.json()["error"]["message"]


async def test_a_document_has_more_time_and_not_for_ever(repo: Repo, pool: ThreadPoolExecutor) -> None:
    repo.loop("alpha", events(1, 20_000))
    async with client(repo, pool, limits=Limits(unary_seconds=0.00001)) as calls:
        answer = await calls.get("/ops/events", params={"loopId": "alpha"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    async with client(repo, pool, limits=Limits(unary_seconds=10)) as calls:
        assert (await calls.get("/ops/events", params={"loopId": "alpha"})).status_code == 200


def test_control_that_takes_too_long_is_answered_with_what_no_v1_client_repeats() -> None:
    assert error_answer(late(1, control=True), control=True).status_code not in RETRIED_STATUSES
    assert error_answer(late(1)).status_code in RETRIED_STATUSES


async def test_a_certificate_that_a_browser_shows_by_itself_does_not_open_the_bridge_to_pages(
    repo: Repo, pool: ThreadPoolExecutor
) -> None:
    body = {"loopId": "alpha", "intent": "cancel"}
    async with client(repo, pool, proves_peers=True) as calls:
        for origin in ("https://evil.example", "null"):
            answer = await calls.post("/ops/control", json=body, headers={"Origin": origin})
            assert answer.status_code == 403
            assert answer.json()["error"]["code"] == "foreign_origin"
        # It is meant to be reached from elsewhere.
        assert (await calls.get("/healthz", headers={"Host": "sprite.example"})).status_code == 200


async def test_a_full_agent_says_when_to_come_back(repo: Repo, pool: ThreadPoolExecutor) -> None:
    async with client(repo, pool, max_streams=0) as calls:
        answer = await calls.get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "too_many_streams"
    assert int(answer.headers["retry-after"]) > 0
