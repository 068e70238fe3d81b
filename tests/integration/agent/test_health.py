"""The standard services: health without a token, and reflection of both versions with one."""

from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from sprite_agent.services.health import MAX_WATCHES
from superloop.ops.v1 import sprite_pb2_grpc
from tests.harness.agents import BEARER, CALL_SECONDS, StartAgent
from tests.harness.loops import Repo
from tests.harness.refusals import refusal
from tests.harness.streams import raw_call
from tests.harness.waiting import wait_for

Stub = sprite_pb2_grpc.SpriteServiceStub
SPRITE = "superloop.ops.v1.SpriteService"
V1 = "grpc.reflection.v1.ServerReflection"
V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
SERVED = [
    SPRITE,
    "superloop.ops.v1.ControlService",
    "superloop.ops.v1.TelemetryService",
    "grpc.health.v1.Health",
    V1,
    V1ALPHA,
]
Request = reflection_pb2.ServerReflectionRequest


@pytest.mark.parametrize("service", ["", *SERVED])
def test_health_is_told_per_service_and_without_a_token(channel: grpc.Channel, service: str) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    assert health.Check(request, timeout=CALL_SECONDS).status == health_pb2.HealthCheckResponse.SERVING
    watching = health.Watch(request, timeout=CALL_SECONDS)
    assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
    watching.cancel()


def test_health_of_an_unknown_service_is_not_found(channel: grpc.Channel) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service="superloop.ops.v1.NoSuchService")
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(request, timeout=CALL_SECONDS)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watching = health.Watch(request, timeout=CALL_SECONDS)
    assert next(watching).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watching.cancel()


def test_health_of_all_services_is_listed(channel: grpc.Channel) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)
    messages: Any = health_pb2  # the stubs are older than this method
    found = health.List(messages.HealthListRequest(), timeout=CALL_SECONDS).statuses
    assert {name: status.status for name, status in found.items()} == dict.fromkeys(
        ("", *SERVED), health_pb2.HealthCheckResponse.SERVING
    )


@pytest.mark.parametrize("method", ["Check", "List", "Watch"])
def test_bytes_that_are_no_health_request_are_the_callers_fault(channel: grpc.Channel, method: str) -> None:
    call = raw_call(channel, f"/grpc.health.v1.Health/{method}", stream=method == "Watch")
    found = refusal(lambda: list(call(b"\xff\xff", timeout=CALL_SECONDS)))
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_request")
    assert "google" not in found.message


def test_bytes_that_are_no_reflection_request_are_the_callers_fault(channel: grpc.Channel) -> None:
    call: Any = channel.stream_stream(f"/{V1}/ServerReflectionInfo")
    found = refusal(lambda: list(call(iter([b"\xff\xff"]), metadata=BEARER, timeout=CALL_SECONDS)))
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_request")


def test_strangers_may_hold_only_so_many_health_watches(repo: Repo, start: StartAgent) -> None:
    """They need no token. Whoever leaves makes room, and single checks are answered all the time."""
    request = health_pb2.HealthCheckRequest()
    with grpc.insecure_channel(start().address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watches = [health.Watch(request) for _ in range(MAX_WATCHES)]
        for watching in watches:
            assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
        found = refusal(lambda: next(health.Watch(request, timeout=CALL_SECONDS)))
        assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too_many_streams")
        assert found.retry_seconds
        assert health.Check(request, timeout=CALL_SECONDS).status == health_pb2.HealthCheckResponse.SERVING
        watches.pop().cancel()

        def admitted() -> bool:
            try:
                watches.append(health.Watch(request))
                return bool(next(watches[-1]).status)
            except grpc.RpcError:
                return False

        wait_for(admitted, what="the room of one that left")
        for watching in watches:
            watching.cancel()


def ask(
    channel: grpc.Channel, service: str, request: Request, metadata: tuple[tuple[str, str], ...] = BEARER
) -> reflection_pb2.ServerReflectionResponse:
    call = channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=Request.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return next(call(iter([request]), metadata=metadata, timeout=CALL_SECONDS))


@pytest.mark.parametrize("service", [V1, V1ALPHA])
def test_reflection_lists_every_service(channel: grpc.Channel, service: str) -> None:
    response = ask(channel, service, Request(list_services=""))
    assert sorted(found.name for found in response.list_services_response.service) == sorted(SERVED)


@pytest.mark.parametrize("service", [V1, V1ALPHA])
def test_reflection_describes_the_contract(channel: grpc.Channel, service: str) -> None:
    response = ask(channel, service, Request(file_containing_symbol=SPRITE))
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(data)
        for data in response.file_descriptor_response.file_descriptor_proto
    ]
    methods = [method.name for file in files for found in file.service for method in found.method]
    assert {"ListLoops", "GetSnapshot", "WatchEvents", "WatchHeartbeats"} <= set(methods)


@pytest.mark.parametrize("symbol", SERVED)
def test_reflection_describes_whatever_it_lists(channel: grpc.Channel, symbol: str) -> None:
    response = ask(channel, V1, Request(file_containing_symbol=symbol))
    assert not response.HasField("error_response")


@pytest.mark.parametrize("service", [V1, V1ALPHA])
def test_reflection_needs_the_token(channel: grpc.Channel, service: str) -> None:
    found = refusal(lambda: ask(channel, service, Request(list_services=""), metadata=()))
    assert (found.code, found.reason) == (grpc.StatusCode.UNAUTHENTICATED, "token_missing")
