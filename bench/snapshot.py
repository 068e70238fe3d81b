"""GetSnapshot, warm, beside a bare echo; and of a huge log beside a small one."""

import time
from collections.abc import Callable

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from bench import processes, servers
from bench.fixtures import Workplace
from bench.measure import Figure, at_most, percentile, rounds, spread
from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc

_SMALL_BYTES = 1_000_000


def run(place: Workplace) -> list[Figure]:
    big_bytes = 100_000_000 if place.quick else 1_000_000_000
    calls = 200 if place.quick else 400
    repo = place.repository(
        "snapshot", {"small": place.log_of_bytes(_SMALL_BYTES), "big": place.log_of_bytes(big_bytes)}
    )
    with (
        processes.server([processes.PYTHON, "-m", "bench.servers", "echo"]) as bare,
        processes.agent(repo) as agent,
        grpc.insecure_channel(bare.target) as bare_channel,
        grpc.insecure_channel(agent.target) as channel,
    ):
        echo = echo_p50(bare_channel, calls)
        stub = sprite_pb2_grpc.SpriteServiceStub(channel)

        def snapshot(loop_id: str) -> Callable[[], object]:
            request = sprite_pb2.GetSnapshotRequest(loop_id=loop_id)
            return lambda: stub.GetSnapshot(request, metadata=processes.METADATA, timeout=60)

        small, big = snapshot("small"), snapshot("big")
        found = rounds(7, echo, lambda: call_p50(small, calls), lambda: call_p50(big, calls))
    echoes, smalls, bigs = (spread(values, "us", scale=1e6) for values in found)
    return [
        Figure(
            "snapshot",
            "warm p50 / echo p50",
            smalls.median / echoes.median,
            "x",
            at_most(1.5),
            smalls,
            "bare grpc.aio echo",
            echoes,
        ),
        Figure(
            "snapshot",
            f"log of {big_bytes // 1_000_000} MB / 1 MB",
            bigs.median / smalls.median,
            "x",
            at_most(1.2),
            bigs,
            "the same with a log of 1 MB",
            smalls,
        ),
    ]


def echo_p50(channel: grpc.Channel, calls: int) -> Callable[[], float]:
    """Measures the p50 of a bare unary call with a small message, seconds."""
    method = channel.unary_unary(
        servers.ECHO,
        request_serializer=StringValue.SerializeToString,
        response_deserializer=StringValue.FromString,
    )
    request = StringValue(value="how are you")
    return lambda: call_p50(lambda: method(request, timeout=60), calls)


def call_p50(call: Callable[[], object], calls: int) -> float:
    taken = []
    for _ in range(calls):
        before = time.perf_counter()
        call()
        taken.append(time.perf_counter() - before)
    return percentile(taken, 50)
