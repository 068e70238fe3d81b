"""A service over HTTP, as the manager reads it: what it sends, what it takes, and what it makes of faults."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from manager.core.cursor import Place
from manager.core.intake import Intake
from manager.core.sequence import Numbers
from manager.transport import Endpoint, Retry, http_client
from manager.transport import http as http_transport
from manager.transport.http import HttpTransport
from manager.transport.http_client import Timeouts
from manager.transport.local import LocalTransport
from spritemesh.bridge import event_documents, snapshot_to_json
from spritemesh.errors import OpsError
from superloop.ops.v1 import envelope_pb2 as pb
from tests.harness import secrets
from tests.harness.agents import Message
from tests.harness.loops import LoopFiles, Repo, events
from tests.harness.receiver import Answer, Receiver, receiving, redirect
from tests.harness.streams import kinds, raw_events, until

TRACE = "0af76519-16cd-43dd-8448-eb211c80319c"
Open = Callable[..., HttpTransport]
Document = dict[str, Any]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def opened(receiver: Receiver) -> Iterator[Open]:
    """Opens transports to the receiver."""
    found: list[HttpTransport] = []

    def open_it(
        url: str | None = None, *, token: str = "", retry: Retry | None = None, **times: float
    ) -> HttpTransport:
        retry = retry or Retry(attempts=1, backoff_seconds=0.01)
        found.append(HttpTransport(Endpoint(url or receiver.url, token), retry, Timeouts(**times)))
        return found[-1]

    yield open_it
    for transport in found:
        transport.close()


@pytest.fixture
def loop_documents(repo: Repo, loop: LoopFiles) -> tuple[Document, list[Document]]:
    """Snapshot and events of a loop with five lines, as a v1 service tells them."""
    loop.append(events(1, 5))
    loop.put("approval.json", {"status": "pending"})
    local = LocalTransport(str(repo.root))
    snapshot = snapshot_to_json(local.snapshot("alpha"))
    messages = local.events("alpha", None)
    documents = [document for message in messages for document in event_documents(message.batch)]
    local.close()
    return snapshot, documents


def page(documents: list[Document], offset: int, lines: int = 5) -> Answer:
    cursor = {"eventLineOffset": offset, "eventLineCount": lines, "updatedAt": "2026-01-01T00:00:00Z"}
    return told({"ok": True, "schemaVersion": "v1", "events": documents, "cursor": cursor})


def told(document: object, status: int = 200, **headers: str) -> Answer:
    return Answer(status, json.dumps(document), headers)


def refused(status: int, code: str, message: str) -> Answer:
    return told({"ok": False, "error": {"code": code, "message": message}}, status)


def error_from(work: Callable[[], object]) -> OpsError:
    with pytest.raises(OpsError) as caught:
        work()
    return caught.value


def asked(receiver: Receiver) -> list[str]:
    return [request.path for request in receiver.requests]


# --- what is asked -------------------------------------------------------------------------------------


def test_request_carries_token_trace_and_encoded_loop_id(
    receiver: Receiver, opened: Open, loop_documents: tuple[Document, list[Document]]
) -> None:
    receiver.gets["/ops/snapshot"] = [told(loop_documents[0])]
    opened(token=secrets.SERVICE_TOKEN).snapshot("a/b c&d=\u00e9#", trace_id=TRACE)
    (request,) = receiver.requests
    assert request.path == "/ops/snapshot?loopId=a%2Fb%20c%26d%3D%C3%A9%23"
    assert request.header("authorization") == f"Bearer {secrets.SERVICE_TOKEN}"
    assert request.header("x-ops-token") == secrets.SERVICE_TOKEN
    assert request.header("x-trace-id") == TRACE
    assert (request.header("traceparent") or "").split("-")[1] == TRACE.replace("-", "")
    assert request.header("accept") == "application/json"


def test_settings_of_the_environment_do_not_lead_requests_elsewhere(
    receiver: Receiver,
    opened: Open,
    loop_documents: tuple[Document, list[Document]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receiver.gets["/ops/snapshot"] = [told(loop_documents[0])]
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert opened().snapshot("alpha").sequence_value == 5


def test_snapshot_of_a_service_is_that_of_the_files(
    receiver: Receiver, opened: Open, loop_documents: tuple[Document, list[Document]]
) -> None:
    receiver.gets["/ops/snapshot"] = [told(loop_documents[0])]
    transport = opened()
    assert snapshot_to_json(transport.snapshot("alpha")) == loop_documents[0]
    assert transport.snapshot("alpha", run_id="other").run.run_id == "other"
    assert transport.snapshot("alpha", trace_id="sp\u00fcr").trace_id == "sp\u00fcr"


# --- events --------------------------------------------------------------------------------------------


def test_events_come_in_pages_until_one_is_not_full(
    receiver: Receiver,
    opened: Open,
    loop_documents: tuple[Document, list[Document]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_transport, "_PAGE_EVENTS", 2)
    documents = loop_documents[1]
    receiver.gets["/ops/events"] = [page(documents[:2], 2), page(documents[2:4], 4), page(documents[4:], 5)]
    messages = list(opened().events("alpha", None, trace_id="t"))
    assert kinds(messages) == ["opened", *["batch", "bookmark"] * 3, "goodbye"]
    found = [document for message in messages for document in event_documents(message.batch)]
    assert found == documents
    assert [message.bookmark.position.line for message in messages if message.HasField("bookmark")] == [
        2,
        4,
        5,
    ]
    assert asked(receiver) == [f"/ops/events?loopId=alpha&cursor={line}&maxEvents=2" for line in (0, 2, 4)]
    intake = Intake(Place(), start_line=0)
    for message in messages:
        intake.accept(message)
    intake.finish()
    assert (intake.numbers, intake.offset, intake.line_count) == (Numbers.of(range(1, 6)), 5, 5)
    assert intake.last_event == documents[-1]


@pytest.mark.parametrize(
    ("max_events", "lines", "reason"),
    [(0, [1, 2, 3, 4, 5], "drained_to_head"), (3, [1, 2, 3], "max_events_reached")],
)
def test_service_that_ignores_the_limit_is_held_to_it(
    receiver: Receiver,
    opened: Open,
    loop_documents: tuple[Document, list[Document]],
    monkeypatch: pytest.MonkeyPatch,
    max_events: int,
    lines: list[int],
    reason: str,
) -> None:
    monkeypatch.setattr(http_transport, "_PAGE_EVENTS", 2)
    receiver.gets["/ops/events"] = [page(loop_documents[1], 5)]
    messages = list(opened().events("alpha", pb.LogPosition(line=0), max_events=max_events))
    assert [line for line, _ in raw_events(messages)] == lines
    assert messages[-2].bookmark.position.line == lines[-1]
    assert messages[-1].goodbye.reason == reason
    assert len(receiver.requests) == 1


def test_what_precedes_a_line_that_is_no_event_is_delivered(
    receiver: Receiver,
    opened: Open,
    loop_documents: tuple[Document, list[Document]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_transport, "_PAGE_EVENTS", 8)
    bad = refused(502, "runtime_error", "events.jsonl: line 4 is no event (5 bytes) [invalid_json_line]")
    documents = loop_documents[1]
    receiver.gets["/ops/events"] = [bad, bad, page(documents[:2], 2), bad, page(documents[2:3], 3), bad]
    found: list[Message] = []
    error = error_from(lambda: found.extend(opened(retry=Retry(3, 9.0)).events("alpha", None)))
    assert (error.reason, "line 4" in error.message) == ("invalid_json_line", True)
    assert [line for line, _ in raw_events(found)] == [1, 2, 3]
    wanted = [path.partition("&")[2] for path in asked(receiver)]
    assert wanted == [
        f"cursor={line}&maxEvents={size}" for line, size in ((0, 8), (0, 4), (0, 2), (2, 2), (2, 1), (3, 1))
    ]


@pytest.mark.parametrize(
    ("document", "member"),
    [
        ([], "ok"),
        ({"ok": 1, "events": [], "cursor": {}}, "ok"),
        ({"ok": False, "events": [], "cursor": {}}, "ok"),
        ({"ok": True, "events": {}, "cursor": {}}, "events"),
        ({"ok": True, "events": [], "cursor": []}, "cursor"),
        ({"ok": True, "events": [], "cursor": {"eventLineCount": 1}}, "cursor.eventLineOffset"),
        ({"ok": True, "events": [], "cursor": {"eventLineOffset": -1}}, "cursor.eventLineOffset"),
        ({"ok": True, "events": [], "cursor": {"eventLineOffset": 1.5}}, "cursor.eventLineOffset"),
        ({"ok": True, "events": [], "cursor": {"eventLineOffset": 2**64}}, "cursor.eventLineOffset"),
        ({"ok": True, "events": [], "cursor": {"eventLineOffset": "1"}}, "cursor.eventLineCount"),
    ],
)
def test_events_answer_of_a_wrong_shape_is_invalid(
    receiver: Receiver, opened: Open, document: object, member: str
) -> None:
    receiver.gets["/ops/events"] = [told(document)]
    error = error_from(lambda: list(opened().events("alpha", None)))
    assert (error.reason, error.field) == ("service_response_invalid", member)


def test_service_that_stands_still_is_not_asked_for_ever(
    receiver: Receiver,
    opened: Open,
    loop_documents: tuple[Document, list[Document]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_transport, "_PAGE_EVENTS", 2)
    receiver.gets["/ops/events"] = [page(loop_documents[1][:2], 0)]
    assert error_from(lambda: list(opened().events("alpha", None))).reason == "service_response_invalid"
    assert len(receiver.requests) == 1


# --- followers -----------------------------------------------------------------------------------------


def test_follower_asks_again_and_outlives_an_outage(
    receiver: Receiver,
    opened: Open,
    loop_documents: tuple[Document, list[Document]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_transport, "_POLL_SECONDS", 0.01)
    documents = loop_documents[1]
    receiver.gets["/ops/events"] = [
        page(documents[:2], 2, 2),
        page([], 2, 2),
        Answer(closes=True),
        Answer(503, "later"),
        page(documents[2:], 5),
        page([], 5),
    ]
    waits: list[str] = []
    retry = Retry(3, 0.01, lambda error, seconds: waits.append(error.reason))
    stream = opened(retry=retry).events("alpha", None, follow=True)
    first = until(stream, "bookmark")
    rest = until(stream, "bookmark")
    assert [line for line, _ in raw_events([*first, *rest])] == [1, 2, 3, 4, 5]
    assert waits == ["agent_unreachable", "service_http_error"]
    assert asked(receiver)[-1] == "/ops/events?loopId=alpha&cursor=2&maxEvents=1000"
    stream.close()  # type: ignore[attr-defined]


def test_event_limit_ends_a_follower(
    receiver: Receiver,
    opened: Open,
    loop_documents: tuple[Document, list[Document]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_transport, "_POLL_SECONDS", 0.01)
    documents = loop_documents[1]
    receiver.gets["/ops/events"] = [page(documents[:1], 1, 1), page(documents[1:3], 3)]
    messages = list(opened().events("alpha", None, follow=True, max_events=3))
    assert [line for line, _ in raw_events(messages)] == [1, 2, 3]
    assert messages[-1].goodbye.reason == "max_events_reached"
    assert asked(receiver)[-1].endswith("cursor=1&maxEvents=2")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            refused(502, "runtime_error", "cursor 2 is beyond the 1 lines of the log [cursor_ahead]"),
            "cursor_ahead",
        ),
        (refused(401, "unauthorized", "no"), "token_missing"),
        (page([], 1, 1), "service_response_invalid"),
    ],
)
def test_follower_ends_by_what_time_cannot_mend(
    receiver: Receiver,
    opened: Open,
    loop_documents: tuple[Document, list[Document]],
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    reason: str,
) -> None:
    monkeypatch.setattr(http_transport, "_POLL_SECONDS", 0.01)
    receiver.gets["/ops/events"] = [page(loop_documents[1][:2], 2, 2), answer]
    stream = opened().events("alpha", None, follow=True)
    until(stream, "bookmark")
    assert error_from(lambda: next(stream)).reason == reason


# --- faults --------------------------------------------------------------------------------------------

BIG = {"ok": False, "error": {"code": "gone", "message": "x" * 5000}}


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (Answer(200, "<html>"), "service_response_invalid", ["no JSON"]),
        (Answer(200, ""), "service_response_invalid", ["no JSON"]),
        (Answer(200, "[" * 9000), "service_response_invalid", ["no JSON"]),
        (Answer(200, "[]"), "service_response_invalid", ["object"]),
        (told({"ok": True}), "projection_failed", ["schemaVersion"]),
        (Answer(204, ""), "service_response_invalid", ["204"]),
        (Answer(404, "{}"), "service_http_error", ["404", "{}"]),
        (Answer(500, b"\xff\x1b[31m"), "service_http_error", ["500", "\\x1b"]),
        (told(BIG, 410), "service_http_error", ["410", "xxx"]),
        (redirect("http://127.0.0.1:9/"), "service_http_error", ["302"]),
        (redirect("/elsewhere", 307), "service_http_error", ["307"]),
        (refused(401, "unauthorized", "no"), "token_missing", ["401"]),
        (refused(401, "unauthorized", "a token, please [token_missing]"), "token_missing", ["please"]),
        (refused(502, "runtime_error", "gone [loop_not_found]"), "loop_not_found", ["gone"]),
        (refused(502, "runtime_error", "gone [of_no_table]"), "service_http_error", ["502", "of_no_table"]),
        (refused(502, "runtime_error", "jq: error"), "service_http_error", ["502", "jq: error"]),
        (refused(503, "too_many_streams", "full"), "too_many_streams", ["full"]),
        (refused(400, "invalid_request", "loopId is required"), "invalid_request", ["loopId"]),
        (Answer(closes=True), "agent_unreachable", ["000"]),
    ],
)
def test_fault_of_a_service_has_its_reason_and_says_what_was_asked(
    receiver: Receiver, opened: Open, answer: Answer, reason: str, words: list[str]
) -> None:
    receiver.gets["/ops/snapshot"] = [answer]
    error = error_from(lambda: opened().snapshot("alpha"))
    assert error.reason == reason
    for word in words:
        assert word in error.message
    if reason == "service_http_error":
        assert f"GET {receiver.url}/ops/snapshot?loopId=alpha" in error.message
        assert len(error.message) < 600
    assert asked(receiver) == ["/ops/snapshot?loopId=alpha"], "a redirect is not followed"


def test_wrong_token_is_told_apart_from_a_missing_one(receiver: Receiver, opened: Open) -> None:
    receiver.gets["/ops/snapshot"] = [refused(401, "unauthorized", "no")]
    error = error_from(lambda: opened(token=secrets.SERVICE_TOKEN, retry=Retry(5, 5.0)).snapshot("alpha"))
    assert error.reason == "token_wrong"
    assert secrets.SERVICE_TOKEN not in error.message
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [Answer(delay_seconds=20), Answer(200, "{", keep_open=True)],
    ids=["no answer", "no end"],
)
def test_service_that_hangs_is_given_up(receiver: Receiver, opened: Open, answer: Answer) -> None:
    receiver.gets["/ops/snapshot"] = [answer]
    started = time.monotonic()
    error = error_from(lambda: opened(silence=0.2, retry=Retry(2, 0.01)).snapshot("alpha"))
    assert error.reason == "deadline_exceeded"
    assert "000" in error.message
    assert 0.4 <= time.monotonic() - started < 3
    assert len(receiver.requests) == 2


def test_answer_that_trickles_is_given_up() -> None:
    """Each byte is a sign of life; together they never come to an end."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not ended.wait(0.02):
                    try:
                        peer.sendall(b" ")
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        transport = HttpTransport(Endpoint(url, ""), Retry(1, 0), Timeouts(silence=0.2, whole=0.3))
        try:
            assert error_from(lambda: transport.snapshot("alpha")).reason == "deadline_exceeded"
        finally:
            transport.close()
            ended.set()
            thread.join()


def test_answer_without_end_is_cut_off(
    receiver: Receiver, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "MAX_ANSWER_BYTES", 100_000)
    receiver.gets["/ops/snapshot"] = [Answer(200, " " * 65536, repeat=1000)]
    assert error_from(lambda: opened().snapshot("alpha")).reason == "message_too_large"


def test_page_that_is_too_large_is_asked_for_in_parts(
    receiver: Receiver,
    opened: Open,
    loop_documents: tuple[Document, list[Document]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_transport, "_PAGE_EVENTS", 4)
    monkeypatch.setattr(http_client, "MAX_ANSWER_BYTES", 100_000)
    documents = loop_documents[1]
    huge = Answer(200, " " * 65536, repeat=9)
    receiver.gets["/ops/events"] = [huge, *(page(documents[at : at + 2], min(at + 2, 5)) for at in (0, 2, 4))]
    assert [line for line, _ in raw_events(opened().events("alpha", None))] == [1, 2, 3, 4, 5]
    assert [path.rpartition("=")[2] for path in asked(receiver)] == ["4", "2", "2", "2"]


# --- tries ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_status_that_time_may_mend_is_tried_again(
    receiver: Receiver, opened: Open, loop_documents: tuple[Document, list[Document]], status: int
) -> None:
    receiver.gets["/ops/snapshot"] = [Answer(status, "x"), Answer(status, "x"), told(loop_documents[0])]
    assert opened(retry=Retry(3, 0.01)).snapshot("alpha").sequence_value == 5
    assert len(receiver.requests) == 3


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 410, 413, 501])
def test_status_that_time_cannot_mend_is_final(receiver: Receiver, opened: Open, status: int) -> None:
    receiver.gets["/ops/snapshot"] = [Answer(status, "x")]
    error_from(lambda: opened(retry=Retry(3, 9.0)).snapshot("alpha"))
    assert len(receiver.requests) == 1


def test_known_reason_decides_about_further_tries(receiver: Receiver, opened: Open) -> None:
    """v1 asks three times for a loop that is not there (contract L16)."""
    receiver.gets["/ops/snapshot"] = [refused(502, "runtime_error", "no such loop [loop_not_found]")]
    assert error_from(lambda: opened(retry=Retry(3, 9.0)).snapshot("ghost")).reason == "loop_not_found"
    assert len(receiver.requests) == 1
    receiver.take()
    receiver.gets["/ops/snapshot"] = [refused(502, "runtime_error", "busy [log_unavailable]")]
    assert error_from(lambda: opened(retry=Retry(3, 0.01)).snapshot("ghost")).reason == "log_unavailable"
    assert len(receiver.requests) == 3


def test_pauses_grow_with_the_tries_and_with_the_hint_of_the_service(
    receiver: Receiver, opened: Open
) -> None:
    receiver.gets["/ops/snapshot"] = [Answer(503, "x")]
    started = time.monotonic()
    error_from(lambda: opened(retry=Retry(3, 0.1)).snapshot("alpha"))
    assert 0.29 < time.monotonic() - started < 2
    receiver.gets["/ops/snapshot"] = [Answer(503, "x", {"Retry-After": "1"}), Answer(404, "x")]
    receiver.take()
    started = time.monotonic()
    error_from(lambda: opened(retry=Retry(2, 0.01)).snapshot("alpha"))
    assert time.monotonic() - started < 3


def test_lost_connections_are_tried_again(
    receiver: Receiver, opened: Open, loop_documents: tuple[Document, list[Document]]
) -> None:
    receiver.gets["/ops/snapshot"] = [Answer(closes=True), Answer(closes=True), told(loop_documents[0])]
    assert opened(retry=Retry(3, 0.01)).snapshot("alpha").sequence_value == 5


def test_address_where_nobody_listens_is_an_unreachable_agent(opened: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    error = error_from(lambda: opened(url, retry=Retry(2, 0.01)).snapshot("alpha"))
    assert error.reason == "agent_unreachable"
    assert f"GET {url}/ops/snapshot?loopId=alpha: 000:" in error.message


def test_kept_connection_that_the_service_closed_is_made_anew(
    receiver: Receiver, opened: Open, loop_documents: tuple[Document, list[Document]]
) -> None:
    receiver.gets["/ops/snapshot"] = [
        told(loop_documents[0], Connection="close"),
        told(loop_documents[0]),
    ]
    transport = opened()
    for _ in range(3):
        transport.snapshot("alpha")
    assert len(receiver.requests) == 3
