"""`sprite-agent serve --metrics`, scraped."""

import os
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from superloop.ops.v1 import sprite_pb2
from tests.harness import secrets
from tests.harness.agents import (
    BEARER,
    CALL_SECONDS,
    ROOT,
    TOKEN,
    Agent,
    StartAgent,
    environment,
    serve_words,
)
from tests.harness.http import ask, get
from tests.harness.loops import LoopFiles, Repo, events
from tests.harness.metrics import Scrape
from tests.harness.refusals import refusal
from tests.harness.waiting import wait_for

WATCH = "superloop.ops.v1.SpriteService/WatchEvents"


def scrape(agent: Agent, token: str = TOKEN) -> Scrape:
    answer = ask(agent.ready["metrics"], get("/metrics", f"Authorization: Bearer {token}\r\n".encode()))
    assert answer.status == 200
    return Scrape(answer.body.decode())


def test_an_agent_tells_all_that_docs_tell(start: StartAgent, repo: Repo) -> None:
    repo.loop("alpha", events(1, 3))
    repo.running(os.getpid())
    agent = start("--metrics", "127.0.0.1:0")
    found = scrape(agent)
    found.check("sprite_agent", "Agent")
    assert found.value("sprite_agent_runtime_alive") == 1
    assert 0 < found.value("process_resident_memory_bytes") < 100e6


def test_streams_and_refusals_are_counted(start: StartAgent, loop: LoopFiles) -> None:
    loop.append(events(1, 3))
    agent = start("--metrics", "127.0.0.1:0", "--http", "127.0.0.1:0")
    with agent.stub() as stub:
        wanted = sprite_pb2.WatchEventsRequest(loop_id="alpha", follow=True)
        stream = stub.WatchEvents(wanted, metadata=BEARER, timeout=CALL_SECONDS)
        next(stream)
        found = scrape(agent)
        assert found.value("sprite_agent_streams") == 1
        assert found.value("sprite_agent_loop_log_lines", loop="alpha") == 3
        stream.cancel()
        wait_for(lambda: scrape(agent).value("sprite_agent_streams") == 0, what="the stream to end")
        alpha, none = (sprite_pb2.GetSnapshotRequest(loop_id=name) for name in ("alpha", "none"))
        refusal(lambda: stub.GetSnapshot(alpha, timeout=CALL_SECONDS))
        refusal(lambda: stub.GetSnapshot(none, metadata=BEARER, timeout=CALL_SECONDS))
        list(stub.WatchEvents(sprite_pb2.WatchEventsRequest(loop_id="alpha"), metadata=BEARER))
    ask(agent.ready["http"], get("/healthz"))
    ask(agent.ready["http"], get("/somewhere"))
    calls, snapshot = "sprite_agent_calls_total", "superloop.ops.v1.SpriteService/GetSnapshot"
    found = scrape(agent)
    assert found.value(calls, edge="grpc", method=WATCH, reason="cancelled") == 1
    assert found.value(calls, edge="grpc", method=WATCH, reason="ok") == 1
    assert found.value(calls, edge="grpc", method=snapshot, reason="token_missing") == 1
    assert found.value(calls, edge="grpc", method=snapshot, reason="loop_not_found") == 1
    assert found.value(calls, edge="http", method="GET /healthz", reason="ok") == 1
    assert found.value(calls, edge="http", method="_unknown", reason="unknown_path") == 1


def test_scrapers_have_the_token_of_all_or_one_of_their_own(start: StartAgent, tmp_path: Path) -> None:
    agent = start("--metrics", "127.0.0.1:0")
    assert ask(agent.ready["metrics"], get("/metrics", b"")).error == (401, "unauthorized")
    assert scrape(agent).families
    file = secrets.write(tmp_path / "scrapers", f"{secrets.METRICS_TOKEN}\n")
    other = start("--metrics", "127.0.0.1:0", "--metrics-token-file", str(file))
    assert scrape(other, secrets.METRICS_TOKEN).families
    assert ask(other.ready["metrics"], get("/metrics")).error == (401, "unauthorized")


def test_an_open_agent_is_scraped_without_a_token(start: StartAgent) -> None:
    agent = start("--metrics", "127.0.0.1:0", token=("--allow-unauthenticated",))
    answer = ask(agent.ready["metrics"], b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert answer.status == 200


def test_without_the_flag_nothing_is_listened_on(shared_agent: Agent) -> None:
    assert shared_agent.ready["metrics"] is None


def test_scrapes_change_nothing_about_health(start: StartAgent) -> None:
    agent = start("--metrics", "127.0.0.1:0")
    with grpc.insecure_channel(agent.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for _ in range(20):
            scrape(agent)
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    agent.signal()
    assert agent.wait() == 0


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--metrics", "0.0.0.0:0", "--allow-unauthenticated"), "insecure_bind_refused"),
        (("--metrics", "127.0.0.1:0"), "token_not_configured"),
        (("--metrics", "localhost", "--token", "t"), "invalid_request"),
        (("--metrics", "unix:///tmp/metrics", "--token", "t"), "invalid_request"),
        (("--metrics", "192.0.2.1:1", "--token", "t"), "address_unavailable"),
        (("--metrics-token-file", "/nowhere/token", "--token", "t"), "invalid_request"),
    ],
)
def test_a_command_line_that_would_expose_metrics_is_refused(
    repo: Repo, flags: tuple[str, ...], reason: str
) -> None:
    words = serve_words(repo.root, "--grpc", "127.0.0.1:0", *flags)
    ended = subprocess.run(
        words, capture_output=True, cwd=ROOT, env=environment(), timeout=CALL_SECONDS, check=False
    )
    assert ended.returncode == 1
    assert reason in ended.stderr.decode()
    assert b"Traceback" not in ended.stderr


def test_the_first_line_tells_where(start: StartAgent) -> None:
    agent = start("--metrics", "localhost:0")
    host, _, port = agent.ready["metrics"].rpartition(":")
    assert host == "localhost"
    assert int(port) > 0
    assert list(agent.ready) == ["ready", "grpc", "http", "metrics"]
