"""An agent that wants signatures: over gRPC and HTTP, from our client and from others."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from manager.transport import Retry, open_transport
from spritemesh.signer import KeyFile, Signer
from superloop.ops.v1 import sprite_pb2
from tests.harness import frames
from tests.harness.agents import BEARER, CALL_SECONDS, ROOT, TOKEN, Agent, StartAgent, start_agent
from tests.harness.control import Runtime, audit_directory
from tests.harness.http import WITH_TOKEN, HttpAnswer, ask, get, post
from tests.harness.loops import Repo, event, events
from tests.harness.manager import Ran, Running, run
from tests.harness.refusals import refusal
from tests.harness.signing import FIRST, SECOND, signature, write_keys
from tests.harness.streams import raw_call

SERVICE = "/superloop.ops.v1.SpriteService/"
SNAPSHOT = SERVICE + "GetSnapshot"
REQUEST = sprite_pb2.GetSnapshotRequest(loop_id="alpha").SerializeToString()
TARGET = "/ops/snapshot?loopId=alpha"
Header = tuple[str, str]


class Signing:
    """An agent that wants signatures, and the key that it takes."""

    def __init__(self, agent: Agent, repo: Repo, runtime: Runtime, keys: Path) -> None:
        self.agent, self.repo, self.runtime, self.keys = agent, repo, runtime, keys

    def words(self, url: str, *, signed: bool = True) -> tuple[str, ...]:
        """Flags of commands that ask the agent."""
        found = ("--service-base-url", url, "--service-token", TOKEN)
        return (*found, "--signing-key-file", str(self.keys)) if signed else found

    def get(self, target: str, *headers: Header) -> HttpAnswer:
        return ask(str(self.agent.ready["http"]), get(target, _lines(headers)))

    def post(self, body: bytes, *headers: Header) -> HttpAnswer:
        return ask(str(self.agent.ready["http"]), post("/ops/control", body, _lines(headers)))


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signing]:
    place = tmp_path_factory.mktemp("signing")
    repo, runtime = Repo(place / "repo"), Runtime(place / "runtime")
    repo.loop("alpha", events(1, 3))
    keys = write_keys(place / "keys", FIRST)
    flags = ("--http", "127.0.0.1:0", "--signing-key-file", str(keys), *runtime.flags)
    agent = start_agent(repo.root, place / "errors.txt", *flags, "--metrics", "127.0.0.1:0")
    yield Signing(agent, repo, runtime, keys)
    agent.end()


@pytest.fixture
def channel(signing: Signing) -> Iterator[grpc.Channel]:
    options = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.insecure_channel(signing.agent.address, options=options) as found:
        yield found


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, signing: Signing) -> str:
    return signing.agent.url if request.param == "grpc" else signing.agent.http_url


def _chain(signing: Signing) -> str:
    """Who connected for each control request."""
    telemetry = audit_directory(signing.repo) / "telemetry"
    return (telemetry / "control-invocations.chain.jsonl").read_text()


def _lines(headers: tuple[Header, ...]) -> bytes:
    return WITH_TOKEN + "".join(f"{name}: {value}\r\n" for name, value in headers).encode()


def raw(channel: grpc.Channel, *headers: Header, method: str = SNAPSHOT, data: bytes = REQUEST) -> bytes:
    """The answer of a call to bytes."""
    metadata = (*BEARER, *headers)
    answer: bytes = raw_call(channel, method)(data, metadata=metadata, timeout=CALL_SECONDS)
    return answer


# --- our client -----------------------------------------------------------------------------------------


def test_commands_sign_what_they_ask_for(signing: Signing, url: str) -> None:
    repo = ("--repo", str(signing.repo.root), "--loop", "alpha")
    assert run("loop-run-snapshot", *repo, *signing.words(url)).documents[0]["envelopeType"]
    assert run("poll-events", *repo, "--from-start", *signing.words(url)).events == [1, 2, 3]
    unsigned = run("loop-run-snapshot", *repo, *signing.words(url, signed=False))
    assert (unsigned.code, unsigned.out) == (1, "")
    assert "[signature_missing]" in unsigned.err


def test_control_is_signed_and_its_records_name_the_key(signing: Signing, url: str, tmp_path: Path) -> None:
    signing.repo.put("state.json", {"active": True, "current_loop_id": "alpha"})
    signing.runtime.does("")
    key = f"key-{url[:4]}"

    def control(*, signed: bool) -> Ran:
        words = ("--repo", str(tmp_path), "--loop", "alpha", "--transport", "sprite_service")
        asked = ("--intent", "cancel", "--no-confirm", "--idempotency-key", key)
        return run("control", *words, *asked, *signing.words(url, signed=signed))

    unsigned = control(signed=False)
    assert (unsigned.code, signing.runtime.calls) == (1, [])
    assert "signature_missing" in unsigned.err
    signed = control(signed=True)
    assert (signed.code, len(signing.runtime.calls)) == (0, 1), signed.err
    recorded = json.loads(_chain(signing).splitlines()[-1])["connected"]
    assert (recorded["edge"], recorded["keyId"]) == (url[:4], "first")


def test_every_request_of_service_client_is_signed(signing: Signing, tmp_path: Path) -> None:
    words = ("service-client", "--base-url", signing.agent.http_url, "--token", TOKEN)
    keys = ("--signing-key-file", str(signing.keys))
    # An empty query, and one that has to be sent as it is.
    for path in (TARGET, "/healthz?", "/ops/events?loopId=al%70ha&maxEvents=1"):
        assert run(*words, "--method", "GET", "--path", path, *keys).code == 0, path
    body = tmp_path / "body.json"
    body.write_text('{"loopId": "no-such-loop", "intent": "cancel"}')
    posted = run(*words, "--method", "POST", "--path", "/ops/control", "--body-file", str(body), *keys)
    assert "loop_not_found" in posted.err
    unsigned = run(*words, "--method", "GET", "--path", TARGET, "--retry-attempts", "1")
    assert "signature_missing" in unsigned.err


def test_file_without_a_key_ends_server_and_client_with_its_line(signing: Signing, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_text("# ours\nk1 c2hvcnQ=\n")
    where = ("--repo", str(signing.repo.root), "--loop", "alpha")
    words = signing.words(signing.agent.url, signed=False)
    client = run("loop-run-snapshot", *where, *words, "--signing-key-file", str(bad))
    told = f"error: --signing-key-file {bad}, line 2: a key has at least 16 bytes, found 5"
    assert (client.code, client.err.strip()) == (1, f"{told} [signing_key_invalid]")
    serve = [sys.executable, "-m", "sprite_agent", "serve", "--repo", str(signing.repo.root)]
    served = subprocess.run(
        [*serve, "--grpc", "127.0.0.1:0", "--signing-key-file", str(bad)],
        capture_output=True,
        cwd=ROOT,
        timeout=30,
        check=False,
    )
    assert served.returncode == 1
    assert served.stderr.decode().strip().endswith(f"{told} [signing_key_invalid]")


# --- others ---------------------------------------------------------------------------------------------


def signed_by_hand(signing: Signing, tmp_path: Path, *words: str, data: bytes = b"") -> Header:
    """What the script of the documents prints."""
    pages = "".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))
    found = re.search(r"```python\n(# sign\.py .*?)```", pages, re.DOTALL)
    assert found is not None
    script = tmp_path / "sign.py"
    script.write_text(found[1])
    done = subprocess.run(
        [sys.executable, str(script), str(signing.keys), *words], input=data, capture_output=True, check=True
    )
    name, _, value = done.stdout.decode().strip().partition(": ")
    return name, value


def test_a_dozen_lines_of_the_documents_are_a_client(
    signing: Signing, channel: grpc.Channel, tmp_path: Path
) -> None:
    header = signed_by_hand(signing, tmp_path, f"GET {TARGET}", "alpha")
    assert signing.get(TARGET, header).status == 200
    header = signed_by_hand(signing, tmp_path, SNAPSHOT, "alpha", data=REQUEST)
    assert raw(channel, header)
    body = b'{"loopId": "no-such-loop", "intent": "cancel"}'
    header = signed_by_hand(signing, tmp_path, "POST /ops/control", "no-such-loop", data=body)
    assert signing.post(body, header).error == (404, "not_found")


def test_request_that_is_repeated_is_refused(signing: Signing, channel: grpc.Channel) -> None:
    header = signature(SNAPSHOT, "alpha", REQUEST)
    assert raw(channel, header)
    again = refusal(lambda: raw(channel, header))
    assert (again.code, again.reason) == (grpc.StatusCode.UNAUTHENTICATED, "nonce_replayed")
    header = signature(f"GET {TARGET}", "alpha", b"")
    assert signing.get(TARGET, header).status == 200
    assert signing.get(TARGET, header).error == (401, "unauthorized")
    assert "[nonce_replayed]" in signing.get(TARGET, header).message


def test_request_that_was_changed_is_refused(signing: Signing, channel: grpc.Channel) -> None:
    def asks(**changed: Any) -> str:
        return refusal(lambda: raw(channel, signature(SNAPSHOT, "alpha", REQUEST), **changed)).reason

    other = sprite_pb2.GetSnapshotRequest(loop_id="alpha", run_id="r").SerializeToString()
    assert asks(data=other) == asks(method=SERVICE + "ListLoops") == "signature_wrong"
    assert asks(data=b"\xff") == asks(method=SERVICE + "NoSuchMethod") == "signature_wrong"
    header = signature(f"GET {TARGET}", "alpha", b"")
    for target in (TARGET + "&x=1", "/ops/events?loopId=alpha", TARGET.replace("a", "%61", 1), "/nowhere"):
        assert "[signature_wrong]" in signing.get(target, header).message
    body = b'{"loopId":"alpha","intent":"cancel"}'
    header = signature("POST /ops/control", "alpha", body)
    assert "[signature_wrong]" in signing.post(body.replace(b"cancel", b"reject"), header).message


def test_stream_is_signed_when_it_is_opened(signing: Signing, channel: grpc.Channel) -> None:
    method = SERVICE + "WatchEvents"
    data = sprite_pb2.WatchEventsRequest(loop_id="alpha").SerializeToString()

    def messages(*headers: Header) -> list[bytes]:
        return list(raw_call(channel, method, stream=True)(data, metadata=(*BEARER, *headers)))

    header = signature(method, "alpha", data)
    assert len(messages(header)) >= 2
    assert refusal(lambda: messages(header)).reason == "nonce_replayed"
    assert refusal(messages).reason == "signature_missing"


def test_signature_does_not_stand_for_the_token(signing: Signing, channel: grpc.Channel) -> None:
    header = signature(SNAPSHOT, "alpha", REQUEST)
    call = raw_call(channel, SNAPSHOT)
    assert refusal(lambda: call(REQUEST, metadata=(header,))).reason == "token_missing"
    assert refusal(lambda: call(REQUEST, metadata=(*BEARER,))).reason == "signature_missing"
    assert call(REQUEST, metadata=(*BEARER, header))


def test_agent_with_keys_alone_is_not_open(repo: Repo, start: StartAgent, tmp_path: Path) -> None:
    repo.loop("alpha", events(1, 1))
    agent = start("--signing-key-file", str(write_keys(tmp_path / "keys", FIRST)), token=())
    with grpc.insecure_channel(agent.address) as channel:
        call = raw_call(channel, SNAPSHOT)
        assert refusal(lambda: call(REQUEST)).reason == "signature_missing"
        assert call(REQUEST, metadata=(signature(SNAPSHOT, "alpha", REQUEST),))


def test_request_of_a_call_without_a_signature_is_not_waited_for(signing: Signing) -> None:
    with frames.peer_of(signing.agent.address) as peer:
        peer.greet()
        peer.send(frames.call_headers(1, SNAPSHOT, *BEARER))
        assert peer.status(1) == grpc.StatusCode.UNAUTHENTICATED.value[0]


def test_probes_and_scrapers_need_no_signature_and_reflection_does(
    signing: Signing, channel: grpc.Channel
) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)
    assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
    assert signing.get("/healthz").document == {"ok": True}
    assert ask(str(signing.agent.ready["http"]), get("/healthz", b"")).status == 401
    assert ask(str(signing.agent.ready["metrics"]), get("/metrics")).status == 200
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    asked = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    talk: Any = channel.stream_stream(method)
    assert refusal(lambda: list(talk(iter([asked]), metadata=BEARER))).reason == "signature_missing"
    header = signature(method, "", b"")
    assert len(list(talk(iter([asked]), metadata=(*BEARER, header)))) == 1


def test_key_of_a_header_is_refused_beside_a_signature(signing: Signing) -> None:
    signing.runtime.does("")
    body = b'{"loopId":"alpha","intent":"reject","noConfirm":true}'
    header = signature("POST /ops/control", "alpha", body)
    refused = signing.post(body, header, ("X-Idempotency-Key", "of-the-header"))
    assert refused.status == 400
    assert refused.document["error"]["code"] == "invalid_request"
    assert signing.runtime.calls == []


# --- keys change ----------------------------------------------------------------------------------------


def test_key_is_exchanged_under_an_agent_and_a_client_that_stay(
    repo: Repo, start: StartAgent, tmp_path: Path
) -> None:
    loop = repo.loop("alpha", event(1))
    server, client = tmp_path / "server", tmp_path / "client"
    write_keys(server, FIRST)
    write_keys(client, FIRST)
    agent = start("--signing-key-file", str(server), "--http", "127.0.0.1:0")
    words = ("--service-base-url", agent.http_url, "--service-token", TOKEN)
    where = ("poll-events", "--repo", str(repo.root), "--loop", "alpha", "--from-start", "--follow")
    # Over HTTP, each look of a follower is a request.
    following = Running(*where, *words, "--signing-key-file", str(client))
    try:
        following.wait_for_event(1)
        write_keys(server, FIRST, SECOND)
        write_keys(client, SECOND, FIRST)
        loop.append(event(2))
        following.wait_for_event(2)
        write_keys(server, SECOND)
        loop.append(event(3))
        following.wait_for_event(3)
        server.write_text("nonsense\n")
        with grpc.insecure_channel(agent.address) as channel:
            old = refusal(lambda: raw(channel, signature(SNAPSHOT, "alpha", REQUEST)))
            assert old.reason == "signature_wrong"
            assert raw(channel, signature(SNAPSHOT, "alpha", REQUEST, key=SECOND))
    finally:
        following.close()
    told = [line for line in agent.said().splitlines() if "signing_key_invalid" in line]
    assert len(told) == 1
    assert "line 1" in told[0]


def test_signature_from_before_a_restart_is_refused_after_it(
    repo: Repo, start: StartAgent, tmp_path: Path
) -> None:
    repo.loop("alpha", events(1, 1))
    keys = ("--signing-key-file", str(write_keys(tmp_path / "keys", FIRST)))
    first = start(*keys)
    header = signature(SNAPSHOT, "alpha", REQUEST)
    with grpc.insecure_channel(first.address) as channel:
        assert raw(channel, header)
    first.end()
    second = start(*keys)
    with grpc.insecure_channel(second.address) as channel:
        found = refusal(lambda: raw(channel, header))
        assert (found.reason, "signed" in found.message) == ("signature_expired", True)
        assert found.retry_seconds is not None
        assert raw(channel, signature(SNAPSHOT, "alpha", REQUEST))


def test_client_whose_clock_is_behind_waits_until_the_server_takes_its_time(
    repo: Repo, start: StartAgent, tmp_path: Path
) -> None:
    repo.loop("alpha", events(1, 1))
    keys = write_keys(tmp_path / "keys", FIRST)
    agent = start("--signing-key-file", str(keys), "--http", "127.0.0.1:0")

    def tries(url: str) -> int:
        """How often it was signed until there was an answer."""
        moments: list[float] = []

        def behind() -> float:
            moments.append(time.time() - 2)
            return moments[-1]

        signer = Signer(KeyFile(str(keys)), behind)
        transport = open_transport(
            "sprite_service", repo="/", base_url=url, token=TOKEN, retry=Retry(2, 0), signer=signer
        )
        try:
            assert transport.snapshot("alpha").sequence_value == 1
        finally:
            transport.close()
        return len(moments)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(tries, (agent.url, agent.http_url))) == [2, 2]
