"""What a manager serves: its loops, its health, and a description of itself."""

import json
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from spritemesh.errors import OpsError
from superloop.ops.v1 import manager_pb2 as pb
from superloop.ops.v1 import manager_pb2_grpc
from tests.harness import manager
from tests.harness.agents import BEARER, CALL_SECONDS
from tests.harness.fleet import ServedFleet, Stub, connected, loop_view, served_fleet
from tests.harness.loops import LoopFiles, Repo, events
from tests.harness.refusals import refusal, taken_apart

MANAGER = "superloop.ops.v1.ManagerService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
V1 = "grpc.reflection.v1.ServerReflection"
V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
SERVED = [MANAGER, "grpc.health.v1.Health", V1, V1ALPHA]


@pytest.fixture
def fleet(repo: Repo) -> Iterator[ServedFleet]:
    with served_fleet(repo.root) as found:
        yield found


@pytest.fixture
def channel(fleet: ServedFleet) -> Iterator[grpc.Channel]:
    with connected(fleet.address) as found:
        yield found


@pytest.fixture
def stub(channel: grpc.Channel) -> Stub:
    return manager_pb2_grpc.ManagerServiceStub(channel)


def watch(stub: Stub, *loop_ids: str, milliseconds: int = 1) -> Any:
    request = pb.WatchFleetRequest(loop_ids=loop_ids)
    request.interval.FromMilliseconds(milliseconds)
    return stub.WatchFleet(request, metadata=BEARER, timeout=CALL_SECONDS)


def whole(stream: Any) -> list[pb.WatchFleetResponse]:
    """The messages up to the one that completes the fleet."""
    found: list[pb.WatchFleetResponse] = []
    for message in stream:
        found.append(message)
        if message.complete:
            return found
    raise AssertionError("the stream ended before the fleet was complete")


def ids(*messages: pb.WatchFleetResponse) -> list[str]:
    return [view.loop_id for message in messages for view in message.loops]


class TestListLoops:
    def list_page(self, stub: Stub, size: int = 0, token: str = "") -> pb.ManagerServiceListLoopsResponse:
        request = pb.ManagerServiceListLoopsRequest(page_size=size, page_token=token)
        return stub.ListLoops(request, metadata=BEARER, timeout=CALL_SECONDS)

    def test_pages_go_through_all_loops_in_order(self, fleet: ServedFleet, stub: Stub) -> None:
        names = [f"loop {number:02}" for number in range(7)]
        fleet.put(*map(loop_view, reversed(names)))
        pages: list[list[str]] = []
        token = ""
        while not pages or token:
            page = self.list_page(stub, 3, token)
            pages.append([view.loop_id for view in page.loops])
            token = page.next_page_token
        assert pages == [names[:3], names[3:6], names[6:]]

    def test_page_has_a_hundred_loops_unless_told_otherwise(self, fleet: ServedFleet, stub: Stub) -> None:
        fleet.put(*(loop_view(f"l{number:04}") for number in range(1100)))
        assert [len(self.list_page(stub, size).loops) for size in (0, 5000)] == [100, 200]

    @pytest.mark.parametrize(
        ("size", "token", "reason"), [(-1, "", "invalid_request"), (1, "%", "invalid_page_token")]
    )
    def test_page_that_cannot_be_is_refused(self, stub: Stub, size: int, token: str, reason: str) -> None:
        found = refusal(lambda: self.list_page(stub, size, token))
        assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


class TestGetLoopStatus:
    def status(self, stub: Stub, loop_id: str) -> pb.GetLoopStatusResponse:
        request = pb.GetLoopStatusRequest(loop_id=loop_id)
        return stub.GetLoopStatus(request, metadata=BEARER, timeout=CALL_SECONDS)

    def test_document_is_that_of_the_command(
        self, fleet: ServedFleet, stub: Stub, repo: Repo, loop: LoopFiles
    ) -> None:
        loop.append(events(1, 3))
        words = ("--repo", str(repo.root), "--loop", "alpha")
        assert manager.run("reconcile", *words).code == 0
        fleet.put(loop_view("alpha"))
        found = self.status(stub, "alpha")
        assert found.loop.loop_id == "alpha"
        served = json.loads(found.status.json)
        printed = manager.run("status", *words).documents[0]
        for document in (served, printed):
            del document["generatedAt"]
            document["tuning"].pop("summary", None)
        assert list(served) == list(printed)
        assert served["cursor"] == printed["cursor"] == {"eventLineOffset": 3, "eventLineCount": 3}
        assert served["files"] == printed["files"]

    def test_loop_without_files_has_no_document_yet(self, fleet: ServedFleet, stub: Stub) -> None:
        fleet.put(loop_view("fresh"))
        found = self.status(stub, "fresh")
        assert found.loop.loop_id == "fresh"
        assert not found.HasField("status")

    def test_damaged_document_is_named(self, fleet: ServedFleet, stub: Stub, repo: Repo) -> None:
        path = repo.root / ".superloop" / "ops-manager" / "alpha" / "state.json"
        path.parent.mkdir(parents=True)
        path.write_text("{")
        fleet.put(loop_view("alpha"))
        found = refusal(lambda: self.status(stub, "alpha"))
        assert found.reason == "document_invalid"
        assert str(path) in found.message

    @pytest.mark.parametrize(
        ("loop_id", "reason"), [("ghost", "loop_not_found"), ("../x", "invalid_loop_id")]
    )
    def test_unknown_loop_is_refused(self, stub: Stub, loop_id: str, reason: str) -> None:
        assert refusal(lambda: self.status(stub, loop_id)).reason == reason


class TestWatchFleet:
    def test_whole_fleet_comes_first_in_bounded_messages(self, fleet: ServedFleet, stub: Stub) -> None:
        names = [f"l{number:03}" for number in range(250)]
        fleet.put(*map(loop_view, names))
        messages = whole(watch(stub))
        assert [len(message.loops) for message in messages] == [100, 100, 50]
        assert [message.complete for message in messages] == [False, False, True]
        assert ids(*messages) == names
        assert {message.fleet_id for message in messages} == {"test fleet"}
        assert abs(messages[0].sent_at.ToNanoseconds() / 1e9 - time.time()) < 60

    def test_empty_fleet_is_complete_at_once(self, stub: Stub) -> None:
        (message,) = whole(watch(stub))
        assert message.complete
        assert not message.loops

    def test_changes_and_departures_follow(self, fleet: ServedFleet, stub: Stub) -> None:
        fleet.put(loop_view("a"), loop_view("b"))
        stream = watch(stub)
        whole(stream)
        fleet.put(loop_view("a", iteration="9"))
        message = next(stream)
        assert [(view.loop_id, view.iteration) for view in message.loops] == [("a", "9")]
        assert message.complete
        fleet.remove("b")
        message = next(stream)
        assert (ids(message), list(message.removed_loop_ids)) == ([], ["b"])
        fleet.put(loop_view("c"))
        assert ids(next(stream)) == ["c"]

    def test_only_chosen_loops_are_told_those_too_that_come_later(
        self, fleet: ServedFleet, stub: Stub
    ) -> None:
        fleet.put(loop_view("a"), loop_view("b"))
        stream = watch(stub, "b", "later")
        assert ids(*whole(stream)) == ["b"]
        fleet.put(loop_view("a", iteration="9"))
        fleet.put(loop_view("later"))
        message = next(stream)
        assert (ids(message), list(message.removed_loop_ids)) == (["later"], [])

    def test_messages_come_no_more_often_than_asked(self, fleet: ServedFleet, stub: Stub) -> None:
        fleet.put(loop_view("a"))
        stream = watch(stub, milliseconds=200)
        whole(stream)
        started = time.monotonic()
        fleet.put(loop_view("a", iteration="4"))
        fleet.put(loop_view("a", iteration="5"))
        assert next(stream).loops[0].iteration == "5"
        fleet.put(loop_view("a", iteration="6"))
        assert next(stream).loops[0].iteration == "6"
        assert time.monotonic() - started > 0.3

    def test_reader_that_stands_still_costs_nothing_and_then_reads_the_newest(
        self, fleet: ServedFleet, stub: Stub
    ) -> None:
        names = [f"l{number:03}" for number in range(100)]
        filling = "x" * 2000
        fleet.put(*(loop_view(name, run_id=filling) for name in names))
        stream = watch(stub)
        next(stream)
        for change in range(100):  # of a hundred loops each: 20 MB, were they all sent
            fleet.put(*(loop_view(name, run_id=filling, iteration=str(change)) for name in names))
        last: dict[str, str] = {}
        messages = 0
        for message in stream:
            messages += 1
            last.update((view.loop_id, view.iteration) for view in message.loops)
            if len(last) == len(names) and set(last.values()) == {"99"}:
                break
        assert messages < 60
        assert len(last) == 100

    @pytest.mark.parametrize("loop_id", ["", "../x"])
    def test_impossible_choice_is_refused(self, stub: Stub, loop_id: str) -> None:
        found = refusal(lambda: next(watch(stub, loop_id)))
        assert (found.reason, found.code) == ("invalid_loop_id", grpc.StatusCode.INVALID_ARGUMENT)

    def test_negative_interval_is_refused(self, stub: Stub) -> None:
        assert refusal(lambda: next(watch(stub, milliseconds=-1))).reason == "invalid_request"

    def test_end_of_the_manager_is_told_with_a_time_to_come_back(
        self, fleet: ServedFleet, channel: grpc.Channel, stub: Stub
    ) -> None:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watching = health.Watch(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS)
        assert next(watching).status == SERVING
        fleet.put(loop_view("a"))
        streams = [watch(stub) for _ in range(3)]
        for stream in streams:
            whole(stream)
        started = time.monotonic()
        fleet.stop()
        assert time.monotonic() - started < 2.0
        for stream in streams:
            with pytest.raises(grpc.RpcError) as caught:
                list(stream)
            found = taken_apart(caught.value)
            assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "manager_draining")
            assert found.retry_seconds
        assert [message.status for message in watching] == [NOT_SERVING]


class TestAccess:
    def test_token_is_needed_for_all_but_health(self, channel: grpc.Channel, stub: Stub) -> None:
        request = pb.ManagerServiceListLoopsRequest()
        for metadata, reason in (((), "token_missing"), ((("x-ops-token", "no"),), "token_wrong")):
            found = refusal(lambda: stub.ListLoops(request, metadata=metadata))  # noqa: B023 - called at once
            assert (found.code, found.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
            assert "agent" not in found.message
        stub.ListLoops(request, metadata=BEARER, timeout=CALL_SECONDS)
        health: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", *SERVED):
            checked = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=CALL_SECONDS)
            assert checked.status == SERVING

    def test_manager_without_a_token_is_open(self, repo: Repo) -> None:
        with served_fleet(repo.root, token="") as fleet, connected(fleet.address) as channel:
            stub = manager_pb2_grpc.ManagerServiceStub(channel)
            stub.ListLoops(pb.ManagerServiceListLoopsRequest(), timeout=CALL_SECONDS)

    def test_unknown_method_is_refused_with_a_reason(self, channel: grpc.Channel) -> None:
        call: Any = channel.unary_unary(f"/{MANAGER}/Nothing")
        found = refusal(lambda: call(b"", metadata=BEARER))
        assert (found.code, found.reason) == (grpc.StatusCode.UNIMPLEMENTED, "unsupported_method")

    @pytest.mark.parametrize("service", [V1, V1ALPHA])
    def test_service_describes_itself(self, channel: grpc.Channel, service: str) -> None:
        call = channel.stream_stream(
            f"/{service}/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        response = next(call(iter([request]), metadata=BEARER, timeout=CALL_SECONDS))
        assert sorted(found.name for found in response.list_services_response.service) == sorted(SERVED)

    def test_address_that_is_taken_is_told(self, fleet: ServedFleet, repo: Repo) -> None:
        with pytest.raises(OpsError) as caught, served_fleet(repo.root, listen=fleet.address):
            pass
        assert (caught.value.reason, caught.value.field) == ("address_unavailable", "--listen")
