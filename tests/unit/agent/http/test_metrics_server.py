"""The listener for scrapers: who may scrape, what is refused, and which format is answered."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from sprite_agent.admission import Admission
from sprite_agent.http.metrics import MetricsServer
from sprite_agent.limits import Limits
from sprite_agent.security import TokenCheck, parse_address
from spritemesh.errors import OpsError
from tests.harness.agents import TOKEN
from tests.harness.http import WITH_TOKEN, HttpAnswer, ask, get, post

BEARER = f"Authorization: Bearer {TOKEN}\r\n".encode()


class Numbers:
    """A source whose snapshots are numbered; the collector notes in which thread it was asked."""

    def __init__(self) -> None:
        self.taken = 0
        self.threads: set[int] = set()
        self.fault: Exception | None = None

    def snapshot(self) -> "Numbers":
        self.taken += 1
        return self

    def collect(self) -> Iterator[Metric]:
        self.threads.add(threading.get_ident())
        if self.fault is not None:
            raise self.fault
        yield GaugeMetricFamily("snapshots", "Snapshots taken.", self.taken)


@asynccontextmanager
async def served(source: Numbers, token: str = TOKEN) -> AsyncIterator[str]:
    server = MetricsServer(
        source, parse_address("127.0.0.1:0", field="--metrics"), Admission(TokenCheck(token))
    )
    assert await server.start() == server.address
    try:
        yield server.address
    finally:
        await server.stop()
        await server.stop()


async def asked(address: str, request: bytes, *, method: str = "") -> HttpAnswer:
    return await asyncio.to_thread(ask, address, request, method=method)


@pytest.fixture
def source() -> Numbers:
    return Numbers()


@pytest.mark.parametrize("path", ["/metrics", "/", "/metrics?name[]=other"])
async def test_each_scrape_is_of_a_snapshot_of_its_own(source: Numbers, path: str) -> None:
    async with served(source) as address:
        for number in (1, 2):
            answer = await asked(address, get(path, BEARER))
            assert answer.status == 200
            assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert f"\nsnapshots {number}.0\n" in answer.body.decode()
    assert threading.get_ident() not in source.threads


async def test_head_answers_without_a_body(source: Numbers) -> None:
    async with served(source) as address:
        answer = await asked(address, get("/metrics", BEARER, method="HEAD"), method="HEAD")
    assert answer.status == 200


@pytest.mark.parametrize(
    ("accept", "type_", "ending"),
    [
        (
            "application/openmetrics-text; version=1.0.0",
            "application/openmetrics-text; version=1.0.0",
            "# EOF\n",
        ),
        ("text/html, */*", "text/plain; version=0.0.4", "snapshots 1.0\n"),
        ("application/openmetrics-text; version=one", "text/plain; version=0.0.4", "snapshots 1.0\n"),
    ],
)
async def test_a_scraper_has_the_format_that_it_asks_for(
    source: Numbers, accept: str, type_: str, ending: str
) -> None:
    async with served(source) as address:
        answer = await asked(address, get("/metrics", BEARER + f"Accept: {accept}\r\n".encode()))
    assert answer.headers["content-type"].startswith(type_)
    assert answer.body.decode().endswith(ending)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (get("/metrics", b""), 401, "unauthorized"),
        (get("/metrics", b"Authorization: Bearer other\r\n"), 401, "unauthorized"),
        (get("/unknown", b""), 401, "unauthorized"),
        (get("/unknown", BEARER), 404, "not_found"),
        (post("/metrics", b"123", WITH_TOKEN), 405, "unsupported_method"),
        (get("/metrics", BEARER + b"X: " + b"x" * Limits().metadata_bytes + b"\r\n"), 400, "invalid_request"),
    ],
)
async def test_what_is_no_scrape_is_refused(source: Numbers, request_: bytes, status: int, code: str) -> None:
    async with served(source) as address:
        answer = await asked(address, request_)
    assert answer.error == (status, code)
    assert source.taken == 0
    if status == 405:
        assert answer.headers["allow"] == "GET, HEAD"


async def test_an_open_server_answers_nothing_that_a_strange_page_asks(source: Numbers) -> None:
    async with served(source, token="") as address:
        local = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n"
        assert (await asked(address, local + b"\r\n")).status == 200
        refused = await asked(address, local + b"Origin: http://evil.example\r\n\r\n")
        assert refused.error == (403, "foreign_origin")
        assert (await asked(address, get("/metrics", b""))).error == (403, "foreign_origin")


async def test_a_defect_is_no_more_than_a_status(source: Numbers, caplog: pytest.LogCaptureFixture) -> None:
    source.fault = RuntimeError("secret")
    async with served(source) as address:
        answer = await asked(address, get("/metrics", BEARER))
        assert answer.error == (500, "agent_fault")
        assert b"secret" not in answer.body
        assert "secret" in caplog.text
        source.fault = None
        assert (await asked(address, get("/metrics", BEARER))).status == 200


async def test_an_address_in_use_is_a_refusal_of_the_flag(source: Numbers) -> None:
    async with served(source) as address:
        with pytest.raises(OpsError) as caught:
            MetricsServer(source, parse_address(address, field="--metrics"), Admission(TokenCheck("")))
    assert (caught.value.reason, caught.value.field) == ("address_unavailable", "--metrics")
