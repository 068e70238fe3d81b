"""The HTTP JSON bridge of a real agent: who gets in, what is read, and what odd clients meet."""

import itertools
import socket
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from spritemesh import __version__
from spritemesh.bridge import event_documents, snapshot_to_json
from spritemesh.names import AGENT_HEADER
from superloop.ops.v1 import sprite_pb2
from tests.harness.agents import (
    BEARER,
    CALL_SECONDS,
    ROOT,
    TOKEN,
    Agent,
    StartAgent,
    environment,
    serve_words,
    start_agent,
)
from tests.harness.http import WITH_TOKEN, HttpAnswer, HttpWire, ask, get, post
from tests.harness.loops import LoopFiles, Repo, event, events
from tests.harness.streams import watch
from tests.harness.waiting import wait_for

HTTP = ("--http", "127.0.0.1:0")
WITH_FLAG = ("--token", TOKEN)
PATHS = ("/healthz", "/ops/snapshot?loopId=alpha", "/ops/events?loopId=alpha", "/ops/control", "/", "/none")
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def http_repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return Repo(tmp_path_factory.mktemp("http") / "repo")


@pytest.fixture(scope="module")
def http_agent(http_repo: Repo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    agent = start_agent(http_repo.root, tmp_path_factory.mktemp("agent") / "errors.txt", *HTTP)
    yield agent
    agent.end()


@pytest.fixture
def address(http_agent: Agent) -> str:
    return str(http_agent.ready["http"])


@pytest.fixture
def log(http_repo: Repo) -> LoopFiles:
    """A loop never used before, with five events."""
    return http_repo.loop(f"loop-{next(_numbers)}", events(1, 5))


def numbers(answer: HttpAnswer) -> list[int]:
    """Line numbers of the events of an answer."""
    assert answer.status == 200, answer
    return [found["sequence"]["value"] for found in answer.document["events"]]


def without_time(document: Any) -> Any:
    """A document without the time at which it was made."""
    return {**document, "emittedAt": ""}


# --- who gets in ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        b"",
        b"X-Ops-Token: wrong\r\n",
        b"Authorization: Bearer wrong\r\n",
        f"Authorization: Basic {TOKEN}\r\n".encode(),
        f"X-Token: {TOKEN}\r\n".encode(),
        b"X-Ops-Token:\r\n",
    ],
)
def test_no_path_is_reached_without_the_token(address: str, method: str, headers: bytes) -> None:
    with HttpWire(address) as wire:
        for path in PATHS:
            answer = wire.ask(get(path, headers, method=method), method=method)
            assert answer.status == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            if method != "HEAD":
                assert answer.error == (401, "unauthorized")


@pytest.mark.parametrize(
    "headers",
    [
        f"X-Ops-Token:  {TOKEN} \r\n".encode(),
        f"Authorization: bEaReR  {TOKEN}\r\n".encode(),
        f"Authorization: Bearer wrong\r\nX-Ops-Token: {TOKEN}\r\n".encode(),
        f"X-Ops-Token: wrong\r\nAuthorization: Bearer {TOKEN}\r\n".encode(),
    ],
)
def test_either_header_lets_in(address: str, headers: bytes) -> None:
    assert ask(address, get("/healthz", headers)).document == {"ok": True}


def test_every_answer_says_that_it_is_an_agents(address: str, log: LoopFiles) -> None:
    """A client must know who refuses: a v1 service runs a repeated key twice."""
    requests = [
        *(get(path) for path in PATHS),
        *(get(path, b"") for path in PATHS),
        get(f"/ops/events?loopId={log.directory.name}"),
        get("/healthz", method="DELETE"),
        post("/ops/control", b"{"),
        b"no HTTP\r\n\r\n",
    ]
    for request in requests:
        assert ask(address, request).headers[AGENT_HEADER] == __version__, request


def test_an_open_agent_asks_for_no_token(loop: LoopFiles, start: StartAgent) -> None:
    agent = start(*HTTP, token=("--allow-unauthenticated",))
    for host in (b"localhost", b"localhost:80", b"127.0.0.1:1", b"[::1]:80", b"LOCALHOST"):
        request = get("/healthz", b"").replace(b"sprite", host)
        assert ask(agent.ready["http"], request).document == {"ok": True}
        own = get("/healthz", b"Origin: http://localhost:3000\r\n").replace(b"sprite", host)
        assert ask(agent.ready["http"], own).status == 200
    assert ask(agent.ready["http"], b"GET /healthz HTTP/1.0\r\n\r\n").status == 200


def test_an_open_agent_is_closed_to_pages_of_others(loop: LoopFiles, start: StartAgent) -> None:
    agent = start(*HTTP, token=("--allow-unauthenticated",))
    body = {"loopId": "alpha", "intent": "cancel"}
    for host, headers in (
        (b"localhost", b"Origin: https://evil.example\r\n"),
        (b"localhost", b"Origin: null\r\n"),
        (b"localhost", b"Origin: http://localhost.evil.example\r\n"),
        (b"rebound.example", b""),
        (b"192.0.2.1:80", b""),
        (b"[odd", b""),
    ):
        request = post("/ops/control", body, headers).replace(b"Host: sprite", b"Host: " + host)
        assert ask(agent.ready["http"], request).error == (403, "foreign_origin")


def test_with_a_token_the_name_does_not_matter(address: str) -> None:
    assert ask(address, get("/healthz", WITH_TOKEN + b"Origin: https://ops.example\r\n")).status == 200


def test_a_request_of_two_lengths_is_refused_and_closed(address: str) -> None:
    with HttpWire(address) as wire:
        two = WITH_TOKEN + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"
        answer = wire.ask(get("/ops/control", two, method="POST") + b"0\r\n\r\n")
        assert answer.error == (400, "invalid_request")
        assert wire.is_closed()


def test_a_whole_head_is_bounded_too(address: str) -> None:
    with HttpWire(address) as wire:
        answer = wire.ask(get("/healthz", WITH_TOKEN + b"X: " + b"x" * 33_000 + b"\r\n"))
        assert answer.error == (400, "invalid_request")
        assert wire.is_closed()
    assert ask(address, get("/healthz", WITH_TOKEN + b"X: " + b"x" * 32_000 + b"\r\n")).status == 200


def test_pipelined_requests_are_let_in_one_by_one(address: str) -> None:
    requests = [
        get("/healthz"),
        get("/healthz", b""),
        get("/healthz"),
        post("/ops/control", {}, b""),
        get("/no"),
    ]
    with HttpWire(address) as wire:
        wire.socket.sendall(b"".join(requests))
        assert [wire.answer().status for _ in requests] == [200, 401, 200, 401, 404]


# --- connections ------------------------------------------------------------------------------------


def test_a_connection_serves_many_requests(address: str, log: LoopFiles) -> None:
    with HttpWire(address) as wire:
        for target in ("/healthz", f"/ops/snapshot?loopId={log.loop_id}", "/none", "/healthz"):
            assert wire.ask(get(target)).headers.get("connection") is None
        last = wire.ask(get("/healthz", WITH_TOKEN + b"Connection: close\r\n"))
        assert last.headers["connection"] == "close"
        assert wire.is_closed()


def test_http_1_0_is_served_and_closed(address: str) -> None:
    with HttpWire(address) as wire:
        assert wire.ask(get("/healthz", version="1.0")).document == {"ok": True}
        assert wire.is_closed()


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /ops/control HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /ops/control HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
        + WITH_TOKEN
        + b"\r\nxyz\r\n",
        b"GET /healthz HTTP/1.1\r\nX-Long: " + b"x" * 100_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    ],
)
def test_what_is_no_http_is_refused_and_closed(address: str, data: bytes) -> None:
    with HttpWire(address) as wire:
        assert wire.ask(data).error == (400, "invalid_request")
        assert wire.is_closed()
    assert ask(address, get("/healthz")).status == 200


def test_a_broken_head_request_is_refused_without_a_body(address: str, http_agent: Agent) -> None:
    broken = get("/healthz", WITH_TOKEN + b"Transfer-Encoding: chunked\r\n", method="HEAD") + b"xyz\r\n"
    with HttpWire(address) as wire:
        assert wire.ask(broken, method="HEAD").status == 400
        assert wire.is_closed()
    assert "Traceback" not in http_agent.said()


def test_a_client_that_leaves_half_way_harms_nobody(address: str, http_agent: Agent, log: LoopFiles) -> None:
    pieces = (get("/healthz")[:20], post("/ops/control", {"loopId": log.loop_id})[:-4], get("/ops/events"))
    for piece in pieces:
        with HttpWire(address) as wire:
            wire.socket.sendall(piece)
    assert ask(address, get("/healthz")).status == 200
    assert "Traceback" not in http_agent.said()


# --- routes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/ops"),
        ("GET", "/healthz/"),
        ("GET", "/HEALTHZ"),
        ("GET", "//healthz"),
        ("GET", "/%68ealthz"),
        ("GET", "/ops/../healthz"),
        ("GET", "/ops/control"),
        ("POST", "/healthz"),
        ("POST", "/ops/snapshot"),
        ("POST", "/ops/events"),
        ("HEAD", "/none"),
    ],
)
def test_unknown_paths_and_methods_of_others_are_not_found(address: str, method: str, path: str) -> None:
    answer = ask(address, get(path, method=method), method=method)
    assert answer.status == 404
    if method != "HEAD":
        assert answer.error == (404, "not_found")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get"])
def test_other_methods_are_not_allowed(address: str, method: str) -> None:
    answer = ask(address, get("/healthz", method=method))
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD, POST"
    assert answer.document["ok"] is False


def test_head_tells_what_get_would_send(address: str, log: LoopFiles) -> None:
    for target in ("/healthz", f"/ops/events?loopId={log.loop_id}"):
        with HttpWire(address) as wire:
            head = wire.ask(get(target, method="HEAD"), method="HEAD")
            whole = wire.ask(get(target))
        assert head.status == 200
        assert head.headers["content-length"] == whole.headers["content-length"]


def test_a_target_may_name_its_origin(address: str) -> None:
    assert ask(address, get("http://sprite:80/healthz")).document == {"ok": True}


# --- bodies -----------------------------------------------------------------------------------------


def chunked(body: bytes, size: int = 60_000) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces) + b"0\r\n\r\n"


CHUNKED = WITH_TOKEN + b"Transfer-Encoding: chunked\r\n"


def test_a_large_body_is_refused_and_the_connection_kept(address: str) -> None:
    with HttpWire(address) as wire:
        for request in (
            post("/ops/control", b" " * 300_000),
            get("/ops/control", CHUNKED, method="POST") + chunked(b" " * 300_000),
        ):
            answer = wire.ask(request)
            assert answer.error == (413, "invalid_request")
            assert "body_too_large" in answer.message
        assert wire.ask(get("/healthz")).status == 200


def test_an_endless_body_is_cut_off(address: str) -> None:
    piece = chunked(b" " * 1_000_000, 1_000_000)[: -len(b"0\r\n\r\n")]
    with HttpWire(address) as wire:
        wire.socket.sendall(get("/ops/control", CHUNKED, method="POST"))
        with pytest.raises(OSError, match=r"reset|pipe"):
            wire.socket.sendall(piece * 100)


@pytest.mark.parametrize("headers", [WITH_TOKEN, b""])
def test_a_client_that_asks_before_it_sends_is_told(address: str, headers: bytes) -> None:
    expecting = b"Expect: 100-continue\r\nContent-Length: 300000\r\n"
    with HttpWire(address) as wire:
        answer = wire.ask(get("/ops/control", headers + expecting, method="POST"))
        assert answer.status == (413 if headers else 401)
        assert wire.is_closed()


def test_a_client_that_asks_first_may_go_on(address: str) -> None:
    expecting = WITH_TOKEN + b"Expect: 100-continue\r\nContent-Length: 2\r\n"
    with HttpWire(address) as wire:
        wire.socket.sendall(get("/ops/control", expecting, method="POST"))
        assert wire.answer(has_body=False).status == 100
        assert wire.ask(b"{}").error == (400, "invalid_request")
        assert wire.ask(get("/healthz")).status == 200


def test_a_body_in_chunks_is_a_body(address: str) -> None:
    body = chunked(b'{"loopId":"../x","intent":"cancel"}', 7)
    answer = ask(address, get("/ops/control", CHUNKED, method="POST") + body)
    assert answer.error == (400, "invalid_request")
    assert "invalid_loop_id" in answer.message


def test_a_body_where_none_is_wanted_is_passed(address: str) -> None:
    with HttpWire(address) as wire:
        for headers in (WITH_TOKEN, b""):
            wire.ask(get("/healthz", headers + b"Content-Length: 5\r\n") + b"GET /")
        assert wire.ask(get("/healthz")).document == {"ok": True}


# --- reading ----------------------------------------------------------------------------------------


def test_snapshot_is_that_of_grpc(address: str, http_agent: Agent, log: LoopFiles) -> None:
    log.append(event(6, "ä 😀 \u2028"))
    answer = ask(address, get(f"/ops/snapshot?loopId={log.loop_id}"))
    with http_agent.stub() as stub:
        request = sprite_pb2.GetSnapshotRequest(loop_id=log.loop_id)
        snapshot = stub.GetSnapshot(request, metadata=BEARER, timeout=CALL_SECONDS).snapshot
    assert answer.status == 200
    assert without_time(answer.document) == without_time(snapshot_to_json(snapshot))
    assert answer.document["traceId"] is None


def test_events_are_those_of_grpc(address: str, http_agent: Agent, log: LoopFiles) -> None:
    log.append(b"\n" + event(7, "ä 😀", data=[1, "é"]) + b"\n")
    answer = ask(address, get(f"/ops/events?loopId={log.loop_id}"))
    with http_agent.stub() as stub:
        batches = [message.batch for message in watch(stub, log.loop_id) if message.HasField("batch")]
    expected = [without_time(found) for batch in batches for found in event_documents(batch)]
    document = answer.document
    assert [without_time(found) for found in document["events"]] == expected
    assert "traceId" not in document
    assert document["source"] == {"repoPath": str(log.repo), "loopId": log.loop_id}
    del document["cursor"]["updatedAt"]
    assert document["cursor"] == {"eventLineOffset": 7, "eventLineCount": 8}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [1, 2, 3, 4, 5]),
        ("&cursor=&maxEvents=", [1, 2, 3, 4, 5]),
        ("&cursor=0", [1, 2, 3, 4, 5]),
        ("&cursor=3", [4, 5]),
        ("&cursor=003&maxEvents=1", [4]),
        ("&cursor=%203&maxEvents=%2b1", [4]),
        ("&cursor=4&cursor=1", [5]),
        ("&cursor=&cursor=4", [5]),
        ("&cursor=5", []),
        ("&maxEvents=2", [1, 2]),
        ("&maxEvents=99999999999999999999999999", [1, 2, 3, 4, 5]),
        ("&unknown=1&&=&a", [1, 2, 3, 4, 5]),
        ("&loopId=none", [1, 2, 3, 4, 5]),
        ("#fragment", [1, 2, 3, 4, 5]),
    ],
)
def test_queries_are_read_as_v1_reads_them(
    address: str, log: LoopFiles, query: str, expected: list[int]
) -> None:
    query = query.replace("#fragment", "&x=%23")
    assert numbers(ask(address, get(f"/ops/events?loopId={log.loop_id}{query}"))) == expected


@pytest.mark.parametrize(
    ("query", "status", "named"),
    [
        ("?loopId=", 400, "loopId"),
        ("", 400, "loopId"),
        ("?loopid=LOOP", 400, "loopId"),
        ("?loopId=LOOP&cursor=-1", 400, "cursor"),
        ("?loopId=LOOP&cursor=one", 400, "cursor"),
        ("?loopId=LOOP&cursor=1.0", 400, "cursor"),
        ("?loopId=LOOP&cursor=1e3", 400, "cursor"),
        ("?loopId=LOOP&cursor=%D9%A1", 400, "cursor"),
        ("?loopId=LOOP&cursor=" + "9" * 5000, 400, "cursor"),
        ("?loopId=LOOP&maxEvents=-2", 400, "maxEvents"),
        ("?loopId=LOOP&maxEvents=null", 400, "maxEvents"),
        ("?loopId=LOOP&cursor=6", 502, "6 is beyond the 5"),
        ("?loopId=LOOP&cursor=99999999999999999999999999", 502, "beyond the 5"),
        ("?loopId=%FF", 400, "query"),
        ("?" + "a=1&" * 200 + "loopId=LOOP", 400, "query"),
        ("?loopId=..%2f..%2fetc", 400, "invalid_loop_id"),
        ("?loopId=..", 400, "invalid_loop_id"),
        ("?loopId=a%00b", 400, "invalid_loop_id"),
        ("?loopId=a%5Cb", 400, "invalid_loop_id"),
        ("?loopId=" + "x" * 256, 400, "invalid_loop_id"),
        ("?loopId=never", 502, "loop_not_found"),
    ],
)
def test_bad_queries_are_refused_by_name(
    address: str, log: LoopFiles, query: str, status: int, named: str
) -> None:
    answer = ask(address, get("/ops/events" + query.replace("LOOP", log.loop_id)))
    assert answer.error == (status, "invalid_request" if status == 400 else "runtime_error")
    assert named in answer.message


@pytest.mark.parametrize("loop_id", ["a b+c", "ä😀", "%41", "a&b=c?d#e", "x" * 255])
def test_every_id_that_is_a_name_works(address: str, http_repo: Repo, loop_id: str) -> None:
    http_repo.loop(loop_id, events(1, 2))
    answer = ask(address, get(f"/ops/snapshot?loopId={quote(loop_id, safe='')}"))
    assert answer.document["source"]["loopId"] == loop_id
    assert numbers(ask(address, get(f"/ops/events?loopId={quote(loop_id, safe='')}"))) == [1, 2]


def test_trace_id_comes_from_its_header_or_a_traceparent(address: str, log: LoopFiles) -> None:
    def trace(headers: bytes) -> list[str | None]:
        target = f"?loopId={log.loop_id}&maxEvents=1"
        snapshot = ask(address, get(f"/ops/snapshot{target}", WITH_TOKEN + headers)).document
        found = ask(address, get(f"/ops/events{target}", WITH_TOKEN + headers)).document
        return [snapshot["traceId"], found.get("traceId"), found["events"][0]["traceId"]]

    standard = b"traceparent: 00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01\r\n"
    assert trace(b"X-Trace-Id:  t 1 \r\n") == ["t 1"] * 3
    assert trace(standard) == ["ab" * 16] * 3
    assert trace(standard + b"X-Trace-Id: t\r\n") == ["t"] * 3
    assert trace(b"X-Trace-Id:  \r\ntraceparent: nonsense\r\n") == [None] * 3
    refused = ask(
        address,
        get("/ops/snapshot?loopId=" + log.loop_id, WITH_TOKEN + b"X-Trace-Id: " + b"t" * 129 + b"\r\n"),
    )
    assert refused.error == (400, "invalid_request")


def test_an_invalid_line_fails_the_answer_that_would_pass_it(address: str, log: LoopFiles) -> None:
    log.append(b"{bad\n" + event(7))
    target = f"/ops/events?loopId={log.loop_id}"
    answer = ask(address, get(target))
    assert answer.error == (502, "runtime_error")
    assert "line 6" in answer.message
    assert "events.jsonl" in answer.message
    assert numbers(ask(address, get(f"{target}&maxEvents=5"))) == [1, 2, 3, 4, 5]
    assert numbers(ask(address, get(f"{target}&cursor=6"))) == [7]


def test_an_unterminated_tail_is_not_there_yet(address: str, log: LoopFiles) -> None:
    log.append(event(6)[:-1])
    assert numbers(ask(address, get(f"/ops/events?loopId={log.loop_id}&cursor=4"))) == [5]
    log.append(b"\n")
    assert numbers(ask(address, get(f"/ops/events?loopId={log.loop_id}&cursor=5"))) == [6]


def test_memory_does_not_follow_the_length_of_the_log(
    address: str, http_agent: Agent, http_repo: Repo, log: LoopFiles
) -> None:
    ask(address, get(f"/ops/events?loopId={log.loop_id}"))
    large = http_repo.loop(
        f"loop-{next(_numbers)}", b"".join(event(n, data={"text": "x" * 4000}) for n in range(1, 8001))
    )
    before = http_agent.rss_bytes
    with HttpWire(address) as wire:
        wire.socket.sendall(get(f"/ops/events?loopId={large.loop_id}"))
        wait_for(lambda: wire.socket.recv(1, socket.MSG_PEEK), what="the answer to begin")
        grown = http_agent.rss_bytes - before
        answer = wire.answer()
    assert len(answer.body) > 60_000_000
    assert grown < 20_000_000
    assert numbers(answer) == list(range(1, 8001))


def test_a_reader_that_leaves_does_not_hold_its_document(address: str, http_repo: Repo) -> None:
    large = http_repo.loop(
        f"loop-{next(_numbers)}", b"".join(event(n, data={"text": "x" * 4000}) for n in range(1, 2001))
    )
    for _ in range(20):  # more than there may be at once
        with HttpWire(address) as wire:
            wire.socket.sendall(get(f"/ops/events?loopId={large.loop_id}"))
            wire.socket.recv(100)
    wait_for(lambda: ask(address, get(f"/ops/events?loopId={large.loop_id}&cursor=1999")).status == 200)


# --- start and end ----------------------------------------------------------------------------------


def test_ready_line_names_the_address(http_agent: Agent) -> None:
    host, _, port = http_agent.ready["http"].rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--http", "127.0.0.1:1", *WITH_FLAG), "cannot listen"),
        (("--http", "nowhere.invalid:0", *WITH_FLAG), "cannot listen"),
        (("--http", "unix:///tmp/s", *WITH_FLAG), "must be HOST:PORT"),
        (("--http", "8080", *WITH_FLAG), "must be HOST:PORT"),
        (("--http", "0.0.0.0:0", "--allow-unauthenticated"), "only loopback"),
        (("--http", "127.0.0.1:0"), "no token"),
    ],
)
def test_an_address_that_cannot_be_served_is_refused(repo: Repo, flags: tuple[str, ...], reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = f"127.0.0.1:{taken.getsockname()[1]}"
        words = [port if word == "127.0.0.1:1" else word for word in flags]
        done = subprocess.run(
            serve_words(repo.root, "--grpc", "127.0.0.1:0", *words),
            capture_output=True,
            cwd=ROOT,
            env=environment(),
            timeout=CALL_SECONDS,
            check=False,
        )
    assert (done.returncode, done.stdout) == (1, b"")
    *_, last = done.stderr.decode().splitlines()
    assert last.startswith("error: ")
    assert reason in last
    assert b"Traceback" not in done.stderr


def test_draining_is_told_and_what_was_begun_is_finished(repo: Repo, start: StartAgent) -> None:
    repo.loop("alpha", events(1, 3))
    agent = start(*HTTP)
    address = str(agent.ready["http"])
    with HttpWire(address) as wire, HttpWire(address) as stranger:
        assert wire.ask(get("/healthz")).status == 200
        assert stranger.ask(get("/healthz", b"")).status == 401
        agent.signal()
        wait_for(lambda: wire.ask(get("/healthz")).status == 503, seconds=1)
        late = wire.ask(get("/healthz"))
        assert late.error == (503, "agent_draining")
        assert int(late.headers["retry-after"]) >= 1
        assert stranger.ask(get("/healthz", b"")).status == 401
        assert ask(address, get("/ops/snapshot?loopId=alpha")).error == (503, "agent_draining")
        assert agent.wait(8) == 0
    with pytest.raises(ConnectionRefusedError):
        ask(address, get("/healthz"))
    assert "Traceback" not in agent.said()
