"""TLS of a running agent: new certificates without a restart, and who may do what by the name in his own."""

import json
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from superloop.ops.v1 import control_pb2 as pb
from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc, telemetry_pb2_grpc
from tests.harness.agents import BEARER, CALL_SECONDS, TOKEN, Agent, environment, serve_words, start_agent
from tests.harness.control import Client, Runtime, request
from tests.harness.encrypted import browsing, call, context_of, secured, serial_at
from tests.harness.http import WITH_TOKEN, HttpWire
from tests.harness.loops import Repo, event
from tests.harness.pki import Authority, Pair, serial_of
from tests.harness.traces import numbers, spans, watch_traces
from tests.harness.waiting import wait_for
from tests.integration.test_buf_curl import BUF

READER, CONTROLLER = "reader.test", "spiffe://mesh.test/controller"
_SERVICE = "/superloop.ops.v1.SpriteService/"
_CONTROL = "/superloop.ops.v1.ControlService/"


class Served(NamedTuple):
    """An agent with mutual TLS at both edges, and certificates of clients."""

    agent: Agent
    repo: Repo
    server: Pair
    reader: Pair
    controller: Pair
    nobody: Pair


@pytest.fixture(scope="module")
def served(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("tls")
    repo, runtime = Repo(root / "repo"), Runtime(root / "runtime")
    repo.loop("alpha", event(1))
    server = authority.server("agent").copied(root)
    flags = (*server.server_flags, "--tls-ca", str(authority.ca), *runtime.flags)
    flags += ("--allow-read", READER, "--allow-control", CONTROLLER)
    agent = start_agent(
        repo.root, root / "errors", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", *flags
    )
    yield Served(
        agent,
        repo,
        server,
        authority.pair("reader", dns=("other.test", READER)),
        authority.pair("controller", uris=(CONTROLLER,)),
        authority.pair("nobody", dns=("nobody.test",), common_name=READER),
    )
    agent.end()


# --- who may do what ------------------------------------------------------------------------------------


def snapshot_of(loop_id: str) -> bytes:
    return sprite_pb2.GetSnapshotRequest(loop_id=loop_id).SerializeToString()


def cancel_of(loop_id: str) -> bytes:
    return pb.CancelLoopRequest(loop_id=loop_id, idempotency_key="k").SerializeToString()


def body_of(loop_id: str) -> dict[str, Any]:
    return {"loopId": loop_id, "intent": "cancel", "by": "ana", "noConfirm": True}


def test_reader_reads_and_does_not_control(served: Served, authority: Authority) -> None:
    with secured(served.agent.address, authority, served.reader) as channel:
        assert call(channel, f"{_SERVICE}GetSnapshot", snapshot_of("alpha"))[0] is grpc.StatusCode.OK
        code, message, _ = call(channel, f"{_CONTROL}CancelLoop", cancel_of("alpha"))
        assert (code, message) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "the caller's certificate does not give it this right",
        )
    with browsing(served.agent.ready["http"], authority, served.reader) as client:
        assert client.get("/ops/snapshot?loopId=alpha").status_code == 200
        refused = client.post("/ops/control", json=body_of("alpha"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "identity_not_allowed")
    with browsing(served.agent.ready["metrics"], authority, served.reader) as client:
        assert client.get("/metrics").status_code == 200


def test_who_may_control_may_read_and_is_recorded_by_name(served: Served, authority: Authority) -> None:
    with secured(served.agent.address, authority, served.controller) as channel:
        outcome = Client(channel).ask(request())
        assert (outcome.provenance.edge, list(outcome.provenance.identities)) == ("grpc", [CONTROLLER])
        assert call(channel, f"{_SERVICE}GetSnapshot", snapshot_of("alpha"))[0] is grpc.StatusCode.OK
    with browsing(served.agent.ready["http"], authority, served.controller) as client:
        key = {"idempotencyKey": "over-http"}
        assert client.post("/ops/control", json=body_of("alpha") | key).status_code == 200
    with secured(served.agent.address, authority, served.controller) as channel:
        recorded = Client(channel).invocation("over-http").outcome.provenance
        assert (recorded.edge, list(recorded.identities)) == ("http", [CONTROLLER])


def test_traces_need_the_right_to_read(served: Served, authority: Authority) -> None:
    (served.repo.root / "trace.jsonl").write_bytes(spans(1, 2))
    for pair, code in (
        (served.reader, grpc.StatusCode.OK),
        (served.controller, grpc.StatusCode.OK),
        (served.nobody, grpc.StatusCode.PERMISSION_DENIED),
    ):
        with secured(served.agent.address, authority, pair) as channel:
            stream = watch_traces(telemetry_pb2_grpc.TelemetryServiceStub(channel))
            found = []
            with suppress(grpc.RpcError):
                found = numbers(stream)
            assert (stream.code(), found) == (code, [1, 2] if code is grpc.StatusCode.OK else [])


def test_caller_without_a_right_cannot_tell_what_there_is(served: Served, authority: Authority) -> None:
    """Whatever it asks for, the answer is the same to the byte."""
    with secured(served.agent.address, authority, served.nobody) as channel:
        told = {
            call(channel, method, data)
            for loop_id in ("alpha", "ghost", "../etc")
            for method, data in (
                (f"{_SERVICE}GetSnapshot", snapshot_of(loop_id)),
                (f"{_CONTROL}CancelLoop", cancel_of(loop_id)),
                (f"{_SERVICE}Nonsense", b"\xff"),
                (f"{_SERVICE}GetSnapshot", b"\xff"),
            )
        }
        assert [code for code, _, _ in told] == [grpc.StatusCode.PERMISSION_DENIED]
    with browsing(served.agent.ready["http"], authority, served.nobody) as client:
        answers = [
            client.get("/ops/snapshot?loopId=alpha"),
            client.get("/ops/snapshot?loopId=ghost"),
            client.get("/ops/events?loopId=alpha"),
            client.get("/nowhere"),
            client.post("/ops/control", json=body_of("alpha")),
            client.post("/ops/control", json=body_of("ghost")),
        ]
        assert {bare(answer) for answer in answers} == {bare(answers[0])}
        assert answers[0].status_code == 403


def bare(answer: httpx.Response) -> tuple[int, bytes, tuple[tuple[str, str], ...]]:
    """All of an answer but the time."""
    return (
        answer.status_code,
        answer.content,
        tuple((name, value) for name, value in answer.headers.items() if name != "date"),
    )


def test_health_needs_a_certificate_and_no_right(served: Served, authority: Authority) -> None:
    with secured(served.agent.address, authority, served.nobody) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS).status == 1
    with secured(served.agent.address, authority) as channel:
        assert call(channel, "/grpc.health.v1.Health/Check")[0] is grpc.StatusCode.UNAVAILABLE


def test_files_that_cannot_be_used_are_refused_at_the_start(
    repo: Repo, authority: Authority, tmp_path: Path
) -> None:
    flags = (*authority.server().server_flags, "--tls-ca", str(tmp_path))
    ended = subprocess.run(
        serve_words(repo.root, "--token", TOKEN, *flags), capture_output=True, check=False, timeout=30
    )
    told = f"error: --tls-ca {tmp_path} cannot be read: Is a directory [tls_files_invalid]\n"
    assert (ended.returncode != 0, ended.stderr.decode()[-len(told) :]) == (True, told)


# --- new certificates -----------------------------------------------------------------------------------


def test_new_certificate_is_shown_while_streams_go_on(served: Served, authority: Authority) -> None:
    agent, places = served.agent, (served.agent.address, served.agent.ready["http"])
    loop = served.repo.loop("streamed", event(1))
    with (
        secured(agent.address, authority, served.reader) as channel,
        HttpWire(agent.ready["http"], context_of(authority, served.reader)) as wire,
    ):
        stub = sprite_pb2_grpc.SpriteServiceStub(channel)
        stream = stub.WatchEvents(
            sprite_pb2.WatchEventsRequest(loop_id="streamed", follow=True), metadata=BEARER
        )
        lines = (message.batch.last_line for message in stream if message.WhichOneof("payload") == "batch")
        assert next(lines) == 1
        snapshot = b"GET /ops/snapshot?loopId=alpha HTTP/1.1\r\nHost: h\r\n" + WITH_TOKEN + b"\r\n"
        assert wire.ask(snapshot).status == 200
        fresh = authority.server("fresh")
        served.server.replace_by(fresh)
        for place in places:
            assert serial_at(place, authority, served.reader) == serial_of(fresh.cert.read_bytes())
        loop.append(event(2))
        assert next(lines) == 2
        assert wire.ask(snapshot).status == 200
        stream.cancel()


def test_authority_that_was_removed_is_believed_no_more(
    repo: Repo, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other", "other")
    ours, theirs = authority.pair("ours", dns=("ours.test",)), other.pair("theirs", dns=("theirs.test",))
    believed = tmp_path / "believed.pem"
    believed.write_bytes(authority.ca.read_bytes() + other.ca.read_bytes())
    server = authority.server()
    flags = (*server.server_flags, "--tls-ca", str(believed), "--http", "127.0.0.1:0")
    agent = start_agent(repo.root, tmp_path / "errors", *flags)
    try:

        def is_let_in(pair: Pair) -> list[bool]:
            """Over gRPC and HTTP."""
            with secured(agent.address, authority, pair) as channel:
                code, _, _ = call(channel, "/grpc.health.v1.Health/Check")
            try:
                with browsing(agent.ready["http"], authority, pair) as client:
                    status = client.get("/healthz").status_code
            except httpx.TransportError:
                status = 0
            return [code is grpc.StatusCode.OK, status == 200]

        assert is_let_in(ours) == is_let_in(theirs) == [True, True]
        believed.write_bytes(b"half of it")
        assert is_let_in(theirs) == [True, True]
        wait_for(lambda: "tls_files_invalid: --tls-ca" in agent.said(), what="the log")
        believed.write_bytes(authority.ca.read_bytes())
        assert is_let_in(theirs) == [False, False]
        assert is_let_in(ours) == [True, True]
    finally:
        agent.end()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_is_resumed_so_that_each_certificate_is_looked_at(
    served: Served, authority: Authority, version: ssl.TLSVersion
) -> None:
    context = context_of(authority, served.reader)
    context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    host, _, port = served.agent.address.rpartition(":")
    session: ssl.SSLSession | None = None
    for _ in range(2):
        with (
            socket.create_connection((host, int(port)), CALL_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host, session=session) as connection,
        ):
            assert connection.recv(1)  # tickets of TLS 1.3 come before it
            assert not connection.session_reused
            session = connection.session


def test_refused_client_is_told_why(served: Served, authority: Authority, tmp_path: Path) -> None:
    """asyncio by itself would hang up without a word."""
    expired = authority.pair("expired", dns=(READER,), expired=True)
    stranger = Authority(tmp_path / "strange").pair("reader", dns=(READER,))
    for pair, alert in (
        (None, "CERTIFICATE_REQUIRED"),
        (expired, "CERTIFICATE_EXPIRED"),
        (stranger, "UNKNOWN_CA"),
    ):
        with (
            pytest.raises(ssl.SSLError) as caught,
            HttpWire(served.agent.ready["http"], context_of(authority, pair)) as wire,
        ):
            wire.socket.recv(1)
        assert alert in str(caught.value.reason)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_of_tls_are_refused(served: Served, authority: Authority) -> None:
    for place in (served.agent.address, served.agent.ready["http"]):
        context = context_of(authority, served.reader)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            HttpWire(place, context)


@pytest.mark.skipif(not os.path.exists(BUF), reason="buf is not installed")
def test_foreign_client_reads_over_tls(served: Served, authority: Authority) -> None:
    pair = served.reader
    words = [BUF, "curl", "--protocol", "grpc", "--cacert", str(authority.ca), "--cert", str(pair.cert)]
    words += ["--key", str(pair.key), "-H", f"authorization: Bearer {TOKEN}", "--reflect-header", "*"]
    url = f"https://{served.agent.address}{_SERVICE}GetSnapshot"
    done = subprocess.run(
        [*words, "-d", '{"loopId": "alpha"}', url],
        capture_output=True,
        env=environment(),
        timeout=30,
        check=False,
    )
    assert json.loads(done.stdout)["snapshot"]["sequenceValue"] == "1", done.stderr
