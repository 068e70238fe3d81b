"""Peers that are slow on purpose, too many or too quick, of a real agent with small limits.

Frames are made by hand where no library would send them. Whatever they do, others are served.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc
from tests.harness import frames
from tests.harness.agents import BEARER, CALL_SECONDS, TOKEN, Agent, start_agent
from tests.harness.control import SKIP, Runtime, client_of, request
from tests.harness.http import WITH_TOKEN, HttpWire, ask, get
from tests.harness.loops import Repo, event
from tests.harness.metrics import Scrape
from tests.harness.refusals import refusal
from tests.harness.waiting import wait_for

SNAPSHOT = "/superloop.ops.v1.SpriteService/GetSnapshot"
AUTHORIZED = ("authorization", f"Bearer {TOKEN}")
LIMITS = {
    "request-seconds": 1,
    "idle-seconds": 1,
    "streams-per-connection": 6,
    "subscribers-per-loop": 3,
    "connections": 40,
    "http-connections": 4,
    "control-per-minute": 3,
    "failures-per-minute": 3,
}
_sources = itertools.count(2)


class Small:
    """The agent, and its repository and runtime."""

    def __init__(self, agent: Agent, repo: Repo, runtime: Runtime) -> None:
        self.agent = agent
        self.repo = repo
        self.runtime = runtime

    def serves(self) -> bool:
        """Whether somebody else, on a connection of its own, is answered."""
        with self.agent.stub() as stub:
            wanted = sprite_pb2.GetSnapshotRequest(loop_id="alpha")
            answer = stub.GetSnapshot(wanted, metadata=BEARER, timeout=CALL_SECONDS)
        return answer.HasField("snapshot")

    def scrape(self) -> Scrape:
        return Scrape(ask(self.agent.ready["metrics"], get("/metrics", WITH_TOKEN)).body.decode())

    def refused(self, reason: str) -> float:
        """How many calls of all methods were refused for a reason."""
        samples = self.scrape().families["sprite_agent_calls_total"].samples
        return sum(sample.value for sample in samples if sample.labels.get("reason") == reason)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    directory = tmp_path_factory.mktemp("small")
    repo = Repo(directory / "repo")
    for loop_id in ("alpha", "beta"):
        repo.loop(loop_id, event(1, "iteration_start"))
    runtime = Runtime(directory / "program")
    flags = [word for name, number in LIMITS.items() for word in ("--limit", f"{name}={number}")]
    places = ("--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
    agent = start_agent(repo.root, directory / "errors.txt", *runtime.flags, *places, *flags)
    yield Small(agent, repo, runtime)
    assert "agent_fault" not in agent.said()
    agent.end()


# --- slow on purpose --------------------------------------------------------------------------------


def test_a_connection_that_does_not_come_to_a_call_is_closed(small: Small) -> None:
    hello = frames.PREFACE + frames.frame(frames.SETTINGS)
    begun = (b"", hello[:10], frames.PREFACE, hello, hello + frames.call_headers(1, SNAPSHOT)[:40])
    with ExitStack() as stack:
        peers = [stack.enter_context(frames.peer_of(small.agent.address)) for _ in begun]
        for peer, words in zip(peers, begun, strict=True):
            peer.send(words)
        assert small.serves()
        # Both limits of this agent are a second: either may come first.
        late, idle = "Did not receive HTTP/2 settings before handshake timeout", "connection idle"
        assert {peer.farewell() for peer in peers} <= {(2, late), (2, idle)}


def test_a_request_that_never_comes_is_not_waited_for(small: Small) -> None:
    before = small.refused("deadline_exceeded")
    with frames.peer_of(small.agent.address) as peer:
        peer.greet()
        peer.send(frames.call_headers(1, SNAPSHOT, AUTHORIZED))
        assert small.serves()
        assert peer.status(1) == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    wait_for(lambda: small.refused("deadline_exceeded") == before + 1, what="the count")


def test_who_may_not_come_in_is_told_so_before_the_request_comes(small: Small) -> None:
    before = small.refused("token_missing")
    with frames.peer_of(small.agent.address) as peer:
        peer.greet()
        peer.send(frames.call_headers(1, SNAPSHOT))
        assert peer.status(1) == grpc.StatusCode.UNAUTHENTICATED.value[0]
    wait_for(lambda: small.refused("token_missing") == before + 1, what="the count")


def test_slow_heads_over_http_keep_nobody_out(small: Small) -> None:
    address = str(small.agent.ready["http"])
    with ExitStack() as stack:
        slow = [stack.enter_context(HttpWire(address)) for _ in range(LIMITS["http-connections"])]
        for wire in slow:
            wire.socket.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        assert ask(address, get("/healthz", WITH_TOKEN)).status == 200
        for wire in slow:
            assert wire.is_closed()


def test_slow_bodies_of_strangers_over_http_keep_nobody_out(small: Small) -> None:
    address = str(small.agent.ready["http"])
    with ExitStack() as stack:
        slow = [stack.enter_context(HttpWire(address)) for _ in range(LIMITS["http-connections"])]
        for wire in slow:
            wire.socket.sendall(get("/ops/control", b"Content-Length: 10\r\n", method="POST") + b"{")
        for _ in slow:
            assert ask(address, get("/healthz", WITH_TOKEN)).status == 200


# --- too quick --------------------------------------------------------------------------------------


def test_a_flood_of_pings_is_cut(small: Small) -> None:
    with frames.peer_of(small.agent.address) as peer:
        peer.greet()
        peer.send(frames.frame(frames.PING, bytes(8)) * 1000)
        assert peer.farewell() == (frames.ENHANCE_YOUR_CALM, "too_many_pings")
    assert small.serves()


def reset(number: int) -> bytes:
    stream = 2 * number + 1
    cancel = frames.frame(frames.RST_STREAM, (8).to_bytes(4, "big"), stream=stream)
    return frames.call_headers(stream, SNAPSHOT, AUTHORIZED) + cancel


def settings(number: int) -> bytes:
    return frames.frame(frames.SETTINGS)


def endless_head(number: int) -> bytes:
    if number:
        return frames.frame(frames.CONTINUATION, frames.block((("x", "y" * 8000),)), stream=1)
    return frames.frame(frames.HEADERS, frames.block(frames.call_fields(SNAPSHOT)), stream=1)


def empty_continuations(number: int) -> bytes:
    if number:
        return frames.frame(frames.CONTINUATION, stream=1)
    return frames.frame(frames.HEADERS, frames.block(frames.call_fields(SNAPSHOT)), stream=1)


def empty_data(number: int) -> bytes:
    return frames.frame(frames.DATA, stream=1) if number else frames.call_headers(1, SNAPSHOT, AUTHORIZED)


def strange_methods(number: int) -> bytes:
    return frames.call_headers(2 * number + 1, f"/strange.Service/{number}", AUTHORIZED)


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (reset, 4000),
        (settings, 50_000),
        (endless_head, 2000),
        (empty_continuations, 50_000),
        (empty_data, 50_000),
        (strange_methods, 2000),
    ],
)
def test_a_flood_of_frames_harms_nobody_else(small: Small, words: Callable[[int], bytes], count: int) -> None:
    before = small.agent.rss_bytes
    with frames.peer_of(small.agent.address) as peer, small.agent.stub() as stub:
        peer.greet()
        pieces = (words(number) for number in range(count))
        while piece := b"".join(itertools.islice(pieces, 500)):
            if not peer.send(piece):
                break  # it was cut
            peer.drop_what_came()
            stub.GetSnapshot(
                sprite_pb2.GetSnapshotRequest(loop_id="alpha"), metadata=BEARER, timeout=CALL_SECONDS
            )
    assert small.agent.rss_bytes - before < 60_000_000
    # Nothing of it stays behind.
    wait_for(
        lambda: small.scrape().value("sprite_agent_connection_calls_max") == 0, what="the end of the calls"
    )


# --- too many ---------------------------------------------------------------------------------------


def test_calls_of_one_connection_are_bounded_and_others_have_room(small: Small) -> None:
    with small.agent.stub() as stub:
        held = [
            stub.WatchHeartbeats(sprite_pb2.WatchHeartbeatsRequest(), metadata=BEARER)
            for _ in range(LIMITS["streams-per-connection"])
        ]
        for call in held:
            next(call)
        assert small.scrape().value("sprite_agent_connection_calls_max") == len(held)
        wanted = sprite_pb2.GetSnapshotRequest(loop_id="alpha")
        found = refusal(lambda: stub.GetSnapshot(wanted, metadata=BEARER))
        assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too_many_streams")
        assert found.retry_seconds
        assert small.serves()
        held.pop().cancel()
        wait_for(lambda: _is_answered(stub), what="room")
        for call in held:
            call.cancel()


def _is_answered(stub: sprite_pb2_grpc.SpriteServiceStub) -> bool:
    try:
        stub.GetSnapshot(sprite_pb2.GetSnapshotRequest(loop_id="alpha"), metadata=BEARER)
    except grpc.RpcError:
        return False
    return True


def test_subscribers_of_one_loop_are_bounded_and_other_loops_have_room(small: Small) -> None:
    with small.agent.stub() as stub:

        def follow(loop_id: str) -> Any:
            return stub.WatchEvents(
                sprite_pb2.WatchEventsRequest(loop_id=loop_id, follow=True), metadata=BEARER
            )

        held = [follow("alpha") for _ in range(LIMITS["subscribers-per-loop"])]
        for call in held:
            next(call)
        assert small.scrape().value("sprite_agent_loop_subscribers_max") == len(held)
        found = refusal(lambda: next(follow("alpha")))
        assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too_many_subscribers")
        assert found.retry_seconds
        other = follow("beta")
        next(other)
        for call in (*held, other):
            call.cancel()


def test_connections_are_bounded_and_those_without_a_call_give_way(small: Small) -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(frames.peer_of(small.agent.address)) for _ in range(60)]
        for peer in peers:
            peer.greet()
        refused = sum(peer.farewell() == (-1, "") for peer in peers)
        assert refused >= 60 - LIMITS["connections"]
    assert small.serves()


def test_metadata_are_bounded(small: Small) -> None:
    wanted = sprite_pb2.GetSnapshotRequest(loop_id="alpha")
    with small.agent.stub() as stub:
        for size in (33_000, 34_000):
            large = (*BEARER, ("x-large", "x" * size))
            found = refusal(lambda large=large: stub.GetSnapshot(wanted, metadata=large))  # type: ignore[misc]
            assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "metadata_too_large")
        assert stub.GetSnapshot(wanted, metadata=(*BEARER, ("x-large", "x" * 30_000))).HasField("snapshot")
        with pytest.raises(grpc.RpcError) as caught:  # gRPC itself
            stub.GetSnapshot(wanted, metadata=(*BEARER, ("x-large", "x" * 100_000)))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


# --- too often --------------------------------------------------------------------------------------


def test_an_address_that_fails_too_often_is_not_listened_to_for_a_while(small: Small) -> None:
    source = f"127.0.0.{next(_sources)}"
    before = small.refused("too_many_failures")
    with frames.peer_of(small.agent.address, source) as peer:
        peer.greet()
        streams = itertools.count(1, 2)

        def ask_with(token: str) -> int:
            stream = next(streams)
            words = (("authorization", f"Bearer {token}"),) if token else ()
            peer.send(frames.call_headers(stream, SNAPSHOT, *words) + frames.message(stream))
            return peer.status(stream)

        # Whoever brings nothing does not guess, and is not counted.
        wrong = grpc.StatusCode.UNAUTHENTICATED.value[0]
        assert [ask_with("") for _ in range(4)] == [wrong] * 4
        assert [ask_with("wrong") for _ in range(3)] == [wrong] * 3
        # The right one is not told from a wrong one.
        assert ask_with(TOKEN) == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    wait_for(lambda: small.refused("too_many_failures") == before + 1, what="the count")
    assert small.serves()  # at another address
    with frames.peer_of(small.agent.address, source) as peer:  # a probe beside it
        peer.greet()
        peer.send(frames.call_headers(1, "/grpc.health.v1.Health/Check") + frames.message(1))
        assert peer.status(1) == 0


def test_control_is_bounded_for_each_identity_and_refusals_are_only_counted(small: Small) -> None:
    small.runtime.does("")
    with client_of(small.agent) as client:
        wanted = request("cancel", "rate-1", "alpha", confirmation=SKIP)
        for _ in range(LIMITS["control-per-minute"]):  # replays count
            client.ask(wanted)
        found = refusal(lambda: client.ask(wanted))
    assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "control_rate_limited")
    assert found.retry_seconds is not None
    assert 0 < found.retry_seconds <= 20
    assert len(small.runtime.calls) == 1
    assert not list(small.repo.root.rglob("refusals.jsonl"))
    wait_for(lambda: small.refused("control_rate_limited") == 1, what="the count")
    with grpc.insecure_channel(small.agent.address) as channel:  # who probes is not asked
        stub: Any = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS).status == 1
