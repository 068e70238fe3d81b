"""`ops-manager service-client`, against a server that answers as told (contract D.5)."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.manager import Ran, run
from tests.harness.receiver import Answer, Receiver, receiving
from tests.harness.secrets import SERVICE_TOKEN as TOKEN

BODY = b'{ "ok":true,\n"text":"\xc3\xa9" }\n\n'


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def get(receiver: Receiver | str, *flags: str, **variables: str) -> Ran:
    url = receiver if isinstance(receiver, str) else receiver.url
    words = (
        "--method",
        "GET",
        "--base-url",
        url,
        "--path",
        "/ops/x?loopId=a",
        "--retry-backoff-seconds",
        "0",
    )
    return run("service-client", *words, *flags, **variables)


def post(receiver: Receiver, body: Path, *flags: str) -> Ran:
    words = ("--method", "POST", "--base-url", f"{receiver.url}/", "--path", "/ops/control")
    return run("service-client", *words, "--body-file", str(body), "--retry-backoff-seconds", "0", *flags)


def test_body_of_a_success_is_printed_as_it_came(receiver: Receiver) -> None:
    receiver.gets["/ops/x"] = [Answer(206, BODY)]
    ran = get(receiver, "--token", TOKEN, "--trace-id", "t-1")
    assert (ran.code, ran.out.encode(), ran.err) == (0, BODY, "")
    (request,) = receiver.requests
    assert request.path == "/ops/x?loopId=a"
    assert request.header("authorization") == f"Bearer {TOKEN}"
    assert request.header("x-ops-token") == TOKEN
    assert request.header("x-trace-id") == "t-1"
    assert request.header("accept") == "application/json"
    assert request.header("content-type") is None


def test_token_of_the_environment_is_sent_to_no_address(receiver: Receiver) -> None:
    """Contract K lists none, and the address may be anybody's."""
    get(receiver, OPS_MANAGER_SERVICE_TOKEN=TOKEN)
    (request,) = receiver.requests
    assert (request.header("x-ops-token"), request.header("authorization")) == (None, None)


def test_token_that_a_service_repeats_is_not_printed(receiver: Receiver) -> None:
    for body in (f"bad Bearer {TOKEN}", "x" * 290 + TOKEN, TOKEN * 1000):
        receiver.gets["/ops/x"] = [Answer(401, body)]
        ran = get(receiver, "--token", TOKEN)
        assert (ran.code, "401" in ran.err, TOKEN in ran.err) == (1, True, False)


def test_file_is_posted_as_it_is(receiver: Receiver, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_bytes(b'{"loopId": "alpha" }\n')
    ran = post(receiver, body)
    assert (ran.code, ran.out) == (0, "ok")
    (request,) = receiver.requests
    assert (request.method, request.path, request.body) == ("POST", "/ops/control", '{"loopId": "alpha" }\n')
    assert request.header("content-type") == "application/json"


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_transient_status_is_tried_again(receiver: Receiver, tmp_path: Path, status: int) -> None:
    receiver.gets["/ops/x"] = receiver.responses = [Answer(status, "x"), Answer(200, "fine")]
    assert get(receiver).out == "fine"
    body = tmp_path / "body.json"
    body.write_text("{}")
    assert post(receiver, body).out == "fine"
    assert len(receiver.requests) == 4


@pytest.mark.parametrize(
    ("answer", "tries"),
    [
        (Answer(409, '{"ok":false,"exitCode":2}'), 2),
        (Answer(404, '{"ok":false}'), 1),
        (Answer(302, "", {"Location": "/y"}), 1),
        (Answer(502, '{"ok":false,"error":{"code":"runtime_error","message":"gone [loop_not_found]"}}'), 2),
    ],
)
def test_failure_names_method_address_code_and_body(receiver: Receiver, answer: Answer, tries: int) -> None:
    receiver.gets["/ops/x"] = [answer]
    ran = get(receiver, "--retry-attempts", "2")
    assert (ran.code, ran.out) == (1, "")
    for word in ("error: ", "GET", f"{receiver.url}/ops/x?loopId=a", str(answer.status), str(answer.body)):
        assert word in ran.err
    assert len(receiver.requests) == tries


def test_request_without_an_answer_has_code_000(receiver: Receiver, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    ran = get(url)
    assert ran.code == 1
    assert f"GET {url}/ops/x?loopId=a: 000" in ran.err
    receiver.responses = [Answer(closes=True)]
    body = tmp_path / "body.json"
    body.write_text("{}")
    ran = post(receiver, body)
    assert (ran.code, "000" in ran.err) == (1, True)
    assert len(receiver.requests) == 1, "who knows what a POST has done"


def test_server_that_hangs_is_left_after_the_time_given(receiver: Receiver) -> None:
    receiver.gets["/ops/x"] = [Answer(delay_seconds=20)]
    started = time.monotonic()
    ran = get(receiver, "--max-time-seconds", "1", "--retry-attempts", "1")
    assert (ran.code, "000" in ran.err) == (1, True)
    assert 1 <= time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--method", "PUT"], "--method"),
        (["--base-url", "grpc://127.0.0.1:1"], "--base-url"),
        (["--base-url", "http://name:secret@127.0.0.1:1"], "--base-url"),
        (["--path", "ops"], "--path"),
        (["--path", "/a b"], "--path"),
        (["--method", "POST"], "--body-file"),
        (["--method", "POST", "--body-file", "/nowhere"], "--body-file"),
        (["--retry-attempts", "0"], "--retry-attempts"),
        (["--max-time-seconds", "x"], "--max-time-seconds"),
        (["--token", "two words"], "--token"),
    ],
)
def test_refused_flag_is_named(flags: list[str], named: str) -> None:
    ran = get("http://127.0.0.1:9", *flags)
    assert (ran.code, ran.out) == (1, "")
    assert named in ran.err
    assert "secret" not in ran.err


@pytest.mark.parametrize("missing", ["--method", "--base-url", "--path"])
def test_missing_flag_is_named(missing: str) -> None:
    given = {"--method": "GET", "--base-url": "http://127.0.0.1:9", "--path": "/"}
    words = [word for pair in given.items() if pair[0] != missing for word in pair]
    ran = run("service-client", *words)
    assert (ran.code, f"error: {missing}" in ran.err) == (1, True)
