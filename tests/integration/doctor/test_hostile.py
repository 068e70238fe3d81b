"""A peer that speaks gRPC and lies."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from superloop.ops.v1 import sprite_pb2
from tests.integration.doctor.conftest import Doctor

SERVING = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING).SerializeToString()
LOOPS = sprite_pb2.ListLoopsResponse(loops=[sprite_pb2.LoopSummary(loop_id="a\x1b[2J")]).SerializeToString()
NONSENSE = b"\xff\xff\xff\xff"


def beat(seconds: int) -> bytes:
    """A heartbeat with this time."""
    message = sprite_pb2.WatchHeartbeatsResponse(heartbeat=sprite_pb2.Heartbeat(boot_id="b"))
    message.heartbeat.agent.version = "9.9"
    message.heartbeat.sent_at.seconds = seconds
    return message.SerializeToString()


def endless() -> Iterator[bytes]:
    """Bookmarks without end."""
    yield sprite_pb2.WatchEventsResponse(opened=sprite_pb2.Opened()).SerializeToString()
    while True:
        yield sprite_pb2.WatchEventsResponse(bookmark=sprite_pb2.Bookmark()).SerializeToString()


# Method -> its answer, or those of its stream.
Script = dict[str, Callable[[], Any]]
TRUE: Script = {
    "Check": lambda: SERVING,
    "ListLoops": lambda: LOOPS,
    "GetSnapshot": lambda: b"",
    "WatchHeartbeats": lambda: [beat(int(time.time()))],
    "WatchEvents": endless,
}


class _Liar(grpc.GenericRpcHandler):
    def __init__(self, script: Script) -> None:
        self._script = script

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        answer = self._script.get(name)
        if answer is None:
            return None
        if name.startswith("Watch"):
            return grpc.unary_stream_rpc_method_handler(lambda _request, _context: iter(answer()))
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: answer())


@contextmanager
def lying(script: Script) -> Iterator[str]:
    with ThreadPoolExecutor() as pool:
        server = grpc.server(pool, handlers=[_Liar(script)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"grpc://127.0.0.1:{port}"
        finally:
            server.stop(0).wait()


@pytest.mark.parametrize(
    ("lies", "troubles"),
    [
        ({}, {("snapshot", "service_response_invalid"), ("stream", "stream_broken")}),
        ({"Check": lambda: NONSENSE}, {("health", "service_request_failed")}),
        ({"ListLoops": lambda: NONSENSE}, {("token", "service_request_failed")}),
        ({"WatchHeartbeats": lambda: [NONSENSE]}, {("clock", "service_request_failed")}),
        ({"WatchHeartbeats": lambda: [beat(1 << 60)]}, {("clock", "service_response_invalid")}),
        ({"WatchHeartbeats": list}, {("clock", "stream_broken")}),
        ({"WatchEvents": lambda: [NONSENSE]}, {("stream", "service_request_failed")}),
        ({"WatchEvents": list}, {("stream", "service_response_invalid")}),
    ],
)
def test_lie_is_told_at_its_step(lies: Script, troubles: set[tuple[str, str]], doctor: Doctor) -> None:
    begun = time.monotonic()
    with lying({**TRUE, **lies}) as url:
        found = doctor("--service-base-url", url)
    assert time.monotonic() - begun < 5
    assert troubles <= found.troubles
    assert {step for step, _ in found.troubles} <= {step for step, _ in troubles} | {"snapshot", "stream"}
    assert "\x1b" not in found.ran.out


def test_peer_without_health_is_warned_of_and_asked_on(doctor: Doctor) -> None:
    with lying({name: answer for name, answer in TRUE.items() if name != "Check"}) as url:
        found = doctor("--service-base-url", url)
    assert ("health", "unsupported_method") in found.troubles
    assert found.step("loops")["result"] == "ok"
