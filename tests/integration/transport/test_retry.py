"""What the agent transport tries again, what it does not, and what it makes of failures."""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from manager.transport import Retry, Transport, open_transport, parse_base_url
from manager.transport import grpc as grpc_transport
from spritemesh.errors import OpsError
from spritemesh.grpcstatus import DETAILS_KEY, status_code, status_details
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc
from tests.harness.agents import TOKEN, StartAgent
from tests.harness.loops import LoopFiles, event, events
from tests.harness.streams import place, raw_events

OpenRemote = Callable[..., Transport]
QUICK = Retry(attempts=3, backoff_seconds=0.02)


class Scripted(sprite_pb2_grpc.SpriteServiceServicer):
    """An agent that fails as told: a list of errors, each for one call; None answers it."""

    def __init__(self, errors: list[OpsError | None]) -> None:
        self.errors = errors
        self.calls = 0
        self.requests: list[sprite_pb2.WatchEventsRequest] = []

    def _step(self, context: grpc.ServicerContext) -> None:
        error = self.errors[min(self.calls, len(self.errors) - 1)]
        self.calls += 1
        if error is not None:
            context.set_trailing_metadata(((DETAILS_KEY, status_details(error)),))
            context.abort(status_code(error), error.message)

    def GetSnapshot(
        self, request: sprite_pb2.GetSnapshotRequest, context: grpc.ServicerContext
    ) -> sprite_pb2.GetSnapshotResponse:
        self._step(context)
        return sprite_pb2.GetSnapshotResponse(snapshot=pb.LoopRunSnapshot(emitted_at="now"))

    def ListLoops(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    def WatchHeartbeats(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    def WatchEvents(
        self, request: sprite_pb2.WatchEventsRequest, context: grpc.ServicerContext
    ) -> Iterator[sprite_pb2.WatchEventsResponse]:
        self.requests.append(request)
        yield sprite_pb2.WatchEventsResponse(opened=sprite_pb2.Opened())
        yield from self.say(len(self.requests), context)

    def say(self, attempt: int, context: grpc.ServicerContext) -> Iterator[sprite_pb2.WatchEventsResponse]:
        """What comes after Opened; by default an end without a goodbye."""
        return iter(())


@pytest.fixture
def serve() -> Iterator[Callable[[Scripted], str]]:
    """Serves a scripted agent; gives its URL."""
    servers: list[grpc.Server] = []

    def serve(servicer: Scripted) -> str:
        server = grpc.server(futures.ThreadPoolExecutor(4))
        sprite_pb2_grpc.add_SpriteServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"grpc://127.0.0.1:{port}"

    yield serve
    for server in servers:
        server.stop(0).wait()


def reason_of(work: Callable[[], object]) -> str:
    with pytest.raises(OpsError) as caught:
        work()
    return caught.value.reason


def nobody_there() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"grpc://127.0.0.1:{server.getsockname()[1]}"


# --- tries ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempts", [1, 3])
def test_dead_agent_is_tried_as_often_as_told(remote: OpenRemote, attempts: int) -> None:
    url = nobody_there()
    transport = remote(url, retry=Retry(attempts, 0.1))
    started = time.monotonic()
    with pytest.raises(OpsError) as caught:
        transport.snapshot("alpha")
    assert caught.value.reason == "agent_unreachable"
    assert url.removeprefix("grpc://") in caught.value.message
    waited = time.monotonic() - started
    # 0.1 s before the second try, 0.2 s before the third.
    assert (0 if attempts == 1 else 0.29) < waited < 2
    assert reason_of(lambda: next(transport.events("alpha", None))) == "agent_unreachable"


def test_agent_that_comes_up_between_tries_is_reached(
    remote: OpenRemote, start: StartAgent, loop: LoopFiles
) -> None:
    loop.append(event(1))
    url = nobody_there()
    starter = threading.Timer(0.3, lambda: start(grpc_at=url.removeprefix("grpc://")))
    starter.start()
    transport = remote(url, token=TOKEN, retry=Retry(30, 0.02))
    assert transport.snapshot("alpha").sequence_value == 1
    starter.join()


@pytest.mark.parametrize("reason", ["agent_draining", "log_unavailable"])
def test_refusal_that_time_may_mend_is_tried_again(
    remote: OpenRemote, serve: Callable[[Scripted], str], reason: str
) -> None:
    error = OpsError(reason, "later", retry_after=0.05)
    agent = Scripted([error, error, None])
    assert remote(serve(agent), retry=QUICK).snapshot("alpha").emitted_at == "now"
    assert agent.calls == 3


@pytest.mark.parametrize(
    "reason",
    ["token_wrong", "token_missing", "loop_not_found", "invalid_loop_id", "artifact_invalid", "agent_fault"],
)
def test_refusal_that_time_cannot_mend_is_final(
    remote: OpenRemote, serve: Callable[[Scripted], str], reason: str
) -> None:
    agent = Scripted([OpsError(reason, "no")])
    transport = remote(serve(agent), retry=QUICK)
    assert reason_of(lambda: transport.snapshot("alpha")) == reason
    assert agent.calls == 1


@pytest.mark.parametrize(("token", "reason"), [("wrong", "token_wrong"), ("", "token_missing")])
def test_wrong_token_is_not_tried_again(
    loop: LoopFiles, remote: OpenRemote, start: StartAgent, token: str, reason: str
) -> None:
    transport = remote(start(), token=token, retry=Retry(5, 5.0))
    started = time.monotonic()
    assert reason_of(lambda: transport.snapshot("alpha")) == reason
    assert reason_of(lambda: next(transport.events("alpha", None))) == reason
    assert reason_of(lambda: next(transport.events("alpha", None, follow=True))) == reason
    assert time.monotonic() - started < 2


def test_hint_of_the_agent_outweighs_the_own_backoff(
    remote: OpenRemote, serve: Callable[[Scripted], str]
) -> None:
    agent = Scripted([OpsError("agent_draining", "later", retry_after=0.4), None])
    started = time.monotonic()
    remote(serve(agent), retry=QUICK).snapshot("alpha")
    assert time.monotonic() - started >= 0.4


# --- deadlines and broken peers ------------------------------------------------------------------------


def test_agent_that_hangs_runs_into_the_deadline(
    loop: LoopFiles, remote: OpenRemote, start: StartAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_transport, "UNARY_SECONDS", 0.3)
    agent = start()
    transport = remote(agent, retry=Retry(2, 0.01))
    transport.snapshot("alpha")
    agent.signal(signal.SIGSTOP)
    started = time.monotonic()
    assert reason_of(lambda: transport.snapshot("alpha")) == "deadline_exceeded"
    assert 0.6 <= time.monotonic() - started < 3
    agent.signal(signal.SIGCONT)


def test_listener_that_speaks_no_grpc_is_an_unreachable_agent(remote: OpenRemote) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        reason = reason_of(lambda: remote(f"grpc://127.0.0.1:{port}").snapshot("alpha"))
        thread.join()
    assert reason in {"agent_unreachable", "deadline_exceeded"}


def test_server_without_this_service_is_told_apart_from_a_dead_one(remote: OpenRemote) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        transport = remote(f"grpc://127.0.0.1:{port}", retry=QUICK)
        assert reason_of(lambda: transport.snapshot("alpha")) == "unsupported_method"
    finally:
        server.stop(0).wait()


def test_stream_without_goodbye_is_broken(remote: OpenRemote, serve: Callable[[Scripted], str]) -> None:
    agent = Scripted([None])
    transport = remote(serve(agent), retry=QUICK)
    assert reason_of(lambda: list(transport.events("alpha", None))) == "stream_broken"
    assert len(agent.requests) == 3


class Breaking(Scripted):
    """Sends lines of a log, and breaks off after so many batches a call."""

    DATA = events(1, 6)

    def say(self, attempt: int, context: grpc.ServicerContext) -> Iterator[sprite_pb2.WatchEventsResponse]:
        after = self.requests[-1].after.line
        for number in range(after + 1, 7):
            if number == 3:
                yield sprite_pb2.WatchEventsResponse(invalid_line=sprite_pb2.InvalidLine(line=3))
                if attempt == 1:
                    return  # told of the line, but not yet past it
            end = place(self.DATA, number)
            batch = pb.EventBatch(first_line=number, last_line=number, end_digest=end.digest)
            if number != 3:
                batch.events.add(line=number, raw=event(number)[:-1].decode())
            head = sprite_pb2.LogHead(position=place(self.DATA))
            yield sprite_pb2.WatchEventsResponse(batch=batch, head=head)
            if number == 4 and attempt == 2:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the connection is gone")
        yield sprite_pb2.WatchEventsResponse(goodbye=sprite_pb2.Goodbye(reason="drained_to_head"))


def test_broken_stream_is_taken_up_at_the_verified_place(
    remote: OpenRemote, serve: Callable[[Scripted], str]
) -> None:
    agent = Breaking([None])
    messages = list(remote(serve(agent), retry=QUICK).events("alpha", None, max_events=9))
    assert [line for line, _ in raw_events(messages)] == [1, 2, 4, 5, 6]
    assert [request.after for request in agent.requests] == [
        pb.LogPosition(),
        place(Breaking.DATA, 2),
        place(Breaking.DATA, 4),
    ]
    assert [request.max_events for request in agent.requests] == [9, 7, 6]
    told = [message.invalid_line.line for message in messages if message.HasField("invalid_line")]
    assert told == [3], "a line is told of once, however often the stream breaks"


class Hanging(Scripted):
    """Says Opened, then nothing more, or only that it lives."""

    def __init__(self, *, bookmarks: bool) -> None:
        super().__init__([None])
        self._bookmarks = bookmarks

    def say(self, attempt: int, context: grpc.ServicerContext) -> Iterator[sprite_pb2.WatchEventsResponse]:
        ended = threading.Event()
        context.add_callback(ended.set)
        while not ended.wait(0.05):
            if self._bookmarks:
                yield sprite_pb2.WatchEventsResponse(bookmark=sprite_pb2.Bookmark())


@pytest.mark.parametrize("bookmarks", [False, True], ids=["silent", "bookmarks only"])
def test_stream_that_never_comes_to_its_end_is_given_up(
    serve: Callable[[Scripted], str], bookmarks: bool
) -> None:
    endpoint = parse_base_url(serve(Hanging(bookmarks=bookmarks)), "")
    patience = grpc_transport.Patience(first=5, following=0.4)
    transport = grpc_transport.GrpcTransport(endpoint, Retry(1, 0), patience)
    try:
        assert reason_of(lambda: list(transport.events("alpha", None))) == "deadline_exceeded"
    finally:
        transport.close()


def test_reader_that_takes_its_time_is_no_silent_agent(loop: LoopFiles, start: StartAgent) -> None:
    loop.append(events(1, 600))
    endpoint = parse_base_url(start().url, TOKEN)
    transport = grpc_transport.GrpcTransport(endpoint, QUICK, grpc_transport.Patience(5, 0.3))
    try:
        for message in transport.events("alpha", None):
            if message.HasField("batch") and message.batch.first_line == 1:
                threading.Event().wait(0.8)  # far longer than the agent may be silent
    finally:
        transport.close()


class Ending(Scripted):
    """Sends the one event that was wanted, then breaks."""

    def say(self, attempt: int, context: grpc.ServicerContext) -> Iterator[sprite_pb2.WatchEventsResponse]:
        batch = pb.EventBatch(first_line=1, last_line=1, end_digest=b"d" * 32)
        batch.events.add(line=1, raw="{}")
        yield sprite_pb2.WatchEventsResponse(batch=batch)
        context.abort(grpc.StatusCode.UNAVAILABLE, "the connection is gone")


def test_break_behind_the_last_event_wanted_is_none(
    remote: OpenRemote, serve: Callable[[Scripted], str]
) -> None:
    transport = remote(serve(Ending([None])), retry=Retry(1, 0))
    assert len(list(transport.events("alpha", None, max_events=1))) == 2


# --- addresses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("grpc://127.0.0.1:50551", "127.0.0.1:50551"),
        ("grpc://agent.example:1/", "agent.example:1"),
        ("grpc://[::1]:1", "[::1]:1"),
        ("unix:///run/agent.sock", "unix:///run/agent.sock"),
        ("http://127.0.0.1:8787", "http://127.0.0.1:8787"),
        ("http://[::1]:8787/", "http://[::1]:8787"),
        ("https://agents.example/sprite-7/", "https://agents.example/sprite-7"),
    ],
)
def test_addresses_of_agents_are_read(url: str, target: str) -> None:
    assert parse_base_url(url, "t").target == target


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:1",
        "grpc://host",
        "grpc://:1",
        "grpc://host:x",
        "grpc://h:1/p",
        "ftp://host",
        "http://",
        "http://host:x",
        "http://host:0",
        "http://host:99999",
        "http://host/?q",
        "http://host/#f",
        "http://host/a b",
        "http://h\u00f6st/",
        "http://name:secret@host/",
        "http://name:secret@host:99999/",
    ],
)
def test_text_that_is_no_address_is_refused_by_flag(url: str) -> None:
    with pytest.raises(OpsError) as caught:
        parse_base_url(url, "t")
    assert (caught.value.reason, caught.value.field) == ("invalid_request", "--service-base-url")
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("token", ["two words", "line\n", "caf\u00e9", "\x7f"])
def test_token_that_no_header_can_carry_is_refused_without_repeating_it(token: str) -> None:
    with pytest.raises(OpsError) as caught:
        open_transport("sprite_service", repo="/", base_url="grpc://127.0.0.1:1", token=token)
    assert (caught.value.reason, caught.value.field) == ("invalid_request", "--service-token")
    assert token not in caught.value.message
