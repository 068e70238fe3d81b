"""A follower outlives its agent: every line reaches it exactly once."""

import itertools
import signal
import threading
from collections.abc import Callable, Iterator

from manager.transport import Retry, Transport
from spritemesh.errors import OpsError
from tests.harness.agents import Agent, Message, StartAgent
from tests.harness.loops import LoopFiles, event, events
from tests.harness.streams import Reset, check_stream, kinds, place, raw_events, until
from tests.harness.waiting import wait_for

OpenRemote = Callable[..., Transport]


class Follower:
    """Follows in a thread, and keeps what it is told."""

    def __init__(self, transport: Transport, loop_id: str = "alpha") -> None:
        self.messages: list[Message] = []
        self.error: OpsError | None = None
        self._stream = transport.events(loop_id, None, follow=True)
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            for message in self._stream:
                self.messages.append(message)
                if self._enough.is_set():
                    return
        except OpsError as error:
            self.error = error

    def reached(self, line: int) -> bool:
        return any(message.batch.last_line >= line for message in list(self.messages))

    def stop(self, loop: LoopFiles) -> None:
        """Ends at the next message, which a further line brings."""
        self._enough.set()
        loop.append(event(0, "the_end"))
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._stream.close()  # type: ignore[attr-defined]


def without_repeated_opened(messages: list[Message]) -> Iterator[Message]:
    return (message for message in messages if not message.HasField("opened"))


def test_every_line_arrives_once_though_the_agent_is_killed_again_and_again(
    loop: LoopFiles, start: StartAgent, remote: OpenRemote
) -> None:
    told: list[tuple[str, float]] = []
    retry = Retry(1, 0.05, told=lambda error, seconds: told.append((error.reason, seconds)))
    agent = start()
    follower = Follower(remote(agent, retry=retry))
    numbers = itertools.count(1)
    for _ in range(2):
        for _ in range(40):
            loop.append(event(next(numbers)) + b"{garbage\n")
        reached = loop.log.read_bytes().count(b"\n")
        wait_for(lambda: follower.reached(reached), what="the follower to catch up")  # noqa: B023
        agent.process.send_signal(signal.SIGKILL)
        agent.wait()
        # Written while nobody looks, a torn line included.
        loop.append(events(next(numbers), next(numbers)) + event(next(numbers))[:-1])
        agent = start(grpc_at=agent.address)
        loop.append(b"\n")
    data = loop.log.read_bytes()
    wait_for(lambda: follower.reached(data.count(b"\n")), seconds=20, what="the follower to resume")
    follower.stop(loop)
    assert follower.error is None
    data = loop.log.read_bytes()
    check_stream(list(without_repeated_opened(follower.messages)), data)
    expected = [number for number, line in enumerate(data.split(b"\n"), 1) if line.startswith(b'{"')]
    assert [line for line, _ in raw_events(follower.messages)] == expected[
        : len(raw_events(follower.messages))
    ]
    assert len({m.opened.boot_id for m in follower.messages if m.HasField("opened")}) == 3
    assert {reason for reason, _ in told} <= {"agent_unreachable", "stream_broken"}
    assert "log_reset" not in kinds(follower.messages)


def test_drained_agent_is_waited_for_and_taken_up_where_it_ended(
    loop: LoopFiles, start: StartAgent, remote: OpenRemote
) -> None:
    told: list[tuple[str, float]] = []
    retry = Retry(1, 0.05, told=lambda error, seconds: told.append((error.reason, seconds)))
    loop.append(events(1, 3))
    agent = start()
    follower = Follower(remote(agent, retry=retry))
    wait_for(lambda: "bookmark" in kinds(list(follower.messages)), what="the follower to catch up")
    agent.signal()
    assert agent.wait() == 0
    loop.append(events(4, 5))
    start(grpc_at=agent.address)
    wait_for(lambda: follower.reached(5), seconds=20, what="the follower to resume")
    follower.stop(loop)
    assert told[0][0] == "agent_draining"
    assert told[0][1] >= 2, "as long as the agent asked for"
    assert "goodbye" not in kinds(follower.messages), "a follower is not told of an end that is none"
    check_stream(list(without_repeated_opened(follower.messages)), loop.log.read_bytes())


def test_log_replaced_while_the_agent_was_away_is_told_on_return(
    loop: LoopFiles, start: StartAgent, remote: OpenRemote
) -> None:
    loop.append(events(1, 30))
    agent = start()
    follower = Follower(remote(agent, retry=Retry(1, 0.05)))
    wait_for(lambda: follower.reached(30), what="the follower to catch up")
    agent.process.kill()
    agent.wait()
    loop.replace(events(51, 99))
    start(grpc_at=agent.address)
    wait_for(lambda: follower.reached(49), seconds=20, what="the follower to resume")
    follower.stop(loop)
    at = kinds(follower.messages).index("log_reset")
    reset = follower.messages[at].log_reset
    assert (reset.reason, reset.requested) == (Reset.REASON_REPLACED, place(events(1, 30)))
    rest = list(without_repeated_opened(follower.messages[at + 1 :]))
    check_stream(rest, loop.log.read_bytes())


def test_pass_that_loses_its_agent_half_way_goes_on_with_the_next(
    loop: LoopFiles, start: StartAgent, remote: OpenRemote
) -> None:
    data = b"".join(event(number, message="x" * 1500) for number in range(1, 8000))
    loop.append(data)
    agent: Agent = start()
    stream = remote(agent, retry=Retry(50, 0.02)).events("alpha", None)
    messages = until(stream, "batch")
    agent.process.kill()
    agent.wait()
    start(grpc_at=agent.address)
    messages += stream
    assert kinds(messages)[-1] == "goodbye"
    check_stream(list(without_repeated_opened(messages)), data)
    assert [line for line, _ in raw_events(messages)] == list(range(1, 8000))
