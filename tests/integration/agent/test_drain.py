"""The agent's end: told to everybody, in order, and bounded whatever a client does."""

import signal
import threading
import time
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from spritemesh.grpcstatus import DETAILS_KEY
from superloop.ops.v1 import sprite_pb2
from tests.harness.agents import BEARER, CALL_SECONDS, Agent, Message, StartAgent, start_agent
from tests.harness.loops import LoopFiles, Repo, event, events
from tests.harness.refusals import refusal, taken_apart, trailing_metadata
from tests.harness.streams import StalledReader, kinds, place, until, watch
from tests.harness.waiting import wait_for

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
# What a drain may take: the grace of stalled streams, and a little.
BOUND_SECONDS = 8.0


def long_log(loop: LoopFiles) -> None:
    """More than the buffers between an agent and a reader that stands still."""
    loop.append(b"".join(event(n, message="x" * 2000) for n in range(1, 12_000)))


class Farewell:
    """One drain, seen by everybody at once: followers, health watches, heartbeats, and late callers."""

    def __init__(self, agent: Agent, data: bytes) -> None:
        self.data = data
        with agent.stub() as stub, grpc.insecure_channel(agent.address) as channel:
            streams = [watch(stub, "alpha", follow=True) for _ in range(3)]
            for stream in streams:
                until(stream, "bookmark")
            health: Any = health_pb2_grpc.HealthStub(channel)
            requests = [
                health_pb2.HealthCheckRequest(service=name)
                for name in ("", "superloop.ops.v1.SpriteService", "grpc.health.v1.Health")
            ]
            watches = [health.Watch(request, timeout=CALL_SECONDS) for request in requests]
            self.health_before = [next(found).status for found in watches]
            slow = sprite_pb2.WatchHeartbeatsRequest()
            slow.interval.seconds = 60
            beats = stub.WatchHeartbeats(slow, metadata=BEARER, timeout=CALL_SECONDS)
            assert not next(beats).heartbeat.agent.draining
            agent.signal()
            self.streams = [list(stream) for stream in streams]
            self.codes = [stream.code() for stream in streams]
            self.health_after = [[found.status for found in rest] for rest in watches]
            self.checked = [health.Check(request, timeout=CALL_SECONDS).status for request in requests]
            self.late = [
                refusal(lambda: stub.ListLoops(sprite_pb2.ListLoopsRequest(), metadata=BEARER)),
                refusal(lambda: next(watch(stub, "alpha"))),
            ]
            self.late_stranger = refusal(lambda: stub.ListLoops(sprite_pb2.ListLoopsRequest()))
            self.beats = [message.heartbeat for message in beats]
            self.exit_code = agent.wait(BOUND_SECONDS)
        self.said = agent.said()


@pytest.fixture(scope="module")
def farewell(tmp_path_factory: pytest.TempPathFactory) -> Farewell:
    directory = tmp_path_factory.mktemp("farewell")
    repo = Repo(directory / "repo")
    repo.loop("alpha", events(1, 3))
    agent = start_agent(repo.root, directory / "errors.txt")
    try:
        return Farewell(agent, events(1, 3))
    finally:
        agent.end()


def test_streams_end_with_bookmark_and_goodbye(farewell: Farewell) -> None:
    for rest in farewell.streams:
        assert kinds(rest)[-2:] == ["bookmark", "goodbye"]
        assert rest[-2].bookmark.position == place(farewell.data)
        assert rest[-1].goodbye.reason == "agent_draining"
        assert rest[-1].goodbye.retry_after.ToMilliseconds() > 0
    assert farewell.codes == [grpc.StatusCode.OK] * 3


def test_drained_agent_exits_well_and_says_nothing_odd(farewell: Farewell) -> None:
    assert farewell.exit_code == 0
    assert "draining" in farewell.said
    assert "Traceback" not in farewell.said
    assert "cut off" not in farewell.said


def test_health_turns_to_not_serving_and_its_watch_ends(farewell: Farewell) -> None:
    assert farewell.health_before == [SERVING] * 3
    assert farewell.health_after == [[NOT_SERVING]] * 3
    assert farewell.checked == [NOT_SERVING] * 3


def test_new_calls_are_refused_with_a_reason_while_the_agent_drains(farewell: Farewell) -> None:
    for found in farewell.late:
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "agent_draining")
        assert found.retry_seconds is not None
        assert found.retry_seconds > 0
    assert farewell.late_stranger.reason == "token_missing"


def test_last_heartbeat_says_that_the_agent_drains(farewell: Farewell) -> None:
    assert [found.agent.draining for found in farewell.beats] == [True]


def test_stream_that_replays_a_long_log_ends_where_it_is(loop: LoopFiles, start: StartAgent) -> None:
    long_log(loop)
    agent = start()
    with agent.stub() as stub:
        stream = watch(stub, "alpha")
        until(stream, "batch")
        agent.signal()
        rest: list[Message] = []
        for message in stream:
            rest.append(message)
            time.sleep(0.001)  # slower than the agent, so that it drains while it sends
        assert kinds(rest)[-2:] == ["bookmark", "goodbye"]
        last = next(message for message in reversed(rest) if message.HasField("batch"))
        assert rest[-2].bookmark.position.line == last.batch.last_line
        assert rest[-2].bookmark.position.digest == last.batch.end_digest
        assert agent.wait(BOUND_SECONDS) == 0


def test_agent_without_streams_ends_quickly_on_either_signal(loop: LoopFiles, start: StartAgent) -> None:
    long_log(loop)
    idle, left = start(), start()
    for _ in range(5):
        StalledReader(left.address, follow=True).close()  # readers that went away hold nothing
    with left.stub() as stub:
        stub.ListLoops(sprite_pb2.ListLoopsRequest(), metadata=BEARER)
    started = time.monotonic()
    idle.signal(signal.SIGINT)
    left.signal(signal.SIGTERM)
    assert [agent.wait(BOUND_SECONDS) for agent in (idle, left)] == [0, 0]
    assert time.monotonic() - started < 4
    for agent in (idle, left):
        assert agent.process.stdout is not None
        assert agent.process.stdout.read() == b"", "the ready line is the only output"


def test_stalled_readers_hold_the_agent_no_longer_than_its_grace(loop: LoopFiles, start: StartAgent) -> None:
    long_log(loop)
    agent = start()
    readers = [StalledReader(agent.address, follow=True) for _ in range(5)]
    agent.signal()
    started = time.monotonic()
    assert agent.wait(BOUND_SECONDS + 5) == 0
    assert time.monotonic() - started < BOUND_SECONDS
    for reader in readers:
        reader.close()
    assert "Traceback" not in agent.said()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_second_signal_ends_the_agent_at_once(
    loop: LoopFiles, start: StartAgent, number: int, code: int
) -> None:
    long_log(loop)
    agent = start()
    reader = StalledReader(agent.address, follow=True)
    agent.signal()
    wait_for(lambda: "draining" in agent.said(), what="the agent to drain")
    started = time.monotonic()
    agent.signal(number)
    assert agent.wait() == code
    assert time.monotonic() - started < 1
    reader.close()


def test_calls_during_a_drain_never_end_without_a_status(loop: LoopFiles, start: StartAgent) -> None:
    """A crowd that keeps calling meets answers, reasons or a closed door, and never a defect."""
    agent = start()
    reasons: set[str] = set()
    codes: set[grpc.StatusCode] = set()
    crowd = [threading.Thread(target=_call_on, args=(agent, reasons, codes)) for _ in range(4)]
    for thread in crowd:
        thread.start()
    wait_for(lambda: "ok" in reasons, what="the crowd to be served")
    agent.signal()
    assert agent.wait(BOUND_SECONDS) == 0
    for thread in crowd:
        thread.join()
    assert "agent_draining" in reasons
    assert reasons <= {"ok", "agent_draining"}
    assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert "Traceback" not in agent.said()


def _call_on(agent: Agent, reasons: set[str], codes: set[grpc.StatusCode]) -> None:
    with agent.stub() as stub:
        while True:
            try:
                stub.GetSnapshot(
                    sprite_pb2.GetSnapshotRequest(loop_id="alpha"), metadata=BEARER, timeout=CALL_SECONDS
                )
                reasons.add("ok")
            except grpc.RpcError as error:
                codes.add(error.code())
                if DETAILS_KEY not in trailing_metadata(error):
                    return  # nobody listens any more
                reasons.add(taken_apart(error).reason)
                time.sleep(0.01)
