"""The repository's files, an agent over gRPC and its bridge over HTTP tell the same documents."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from manager.transport import Retry, Transport
from spritemesh.bridge import event_documents, snapshot_to_json
from spritemesh.errors import OpsError
from superloop.ops.v1 import envelope_pb2 as pb
from tests.harness.agents import TOKEN, Agent, Message, StartAgent
from tests.harness.loops import LoopFiles, Repo, event, events
from tests.harness.manager import Running, cursor_of
from tests.harness.streams import raw_events, until, until_line
from tests.harness.waiting import wait_for

OpenLocal = Callable[[], Transport]
OpenRemote = Callable[..., Transport]
HTTP = ("--http", "127.0.0.1:0")

MIXED = (
    b"\n"
    + event(2)
    + event(3, message="line\nbreak\n", status="error", iteration=2.5)
    + b" \t\r\n"
    + event(5, data=False, run_id=None)
    + event(6, message="\u00e9\u2028\U0001f600" * 5000)
    + event(7).replace(b"role_end", b"\xff")
    + events(8, 2600)
    + b'{"torn'
)


@pytest.fixture
def agent(start: StartAgent) -> Agent:
    return start(*HTTP)


@pytest.fixture
def ways(agent: Agent, local: OpenLocal, remote: OpenRemote) -> list[Transport]:
    """One transport of each way: local, grpc, http."""
    return [local(), remote(agent), remote(agent.http_url, token=agent.token)]


def documents(messages: Iterator[Message]) -> list[dict[str, Any]]:
    """The event documents of a stream, without the moment."""
    found = [document for message in messages for document in event_documents(message.batch)]
    return [document | {"emittedAt": ""} for document in found]


def test_all_ways_tell_the_same_snapshot(repo: Repo, loop: LoopFiles, ways: list[Transport]) -> None:
    loop.append(MIXED)
    loop.put("run-summary.json", {"entries": [{"completion_ok": True, "iteration": 7}], "updated_at": "u"})
    loop.put("approval.json", {"status": "pending", "text": "\u00e9", "number": 12345678901234567890})
    repo.running(2**31 - 1, "alpha")  # nobody: of a living one the agent would keep a heartbeat
    cases: list[dict[str, Any]] = [{}, {"run_id": "other"}, {"trace_id": "trace"}]
    for settings in cases:
        found = [snapshot_to_json(way.snapshot("alpha", **settings)) | {"emittedAt": ""} for way in ways]
        assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("after", "options"),
    [
        (0, {}),
        (0, {"trace_id": "trace"}),
        (0, {"max_events": 1}),
        (2, {"max_events": 1500}),
        (2599, {}),
        (2600, {}),
    ],
)
def test_all_ways_tell_the_same_events(
    loop: LoopFiles, ways: list[Transport], after: int, options: dict[str, Any]
) -> None:
    loop.append(MIXED)
    place = pb.LogPosition(line=after) if after else None
    near, far, service = (list(way.events("alpha", place, **options)) for way in ways)
    assert documents(iter(near)) == documents(iter(far)) == documents(iter(service))
    assert near[-1].goodbye.reason == service[-1].goodbye.reason
    assert near[-2].head.position.line == service[-2].head.position.line == 2600


@pytest.mark.parametrize(
    ("loop_id", "spoil", "reason"),
    [
        ("ghost", lambda loop: None, "loop_not_found"),
        ("../alpha", lambda loop: None, "invalid_loop_id"),
        ("alpha", lambda loop: loop.log.unlink(), "events_missing"),
        ("alpha", lambda loop: loop.append(b"{half\n"), "invalid_json_line"),
        ("alpha", lambda loop: loop.put("approval.json", 3), "artifact_invalid"),
    ],
)
def test_all_ways_refuse_with_the_same_reason(
    loop: LoopFiles, ways: list[Transport], loop_id: str, spoil: Callable[[LoopFiles], None], reason: str
) -> None:
    spoil(loop)
    for way in ways:
        with pytest.raises(OpsError) as caught:
            way.snapshot(loop_id)
        assert caught.value.reason == reason


def test_events_before_a_bad_line_come_through_all_ways(loop: LoopFiles, ways: list[Transport]) -> None:
    loop.append(events(1, 700) + b"{half\n" + events(702, 703))
    near: list[Message] = list(ways[0].events("alpha", None))
    found: list[Message] = []
    with pytest.raises(OpsError) as caught:
        found.extend(ways[2].events("alpha", None))
    assert (caught.value.reason, "line 701" in caught.value.message) == ("invalid_json_line", True)
    told = next(message.invalid_line for message in near if message.HasField("invalid_line"))
    assert told.line == 701
    assert [line for line, _ in raw_events(found)] == list(range(1, 701))


def test_cursor_beyond_the_log_is_told(loop: LoopFiles, ways: list[Transport]) -> None:
    loop.append(events(1, 3))
    with pytest.raises(OpsError) as caught:
        list(ways[2].events("alpha", pb.LogPosition(line=4)))
    assert caught.value.reason == "cursor_ahead"


@pytest.mark.parametrize(("token", "reason"), [("wrong", "token_wrong"), ("", "token_missing")])
def test_token_is_asked_for(
    loop: LoopFiles, agent: Agent, remote: OpenRemote, token: str, reason: str
) -> None:
    transport = remote(agent.http_url, token=token, retry=Retry(5, 5.0))
    for work in (lambda: transport.snapshot("alpha"), lambda: list(transport.events("alpha", None))):
        with pytest.raises(OpsError) as caught:
            work()
        assert caught.value.reason == reason


# --- followers -----------------------------------------------------------------------------------------


def test_follower_over_http_gets_what_is_appended(loop: LoopFiles, ways: list[Transport]) -> None:
    loop.append(events(1, 2))
    stream = ways[2].events("alpha", None, follow=True)
    until(stream, "bookmark")
    loop.append(event(3))
    assert raw_events(until_line(stream, 3)) == [(3, event(3)[:-1].decode())]
    stream.close()  # type: ignore[attr-defined]


def test_poll_events_follows_over_http_and_outlives_its_agent(
    repo: Repo, loop: LoopFiles, start: StartAgent, agent: Agent, tmp_path: Path
) -> None:
    loop.append(events(1, 2))
    cursor = tmp_path / "cursor.json"
    words = ("poll-events", "--repo", str(repo.root), "--loop", "alpha", "--follow")
    source = ("--service-base-url", agent.http_url, "--service-token", TOKEN)
    following = Running(*words, *source, "--cursor-file", str(cursor))
    try:
        following.wait_for_event(2)
        agent.signal(signal.SIGKILL)
        agent.wait()
        loop.append(event(3))
        wait_for(lambda: "trying again" in following.said, what="a note of the outage")
        start("--http", str(agent.ready["http"]))
        following.wait_for_event(3)
        wait_for(lambda: cursor_of(cursor)["eventLineOffset"] == 3, what="the cursor")
        ran = following.end(signal.SIGINT)
    finally:
        following.close()
    assert ran.events == [1, 2, 3]
