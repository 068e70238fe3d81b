"""A thousand subscribers of one agent, a hundred of whom never read."""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from superloop.ops.v1 import sprite_pb2
from tests.harness import subscribers
from tests.harness.agents import BEARER, CALL_SECONDS, ROOT, StartAgent, environment
from tests.harness.loops import LoopFiles, event
from tests.harness.waiting import wait_for

MEGABYTE = 1 << 20
# What the agent may grow by. An open stream is a call of gRPC and a task: less than 60 KiB. One of events
# whose reader is behind, for a while or for ever, also holds the block of 256 KiB that it reads from, two
# batches of 64 KiB of lines as messages and as bytes, and what gRPC has buffered: less than 1 MiB.
ALLOWED_BYTES = (
    subscribers.SUBSCRIBERS * 60 * 1024
    + subscribers.CONNECTIONS * (subscribers.FOLLOWERS + subscribers.STALLED) * MEGABYTE
)
# What streams that nobody reads may grow by when the log does: nothing, but for what is measured with it.
ALLOWED_AFTERWARDS = 8 * MEGABYTE
LINES = 128
LINE = event(1, message="m" * 16_000)


@contextmanager
def crowd(address: str) -> "Iterator[subprocess.Popen[bytes]]":
    """The subscribers in a process of their own."""
    words = [sys.executable, "-m", "tests.harness.subscribers", address, str(LINES)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment()
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the subscribers ended"
    found: dict[str, Any] = json.loads(line)
    return found


def test_thousand_subscribers_are_served_and_let_go(loop: LoopFiles, start: StartAgent) -> None:
    agent = start()
    process = psutil.Process(agent.process.pid)
    with agent.stub() as stub, grpc.insecure_channel(agent.address) as channel:
        check: Any = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # the stubs leave it out

        def is_serving() -> None:
            assert check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS).status == 1
            request = sprite_pb2.GetSnapshotRequest(loop_id="alpha")
            stub.GetSnapshot(request, metadata=BEARER, timeout=CALL_SECONDS)

        is_serving()
        before, connections = agent.rss_bytes, len(process.net_connections())
        with crowd(agent.address) as readers:
            assert told(readers) == {"open": subscribers.SUBSCRIBERS}
            most = 0
            for _ in range(LINES // 8):
                loop.append(LINE * 8)
                is_serving()
                most = max(most, agent.rss_bytes)
            found = told(readers)
            most = max(most, agent.rss_bytes)
            assert found["whole"] == subscribers.CONNECTIONS * subscribers.FOLLOWERS
            assert found["digests"] == [hashlib.sha256(loop.log.read_bytes()).hexdigest()]
            assert most - before < ALLOWED_BYTES
            # Only those who never read are left to follow, and soon all of them are waited for.
            settled = []
            for _ in range(2):
                for _ in range(8):
                    loop.append(LINE * 64)
                    is_serving()
                settled.append(agent.settled_rss_bytes())
            assert settled[0] - before < ALLOWED_BYTES
            assert settled[1] - settled[0] < ALLOWED_AFTERWARDS
        wait_for(lambda: len(process.net_connections()) == connections, what="the connections to be closed")
        is_serving()
    agent.signal()
    began = time.monotonic()
    assert agent.wait() == 0
    # No stream was left to be cut off after the drain's grace.
    assert time.monotonic() - began < 4
    assert "cut off" not in agent.said()
    assert "Traceback" not in agent.said()
