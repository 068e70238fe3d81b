"""Requests to real receivers: what sinks get, and what is made of their answers (contract I.3, I.4)."""

import json
import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from manager.alerts.posting import Post, Poster
from spritemesh.secrets import Scrubber
from tests.harness import secrets
from tests.harness.receiver import Answer, receiving, redirect
from tests.integration.alerts.conftest import TRACE_ID, Desk, outcome


def test_each_type_of_sink_gets_its_own_request(desk: Desk) -> None:
    hook = desk.sink(
        "hook", authTokenEnv="HOOK_TOKEN", headers={"X-Team": "ops", "content-type": "application/x"}
    )
    chat = desk.sink("chat", type_="slack", channel="#ops")
    pager = desk.sink("pager", Answer(202, '{"status":"success"}'), type_="pagerduty_events", group="g")
    desk.environment["HOOK_TOKEN"] = secrets.WEBHOOK_TOKEN
    desk.escalate("divergence_detected")
    assert desk.dispatch()["status"] == "success"

    (told,) = hook.requests
    assert (told.method, told.path) == ("POST", f"/{secrets.WEBHOOK_PATH}")
    assert told.header("authorization") == f"Bearer {secrets.WEBHOOK_TOKEN}"
    assert told.header("x-team") == "ops"
    assert told.header("content-type") == "application/x"
    assert json.loads(told.body)["escalation"]["category"] == "divergence_detected"

    (told,) = chat.requests
    assert told.header("content-type") == "application/json"
    assert "\n" in json.loads(told.body)["blocks"][0]["text"]["text"]

    (told,) = pager.requests
    assert told.path == "/v2/enqueue"
    assert json.loads(told.body)["routing_key"] == secrets.PAGERDUTY_KEY
    assert json.loads(told.body)["dedup_key"] == "alpha:divergence_detected:2024-03-11T09:00:00Z"
    assert [sink["httpStatus"] for sink in desk.rows[0]["sinks"]] == [200, 200, 202]


def test_request_carries_the_trace_of_its_escalation(desk: Desk) -> None:
    hook = desk.sink("hook")
    desk.escalate("one")
    desk.dispatch()
    (told,) = hook.requests
    assert told.header("x-trace-id") == TRACE_ID
    parent = told.header("traceparent")
    assert parent is not None
    assert parent.split("-")[1] == TRACE_ID.replace("-", "")


@pytest.mark.parametrize("trace_id", ["two\nlines", "größe", "x" * 300])
def test_trace_that_no_header_can_hold_does_not_hinder_the_alert(desk: Desk, trace_id: str) -> None:
    hook = desk.sink("hook")
    desk.escalate("one", traceId=trace_id)
    assert desk.dispatch()["status"] == "success"
    assert json.loads(hook.requests[0].body)["source"]["traceId"] == trace_id


def test_pagerduty_is_where_the_variable_says_unless_the_catalog_does(desk: Desk) -> None:
    pager = desk.sink("pager", type_="pagerduty_events", endpoint=None)
    desk.environment["OPS_MANAGER_ALERT_PAGERDUTY_ENDPOINT"] = f"{pager.url}/eu"
    desk.escalate("one")
    assert desk.dispatch()["status"] == "success"
    assert [request.path for request in pager.requests] == ["/eu"]


@pytest.mark.parametrize(
    ("answer", "code", "reason"),
    [
        (Answer(404, "no such hook"), "http_error", "sink_rejected"),
        (Answer(429, "slow down"), "http_error", "sink_failed"),
        (Answer(500, "oh"), "http_error", "sink_failed"),
        (redirect("http://127.0.0.1:9/elsewhere"), "http_error", "sink_redirected"),
        (Answer(closes=True), "request_failed", "sink_failed"),
    ],
)
def test_answer_that_is_no_success_waits_with_its_reason(
    desk: Desk, answer: Answer, code: str, reason: str
) -> None:
    hook = desk.sink("hook", answer)
    desk.escalate("one")
    state = desk.dispatch()
    assert (state["status"], state["failureReasonCodes"]) == ("failed", [code])
    found = outcome(desk.rows[0])
    assert found["httpStatus"] == (None if answer.closes else answer.status)
    assert found["message"] == (
        "the connection ended without an answer" if answer.closes else answer.body or None
    )
    assert desk.waiting == [{"hook": reason}]
    assert len(hook.requests) == 1  # a redirect is not followed either


def test_nobody_listens(desk: Desk) -> None:
    desk.put_sink("hook", {"enabled": True, "type": "webhook", "urlEnv": "HOOK"})
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        desk.environment["HOOK"] = f"http://127.0.0.1:{reserved.getsockname()[1]}/x"
        desk.escalate("one")
        desk.dispatch()
    assert outcome(desk.rows[0])["message"] == "no connection could be made"
    assert desk.waiting == [{"hook": "sink_unreachable"}]


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "hook.example.com", "http://", "http://[bad", "http://a b/"]
)
def test_address_that_is_none_fails_its_sink_only(desk: Desk, url: str) -> None:
    desk.put_sink("odd", {"enabled": True, "type": "webhook", "urlEnv": "ODD"})
    hook = desk.sink("hook")
    desk.environment["ODD"] = url
    desk.escalate("one")
    assert desk.dispatch()["status"] == "partial"
    assert desk.waiting == [{"odd": "sink_unreachable"}]
    assert len(hook.requests) == 1


def test_unset_secret_fails_its_sink_only(desk: Desk) -> None:
    hook = desk.sink("hook")
    desk.put_sink("other", {"enabled": True, "type": "slack", "webhookUrlEnv": "NOT_SET"})
    desk.escalate("one")
    state = desk.dispatch()
    assert (state["status"], state["failureReasonCodes"]) == ("partial", ["missing_secret"])
    assert desk.rows[0]["sinks"][1]["message"] == "not set: NOT_SET"
    assert len(hook.requests) == 1


def test_token_that_no_header_can_hold_is_not_told(desk: Desk) -> None:
    desk.sink("hook", authTokenEnv="TOKEN")
    desk.environment["TOKEN"] = "first\nsecond-secret"
    desk.escalate("one")
    desk.dispatch()
    assert desk.waiting == [{"hook": "sink_unreachable"}]
    assert "second-secret" not in json.dumps(desk.rows)


def test_message_is_one_line_of_300_characters(desk: Desk) -> None:
    desk.sink("hook", Answer(200, "first\nsecond\n\n"), Answer(200, "x" * 70_000))
    desk.escalate("one", "two")
    desk.dispatch()
    assert [outcome(row)["message"] for row in desk.rows] == ["first second", "x" * 300]


# --- within one time limit --------------------------------------------------------------------------


def send(url: str, timeout: float = 0.3, *, secret: str = "") -> tuple[str, int | None, str | None]:
    poster = Poster()
    try:
        return poster.send(Post(url, (), b"{}", timeout), Scrubber([secret]))
    finally:
        poster.close()


@contextmanager
def saying(*pieces: bytes, pause: float = 0.0) -> Iterator[str]:
    """A server that says `pieces`, with a pause after each, and hangs up."""
    ended = threading.Event()

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            for piece in pieces:
                try:
                    connection.sendall(piece)
                except OSError:
                    return  # the client has left
                if ended.wait(pause):
                    return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        ended.set()
        thread.join()


def test_sink_that_hangs_costs_its_time_limit() -> None:
    with receiving(Answer(delay_seconds=30)) as hung:
        began = time.monotonic()
        assert send(hung.url) == ("sink_timeout", None, "no answer within 0.3 s")
        assert time.monotonic() - began < 1


def test_sink_that_drips_costs_no_more() -> None:
    drops = [b"HTTP/1.1 200 OK\r\n", *(b"X-%d: drip\r\n" % number for number in range(100))]
    with saying(*drops, pause=0.1) as url:
        began = time.monotonic()
        assert send(url) == ("sink_timeout", None, "no answer within 0.3 s")
        assert time.monotonic() - began < 1


def test_half_an_answer_is_none() -> None:
    with saying(b"HTTP/1.1 20") as url:
        assert send(url) == ("sink_failed", None, "the connection ended without an answer")


def test_words_that_are_no_http_are_no_answer() -> None:
    with saying(b"hello\r\n\r\n") as url:
        assert send(url) == ("sink_failed", None, "the connection ended without an answer")


def test_acknowledgement_counts_though_its_body_breaks_off() -> None:
    with saying(b"HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\nhalf") as url:
        assert send(url) == ("", 202, "half")


def test_acknowledgement_counts_though_its_body_never_ends() -> None:
    with receiving(Answer(200, "so far", keep_open=True)) as sink:
        assert send(sink.url) == ("", 200, "so far")


def test_answer_is_read_only_so_far() -> None:
    with receiving(Answer(200, b"y" * 65536, repeat=10_000)) as sink:
        began = time.monotonic()
        assert send(sink.url, 10) == ("", 200, "y" * 300)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 500 Oh\r\nContent-Length: 500\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n",
    ],
)
@pytest.mark.parametrize("stalls", [True, False])
def test_secret_in_the_middle_of_which_an_answer_ends_is_not_kept(head: bytes, stalls: bool) -> None:
    said = b"you posted to /services/T000SECRETTOK"
    with saying(head, said, *[b""] * stalls, pause=0.5 if stalls else 0.0) as url:
        secret = f"{url}services/T000SECRETTOKEN"
        answer = send(secret, 0.7 if stalls else 5, secret=secret)
    assert answer[2] == "you posted to ***"


def test_address_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    with receiving() as sink, caplog.at_level(logging.DEBUG):
        assert send(f"{sink.url}/secret-path", 5) == ("", 200, "ok")
    assert "secret-path" not in caplog.text


@pytest.mark.parametrize("url", ["http://", "https:///path", "ftp://host/"])
def test_request_that_cannot_be_formed_is_told_as_such(url: str) -> None:
    assert send(url) == ("sink_unreachable", None, "the request could not be formed")


# --- TLS --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Paths of a certificate for 127.0.0.1 that signs itself, and of its key."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl to make a certificate with")
    directory = tmp_path_factory.mktemp("tls")
    found, key = str(directory / "certificate.pem"), str(directory / "key.pem")
    subprocess.run(
        [
            *(program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"),
            *("-out", found, "-keyout", key),
        ],
        capture_output=True,
        check=True,
    )
    return found, key


@contextmanager
def serving_tls(certificate: tuple[str, str]) -> Iterator[str]:
    """A server behind TLS that says 200."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    def serve() -> None:
        connection, _ = server.accept()
        with suppress(ssl.SSLError, OSError), context.wrap_socket(connection, server_side=True) as wrapped:
            said = b""
            while not said.endswith(b"{}"):
                said += wrapped.recv(65536)
            wrapped.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{server.getsockname()[1]}/"
        thread.join()


def test_authorities_of_the_system_are_believed(
    certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certificate[0])
    with serving_tls(certificate) as url:
        assert send(url, 5) == ("", 200, "ok")


def test_certificate_that_nobody_vouches_for_is_told_as_such(certificate: tuple[str, str]) -> None:
    with serving_tls(certificate) as url:
        assert send(url, 5) == (
            "sink_unreachable",
            None,
            "TLS failed: its certificate cannot be verified",
        )


def test_tls_with_a_port_that_speaks_none_is_told_as_such() -> None:
    with saying(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        assert send(url.replace("http:", "https:"), 5) == ("sink_unreachable", None, "TLS failed")


def test_proxies_of_the_environment_do_not_see_alerts(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy, receiving() as sink:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        assert send(sink.url, 5) == ("", 200, "ok")
        assert proxy.requests == []
