"""`ops-manager doctor` towards one address: each cause is found at its step, and named."""

import json
import time
from pathlib import Path

import pytest

from spritemesh import __version__
from tests.harness.agents import TOKEN, StartAgent
from tests.harness.clocks import Clock
from tests.harness.loops import Repo, event, events
from tests.harness.manager import run
from tests.harness.peers import peer, unused_address
from tests.harness.receiver import Answer, receiving
from tests.integration.doctor.conftest import Doctor

GRPC_STEPS = (
    "resolve connect tls health token signature clock version loops snapshot stream".split()  # noqa: SIM905
)
HTTP_STEPS = [name for name in GRPC_STEPS if name != "loops"]
QUICK = ("--timeout", "1")


def test_agent_that_is_well_passes_every_step_over_both_protocols(
    repo: Repo, start: StartAgent, doctor: Doctor
) -> None:
    repo.loop("alpha", events(1, 30))
    agent = start("--http", "127.0.0.1:0")
    variables = {"OPS_MANAGER_SERVICE_TOKEN": TOKEN}
    over_grpc = doctor("--service-base-url", agent.url, **variables)
    assert [step["step"] for step in over_grpc.steps] == GRPC_STEPS
    assert {name for name, result in over_grpc.results().items() if result != "ok"} == {"tls", "signature"}
    assert f"agent {__version__} (the same here)" in over_grpc.step("version")["detail"]
    assert "can control" in over_grpc.step("version")["detail"]
    assert over_grpc.step("loops")["detail"] == "1: alpha"
    assert "opened, 10 events, 1 bookmarks, max_events_reached" in over_grpc.step("stream")["detail"]

    over_http = doctor("--service-base-url", agent.http_url, "--loop", "alpha", **variables)
    assert [step["step"] for step in over_http.steps] == HTTP_STEPS
    assert {name for name, result in over_http.results().items() if result != "ok"} == {"tls", "signature"}
    assert f"agent {__version__}" in over_http.step("version")["detail"]
    assert "10 events after line 20" in over_http.step("stream")["detail"]

    wrong = {"OPS_MANAGER_SERVICE_TOKEN": "not-the-token"}
    for url in (agent.url, agent.http_url):
        for words, reason in (((), "token_missing"), (("--service-token", "not-the-token"), "token_wrong")):
            refused = doctor("--service-base-url", url, *words)
            assert refused.lost == ["token"]
            assert refused.troubles == {("token", reason)}
            assert refused.step("snapshot")["result"] == "skipped"
    table = run("doctor", "--service-base-url", agent.url, "--output", "table", **wrong)
    assert "failed   token" in table.out
    assert "-> Compare the token with the agent's." in table.out
    assert "not-the-token" not in table.out + table.err

    missing = doctor("--service-base-url", agent.url, "--loop", "beta", **variables)
    assert missing.troubles == {("loops", "loop_not_found")}


def test_loops_that_cannot_be_read_are_told_of(repo: Repo, start: StartAgent, doctor: Doctor) -> None:
    repo.loop("alpha", events(1, 3) + b'{"no":"event"}\n' + event(5))
    repo.loop("beta", b"nonsense\n")
    found = doctor("--service-base-url", start().url, "--service-token", TOKEN)
    assert found.lost == []
    assert found.troubles == {("loops", "invalid_json_line"), ("stream", "missing_event_name")}
    assert "line 4 is no event" in found.step("stream")["detail"]


def test_socket_is_reached(repo: Repo, start: StartAgent, socket_path: Path, doctor: Doctor) -> None:
    agent = start(grpc_at=f"unix://{socket_path}")
    found = doctor("--service-base-url", agent.url, "--service-token", TOKEN)
    assert found.lost == []
    assert found.step("resolve")["result"] == "skipped"
    # Without a loop there is nothing to take a snapshot of.
    assert found.results()["stream"] == "skipped"


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_nobody_at_the_address_is_told_at_the_step_that_finds_it(scheme: str, doctor: Doctor) -> None:
    with unused_address() as address:
        refused = doctor("--service-base-url", f"{scheme}://{address}")
    assert refused.troubles == {("connect", "agent_unreachable")}
    assert "Connection refused" in refused.step("connect")["detail"]
    unknown = doctor("--service-base-url", f"{scheme}://sprite.invalid:50551")
    assert unknown.troubles == {("resolve", "name_not_resolved")}
    assert {result for name, result in unknown.results().items() if name != "resolve"} == {"skipped"}


@pytest.mark.parametrize(
    ("scheme", "says", "reasons"),
    [
        ("grpc", None, {"deadline_exceeded"}),
        ("http", None, {"deadline_exceeded"}),
        ("grpcs", None, {"tls_failed"}),
        ("grpc", b"220 mail.example ESMTP \x1b[31m\r\n", {"agent_unreachable", "service_request_failed"}),
        ("http", b"220 mail.example ESMTP \x1b[31m\r\n", {"service_response_invalid"}),
        ("https", b"220 mail.example ESMTP \x1b[31m\r\n", {"tls_failed"}),
        ("http", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\x00\x01", {"service_response_invalid"}),
        ("http", b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\nx", {"service_response_invalid"}),
    ],
)
def test_peer_that_is_no_agent_ends_in_time(
    scheme: str, says: bytes | None, reasons: set[str], doctor: Doctor
) -> None:
    begun = time.monotonic()
    with peer(says) as address:
        found = doctor("--service-base-url", f"{scheme}://{address}", *QUICK)
    assert time.monotonic() - begun < 4
    assert found.lost == ["tls" if scheme.endswith("s") else "health"]
    assert {reason for _, reason in found.troubles} <= reasons
    assert "\x1b" not in found.ran.out


def test_clock_that_is_off_is_told_with_its_seconds(
    repo: Repo, start: StartAgent, tmp_path: Path, doctor: Doctor
) -> None:
    clock = Clock(tmp_path / "clock")
    agent = start("--http", "127.0.0.1:0", under=clock.under)
    for seconds, word in ((3600, "ahead"), (-3600, "behind")):
        clock.set(seconds)
        found = doctor("--service-base-url", agent.url, "--service-token", TOKEN)
        assert found.troubles == {("clock", "clock_skew")}
        assert f"3600.0 s {word}" in found.step("clock")["detail"]


def test_v1_service_is_told_as_one(doctor: Doctor) -> None:
    snapshot = {
        "envelopeType": "loop_run_snapshot",
        "run": {"status": "running"},
        "cursor": {"eventLineCount": 3},
    }
    gets = {
        "/healthz": [Answer(200, '{"ok":true}')],
        "/ops/snapshot": [Answer(200, json.dumps(snapshot))],
        "/ops/events": [Answer(200, '{"events":[{},{}]}')],
    }
    with receiving(gets=gets) as service:
        found = doctor("--service-base-url", service.url, "--loop", "alpha", "--service-token", TOKEN)
        assert found.lost == []
        assert "no agent of ours" in found.step("version")["detail"]
        assert found.step("clock")["result"] == "ok"
        assert found.step("snapshot")["detail"].startswith("loop alpha: running")
        assert {request.header("authorization") for request in service.requests} == {f"Bearer {TOKEN}"}
        service.gets["/ops/snapshot"] = [Answer(502, json.dumps({"error": {"code": "x", "message": TOKEN}}))]
        broken = doctor("--service-base-url", service.url, "--loop", "alpha", "--service-token", TOKEN)
        assert broken.troubles == {("snapshot", "service_http_error")}
        assert TOKEN not in broken.ran.out + broken.ran.err
