"""A foreign client, `buf curl`, that knows the contract from reflection only."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2

from tests.harness.agents import TOKEN, Agent, StartAgent, environment
from tests.harness.control import Runtime
from tests.harness.loops import LoopFiles, Repo, event, events
from tests.harness.streams import place
from tests.harness.traces import span, spans

BUF = os.path.join(os.path.dirname(sys.executable), "buf")
SPRITE = "superloop.ops.v1.SpriteService"
CONTROL = "superloop.ops.v1.ControlService"
TELEMETRY = "superloop.ops.v1.TelemetryService"
pytestmark = pytest.mark.skipif(not os.path.exists(BUF), reason="buf is not installed")


@pytest.fixture
def agent(loop: LoopFiles, start: StartAgent) -> Agent:
    loop.append(events(1, 2) + b"{half\n" + event(4))
    return start()


def curl(agent: Agent, path: str, data: dict[str, Any] | None = None, *flags: str, token: str = TOKEN) -> str:
    """What buf prints; fails the test when it fails."""
    words = [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *flags]
    words += ["-H", f"authorization: Bearer {token}", "--reflect-header", "*"]
    words += [] if data is None else ["-d", json.dumps(data)]
    done = subprocess.run(
        [*words, f"http://{agent.address}{path}"],
        capture_output=True,
        env=environment(),
        timeout=30,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return done.stdout.decode()


def documents(text: str) -> list[Any]:
    """The JSON documents of a stream, one behind the other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while (at := at + len(text[at:]) - len(text[at:].lstrip())) < len(text):
        document, at = decoder.raw_decode(text, at)
        found.append(document)
    return found


def test_services_and_methods_are_listed(agent: Agent) -> None:
    services = curl(agent, "", None, "--list-services").split()
    assert {SPRITE, CONTROL, TELEMETRY, "grpc.health.v1.Health"} <= set(services)
    methods = curl(agent, "", None, "--list-methods")
    for method in ("ListLoops", "GetSnapshot", "WatchEvents", "WatchHeartbeats"):
        assert f"{SPRITE}/{method}" in methods
    for method in ("CancelLoop", "ApprovePending", "RejectPending", "GetInvocation"):
        assert f"{CONTROL}/{method}" in methods
    assert f"{TELEMETRY}/WatchTraces" in methods


def test_snapshot_is_read(agent: Agent) -> None:
    (found,) = documents(curl(agent, f"/{SPRITE}/GetSnapshot", {"loopId": "alpha", "traceId": "t"}))
    assert found["snapshot"]["sequenceValue"] == "4"
    assert found["snapshot"]["traceId"] == "t"


def test_events_are_streamed(agent: Agent, loop: LoopFiles) -> None:
    found = documents(curl(agent, f"/{SPRITE}/WatchEvents", {"loopId": "alpha"}))
    assert [next(iter(message.keys() - {"head", "sentAt"})) for message in found] == [
        "opened",
        "batch",
        "invalidLine",
        "batch",
        "bookmark",
        "goodbye",
    ]
    raw = [line["raw"] for message in found for line in message.get("batch", {}).get("events", [])]
    assert raw == [event(number)[:-1].decode() for number in (1, 2, 4)]
    assert found[2]["invalidLine"]["reason"] == "invalid_json_line"
    assert found[4]["bookmark"]["position"]["line"] == str(place(loop.log.read_bytes()).line)
    assert found[5]["goodbye"]["reason"] == "drained_to_head"


def test_traces_are_streamed(agent: Agent, repo: Repo) -> None:
    (repo.root / "trace.jsonl").write_bytes(spans(1, 2) + b"{half\n" + span(4))
    after = {"file": "trace.jsonl", "position": {"line": 1}}
    found = documents(curl(agent, f"/{TELEMETRY}/WatchTraces", {"loopId": "alpha", "after": [after]}))
    shared = {"head", "sentAt", "file"}
    assert [next(iter(message.keys() - shared)) for message in found] == [
        "opened",
        "batch",
        "invalidLine",
        "batch",
        "bookmark",
        "goodbye",
    ]
    lines = [
        line["record"]["json"] for message in found for line in message.get("batch", {}).get("lines", [])
    ]
    assert lines == [span(number)[:-1].decode() for number in (2, 4)]
    assert found[2]["file"] == found[4]["bookmark"]["places"][0]["file"] == "trace.jsonl"
    assert found[5]["goodbye"]["reason"] == "drained_to_head"


def test_health_is_told(agent: Agent) -> None:
    for service in ("", SPRITE, CONTROL, TELEMETRY):
        answer = curl(agent, "/grpc.health.v1.Health/Check", {"service": service})
        assert documents(answer) == [{"status": "SERVING"}]


def test_refusal_carries_its_details(agent: Agent) -> None:
    with pytest.raises(RuntimeError) as caught:
        curl(agent, f"/{SPRITE}/GetSnapshot", {"loopId": "ghost"})
    found = json.loads(str(caught.value))
    (detail,) = found["details"]
    assert (found["code"], detail["type"]) == ("not_found", "google.rpc.ErrorInfo")
    value = base64.b64decode(detail["value"] + "==")
    assert error_details_pb2.ErrorInfo.FromString(value).reason == "loop_not_found"


def test_loop_is_cancelled_once(repo: Repo, loop: LoopFiles, start: StartAgent, tmp_path: Path) -> None:
    loop.append(event(1))
    repo.put("state.json", {"active": True, "current_loop_id": "alpha"})
    runtime = Runtime(tmp_path / "runtime")
    state = repo.root / ".superloop" / "state.json"
    runtime.does(runtime.puts(state, {"active": False}))
    agent = start(*runtime.flags)
    asked = {"loopId": "alpha", "requestedBy": "buf", "idempotencyKey": "k-1", "traceId": "t"}
    answers = [documents(curl(agent, f"/{CONTROL}/CancelLoop", asked))[0]["outcome"] for _ in range(2)]
    assert [answer.pop("replayed", False) for answer in answers] == [False, True]
    assert answers[0] == answers[1]
    assert answers[0]["status"] == "CONTROL_STATUS_CONFIRMED"
    assert answers[0]["effect"]["state"]["member"] == "active"
    assert len(runtime.calls) == 1

    (found,) = documents(curl(agent, f"/{CONTROL}/GetInvocation", {"idempotencyKey": "k-1"}))
    assert found["state"] == "INVOCATION_STATE_FINISHED"
    assert found["outcome"]["traceId"] == "t"
    with pytest.raises(RuntimeError) as caught:
        curl(agent, f"/{CONTROL}/CancelLoop", {"loopId": "alpha"})
    details = {detail["type"]: detail["value"] for detail in json.loads(str(caught.value))["details"]}
    bad = error_details_pb2.BadRequest.FromString(base64.b64decode(details["google.rpc.BadRequest"] + "=="))
    assert bad.field_violations[0].field == "idempotency_key"


def test_stranger_learns_nothing(agent: Agent) -> None:
    with pytest.raises(RuntimeError):
        curl(agent, f"/{SPRITE}/GetSnapshot", {"loopId": "alpha"}, token="wrong")
    with pytest.raises(RuntimeError):
        curl(agent, "", None, "--list-services", token="wrong")
