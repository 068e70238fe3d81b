"""Who is let in, and how a refusal is worded."""

from collections.abc import Callable

import grpc
import pytest

from spritemesh.reasons import REASONS
from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc
from tests.harness.agents import BEARER, CALL_SECONDS, TOKEN, StartAgent
from tests.harness.loops import LoopFiles, Repo, events
from tests.harness.refusals import refusal
from tests.harness.streams import raw_call

Metadata = tuple[tuple[str, str], ...]
Stub = sprite_pb2_grpc.SpriteServiceStub
MakeLoop = Callable[..., LoopFiles]

SERVICE = "/superloop.ops.v1.SpriteService/"
WRONG: list[tuple[Metadata, str]] = [
    ((), "token_missing"),
    ((("authorization", ""),), "token_missing"),
    ((("authorization", f"Basic {TOKEN}"),), "token_missing"),
    ((("authorization", "Bearer "),), "token_wrong"),
    ((("authorization", "Bearer wrong"),), "token_wrong"),
    ((("authorization", f"Bearer {TOKEN}x"),), "token_wrong"),
    ((("x-ops-token", ""),), "token_wrong"),
    ((("x-ops-token", TOKEN[:-1]),), "token_wrong"),
]


def calls(stub: Stub, metadata: Metadata) -> dict[str, Callable[[], object]]:
    """Every method, with these headers."""
    kept = {"metadata": metadata, "timeout": CALL_SECONDS}
    return {
        "ListLoops": lambda: stub.ListLoops(sprite_pb2.ListLoopsRequest(), **kept),  # type: ignore[arg-type]
        "GetSnapshot": lambda: stub.GetSnapshot(sprite_pb2.GetSnapshotRequest(loop_id="x"), **kept),  # type: ignore[arg-type]
        "WatchEvents": lambda: next(stub.WatchEvents(sprite_pb2.WatchEventsRequest(loop_id="x"), **kept)),  # type: ignore[arg-type]
        "WatchHeartbeats": lambda: next(stub.WatchHeartbeats(sprite_pb2.WatchHeartbeatsRequest(), **kept)),  # type: ignore[arg-type]
    }


@pytest.mark.parametrize("metadata", [BEARER, (("x-ops-token", TOKEN),)], ids=["bearer", "x-ops-token"])
def test_right_token_is_let_in_by_either_header(stub: Stub, make_loop: MakeLoop, metadata: Metadata) -> None:
    loop = make_loop(events(1, 2))
    request = sprite_pb2.GetSnapshotRequest(loop_id=loop.loop_id)
    assert stub.GetSnapshot(request, metadata=metadata).snapshot.sequence_value == 2


@pytest.mark.parametrize(("metadata", "reason"), WRONG)
def test_every_method_refuses_a_caller_without_the_token(stub: Stub, metadata: Metadata, reason: str) -> None:
    for call in calls(stub, metadata).values():
        found = refusal(call)
        assert (found.code, found.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
        assert (found.domain, found.retry_seconds) == ("superloop.ops", None)
        assert TOKEN not in found.message


def test_every_method_of_the_service_is_covered_here(stub: Stub) -> None:
    named = {method.name for method in sprite_pb2.DESCRIPTOR.services_by_name["SpriteService"].methods}
    assert set(calls(stub, ())) == named


def test_caller_without_token_does_not_learn_what_exists(stub: Stub, channel: grpc.Channel) -> None:
    missing = refusal(lambda: stub.GetSnapshot(sprite_pb2.GetSnapshotRequest(loop_id="no such loop")))
    unknown = refusal(lambda: raw_call(channel, SERVICE + "NoSuchMethod")(b""))
    assert missing.reason == unknown.reason == "token_missing"


def test_open_agent_needs_no_token(repo: Repo, start: StartAgent) -> None:
    repo.loop("alpha", events(1, 1))
    agent = start("--allow-unauthenticated", token=())
    with agent.stub() as stub:
        for metadata in ((), BEARER):
            request = sprite_pb2.GetSnapshotRequest(loop_id="alpha")
            assert stub.GetSnapshot(request, metadata=metadata).snapshot.sequence_value == 1


def test_unknown_method_is_refused_with_a_reason(channel: grpc.Channel) -> None:
    found = refusal(lambda: raw_call(channel, SERVICE + "NoSuchMethod")(b"", metadata=BEARER))
    assert (found.code, found.reason) == (grpc.StatusCode.UNIMPLEMENTED, "unsupported_method")


@pytest.mark.parametrize("method", ["ListLoops", "GetSnapshot"])
def test_bytes_that_are_no_message_are_the_callers_fault(channel: grpc.Channel, method: str) -> None:
    found = refusal(lambda: raw_call(channel, SERVICE + method)(b"\xff\xff", metadata=BEARER))
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_request")
    watching = raw_call(channel, SERVICE + "WatchEvents", stream=True)
    stream = refusal(lambda: next(watching(b"\xff", metadata=BEARER)))
    assert stream.reason == "invalid_request"


@pytest.mark.parametrize("loop_id", ["", "..", "a/b", "a\\b", "a\0b", "a\nb", "x" * 256])
def test_loop_id_that_is_no_directory_name_is_a_bad_request(stub: Stub, loop_id: str) -> None:
    bad = (
        lambda: stub.GetSnapshot(sprite_pb2.GetSnapshotRequest(loop_id=loop_id), metadata=BEARER),
        lambda: next(stub.WatchEvents(sprite_pb2.WatchEventsRequest(loop_id=loop_id), metadata=BEARER)),
    )
    for call in bad:
        found = refusal(call)
        assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_loop_id")
        assert (found.field, found.retry_seconds) == ("loop_id", None)


@pytest.mark.parametrize("trace_id", ["x" * 129, "a\nb"])
def test_trace_id_is_checked_where_it_enters(stub: Stub, make_loop: MakeLoop, trace_id: str) -> None:
    request = sprite_pb2.GetSnapshotRequest(loop_id=make_loop().loop_id, trace_id=trace_id)
    found = refusal(lambda: stub.GetSnapshot(request, metadata=BEARER))
    assert (found.reason, found.field) == ("invalid_trace_id", "trace_id")


def test_trace_id_comes_from_the_request_or_else_the_header(stub: Stub, make_loop: MakeLoop) -> None:
    loop_id = make_loop(events(1, 1)).loop_id
    header = (*BEARER, ("x-trace-id", "of-the-header"))

    def trace(request: sprite_pb2.GetSnapshotRequest, metadata: Metadata) -> str:
        return stub.GetSnapshot(request, metadata=metadata).snapshot.trace_id

    named = sprite_pb2.GetSnapshotRequest(loop_id=loop_id, trace_id="of-the-request")
    assert trace(named, header) == "of-the-request"
    assert trace(sprite_pb2.GetSnapshotRequest(loop_id=loop_id), header) == "of-the-header"
    standard = (*BEARER, ("traceparent", f"00-{'ab' * 16}-{'cd' * 8}-01"))
    assert trace(sprite_pb2.GetSnapshotRequest(loop_id=loop_id), standard) == "ab" * 16
    assert trace(sprite_pb2.GetSnapshotRequest(loop_id=loop_id), (*standard, *header[1:])) == "of-the-header"
    malformed = (*BEARER, ("traceparent", "00-of-nobody-01"))
    assert trace(sprite_pb2.GetSnapshotRequest(loop_id=loop_id), malformed) == ""
    plain = stub.GetSnapshot(sprite_pb2.GetSnapshotRequest(loop_id=loop_id), metadata=BEARER).snapshot
    assert not plain.HasField("trace_id")


def test_missing_loop_and_missing_log_are_not_found(stub: Stub, make_loop: MakeLoop) -> None:
    for loop_id, reason in (("no-such-loop", "loop_not_found"), (make_loop(None).loop_id, "events_missing")):
        request = sprite_pb2.GetSnapshotRequest(loop_id=loop_id)
        found = refusal(lambda: stub.GetSnapshot(request, metadata=BEARER))  # noqa: B023 - called at once
        assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, reason)
        watching = sprite_pb2.WatchEventsRequest(loop_id=loop_id, follow=True)
        found = refusal(lambda: next(stub.WatchEvents(watching, metadata=BEARER)))  # noqa: B023
        assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, reason)


def test_file_of_the_runtime_that_cannot_be_used_is_named(stub: Stub, make_loop: MakeLoop) -> None:
    loop = make_loop(events(1, 1))
    (loop.directory / "approval.json").write_text("{half")
    request = sprite_pb2.GetSnapshotRequest(loop_id=loop.loop_id)
    found = refusal(lambda: stub.GetSnapshot(request, metadata=BEARER))
    assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "artifact_invalid")
    assert "approval.json" in found.message


def test_negative_durations_and_sizes_are_bad_requests(stub: Stub, make_loop: MakeLoop) -> None:
    loop_id = make_loop().loop_id
    watching = sprite_pb2.WatchEventsRequest(loop_id=loop_id)
    watching.bookmark_interval.seconds = -1
    beating = sprite_pb2.WatchHeartbeatsRequest()
    beating.interval.nanos = -1
    cases = {
        "bookmark_interval": lambda: next(stub.WatchEvents(watching, metadata=BEARER)),
        "interval": lambda: next(stub.WatchHeartbeats(beating, metadata=BEARER)),
        "page_size": lambda: stub.ListLoops(sprite_pb2.ListLoopsRequest(page_size=-1), metadata=BEARER),
    }
    for field, call in cases.items():
        found = refusal(call)
        assert (found.reason, found.field) == ("invalid_request", field)


@pytest.mark.parametrize("token", ["%", "a", "====", "\u00e9", "_w==_"])
def test_page_token_of_somebody_else_is_a_bad_request(stub: Stub, token: str) -> None:
    request = sprite_pb2.ListLoopsRequest(page_token=token)
    found = refusal(lambda: stub.ListLoops(request, metadata=BEARER))
    assert (found.reason, found.field) == ("invalid_page_token", "page_token")


def test_request_larger_than_any_honest_one_is_refused_and_the_agent_lives(
    stub: Stub, make_loop: MakeLoop
) -> None:
    loop_id = make_loop(events(1, 1)).loop_id
    huge = sprite_pb2.GetSnapshotRequest(loop_id=loop_id, run_id="x" * 300_000)
    found = refusal(lambda: stub.GetSnapshot(huge, metadata=BEARER))
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "message_too_large")
    with pytest.raises(grpc.RpcError) as caught:  # gRPC itself, without reading it all
        stub.GetSnapshot(sprite_pb2.GetSnapshotRequest(loop_id="x" * 2_000_000), metadata=BEARER)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    largest = sprite_pb2.GetSnapshotRequest(loop_id=loop_id, run_id="x" * 250_000)
    assert len(stub.GetSnapshot(largest, metadata=BEARER).snapshot.run.run_id) == 250_000


def test_reasons_on_the_wire_are_those_of_the_runbook(stub: Stub) -> None:
    found = refusal(lambda: stub.GetSnapshot(sprite_pb2.GetSnapshotRequest(loop_id="x"), metadata=BEARER))
    assert found.reason in REASONS


# --- listing -------------------------------------------------------------------------------------------


def test_loops_are_listed_page_by_page_in_order(repo: Repo, start: StartAgent) -> None:
    expected = sorted(["a", "b c", "é", "B", "z"])
    for loop_id in expected:
        repo.loop(loop_id, events(1, 2))
    with start().stub() as stub:
        found, token, pages = [], "", 0
        while pages == 0 or token:
            request = sprite_pb2.ListLoopsRequest(page_size=2, page_token=token)
            response = stub.ListLoops(request, metadata=BEARER)
            assert len(response.loops) <= 2
            found += [loop.loop_id for loop in response.loops]
            token = response.next_page_token
            pages += 1
        assert (found, pages) == (expected, 3)
        everything = stub.ListLoops(sprite_pb2.ListLoopsRequest(page_size=10_000), metadata=BEARER)
        assert [loop.head.position.line for loop in everything.loops] == [2] * 5
        assert {loop.status for loop in everything.loops} == {"unknown"}


def test_loop_that_cannot_be_read_is_listed_with_the_reason(repo: Repo, start: StartAgent) -> None:
    repo.loop("empty", None)
    broken = repo.loop("broken", events(1, 1))
    (broken.directory / "approval.json").write_text("{half")
    repo.loop("good", events(1, 1))
    with start().stub() as stub:
        response = stub.ListLoops(sprite_pb2.ListLoopsRequest(), metadata=BEARER)
    found = {loop.loop_id: (loop.unavailable_reason, loop.HasField("head")) for loop in response.loops}
    assert found == {
        "empty": ("events_missing", False),
        "broken": ("artifact_invalid", True),
        "good": ("", True),
    }
