"""Memory and the event loop of an agent under what should not matter to them."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from superloop.ops.v1 import sprite_pb2
from tests.harness.agents import BEARER, Agent, StartAgent
from tests.harness.loops import LoopFiles, event
from tests.harness.streams import StalledReader, until, watch

MEGABYTE = 1 << 20
LOG_BYTES = 200 * MEGABYTE
# What an agent may grow by, whatever the log's length, and with twenty readers that stand still.
ALLOWED_BYTES = 30 * MEGABYTE


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A log of 200 MB, made once."""
    path = tmp_path_factory.mktemp("long") / "events.jsonl"
    block = b"".join(event(number, message="m" * 300) for number in range(2000))
    with path.open("wb") as file:
        for _ in range(LOG_BYTES // len(block) + 1):
            file.write(block)
    yield path
    path.unlink()


@pytest.fixture
def long_loop(loop: LoopFiles, long_log: Path) -> LoopFiles:
    loop.log.unlink()
    loop.log.hardlink_to(long_log)
    return loop


def snapshot(agent: Agent) -> sprite_pb2.GetSnapshotResponse:
    with agent.stub() as stub:
        return stub.GetSnapshot(sprite_pb2.GetSnapshotRequest(loop_id="alpha"), metadata=BEARER)


def test_long_log_read_cold_costs_no_memory_and_blocks_nobody(
    repo_with_short_loop: LoopFiles, long_loop: LoopFiles, start: StartAgent
) -> None:
    agent = start()
    with agent.stub() as stub:
        # Everything that is loaded once is loaded.
        stub.GetSnapshot(sprite_pb2.GetSnapshotRequest(loop_id="short"), metadata=BEARER)
        list(watch(stub, "short"))
        before = agent.rss_bytes
        asked = stub.GetSnapshot.future(sprite_pb2.GetSnapshotRequest(loop_id="alpha"), metadata=BEARER)
        answered, slowest = 0, 0.0
        while not asked.done() or answered == 0:
            began = time.monotonic()
            stub.GetSnapshot(sprite_pb2.GetSnapshotRequest(loop_id="short"), metadata=BEARER)
            slowest = max(slowest, time.monotonic() - began)
            answered += 1
        assert asked.result().snapshot.artifacts.events.size_bytes > LOG_BYTES
        assert agent.rss_bytes - before < ALLOWED_BYTES
        # The cold read takes some tenths of a second; other callers go on meanwhile.
        assert answered > 5
        assert slowest < 0.25


def test_stream_of_a_long_log_costs_no_memory(
    repo_with_short_loop: LoopFiles, long_loop: LoopFiles, start: StartAgent
) -> None:
    agent = start()
    with agent.stub() as stub:
        list(watch(stub, "short"))
        before, most = agent.rss_bytes, 0
        count = 0
        for message in watch(stub, "alpha", seconds=40, max_events=60_000):
            count += len(message.batch.events)
            if count % 4096 < 256:
                most = max(most, agent.rss_bytes)
        assert count == 60_000
        assert most - before < ALLOWED_BYTES


def test_readers_that_stand_still_cost_a_constant_each(
    repo_with_short_loop: LoopFiles, long_loop: LoopFiles, start: StartAgent
) -> None:
    agent = start()
    snapshot(agent)
    before = agent.rss_bytes
    readers = [StalledReader(agent.address) for _ in range(20)]
    try:
        settled = agent.settled_rss_bytes()
        assert settled - before < ALLOWED_BYTES
        time.sleep(0.5)
        assert agent.rss_bytes - settled < 2 * MEGABYTE
        # Others are served as ever.
        began = time.monotonic()
        with agent.stub() as stub:
            list(watch(stub, "short"))
            request = sprite_pb2.WatchHeartbeatsRequest()
            request.interval.nanos = 250_000_000
            beats = stub.WatchHeartbeats(request, metadata=BEARER)
            found = [next(beats).heartbeat for _ in range(3)]
            beats.cancel()
        assert time.monotonic() - began < 2
        assert found[-1].agent.event_loop_lag.ToMilliseconds() < 250
    finally:
        for reader in readers:
            reader.close()


@pytest.fixture
def repo_with_short_loop(loop: LoopFiles) -> LoopFiles:
    """A second loop, for those who are not concerned."""
    short = LoopFiles(loop.repo, "short")
    short.directory.mkdir()
    short.log.write_bytes(event(1))
    return short


def test_event_loop_is_not_blocked_by_a_busy_follower(
    repo_with_short_loop: LoopFiles, loop: LoopFiles, start: StartAgent
) -> None:
    agent = start()
    with agent.stub() as stub:
        stream = watch(stub, "alpha", follow=True)
        until(stream, "bookmark")
        block = b"".join(event(number, message="m" * 500) for number in range(500))
        slowest = 0.0
        for _ in range(40):
            loop.append(block)
            began = time.monotonic()
            stub.GetSnapshot(sprite_pb2.GetSnapshotRequest(loop_id="short"), metadata=BEARER)
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 0.25
        stream.cancel()
