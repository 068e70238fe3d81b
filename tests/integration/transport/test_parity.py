"""The local transport and an agent say the same."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from manager.transport import Transport
from spritemesh.errors import OpsError
from superloop.ops.v1 import envelope_pb2 as pb
from tests.harness.agents import Message, StartAgent
from tests.harness.loops import LoopFiles, Repo, event, events
from tests.harness.streams import check_stream, kinds, place, raw_events, until, until_end_of

OpenLocal = Callable[[], Transport]
OpenRemote = Callable[..., Transport]

MIXED = (
    b"\n"
    + event(2)
    + b"{half\n"
    + event(4, message="line\nbreak\n", status="error", iteration=2.5)
    + b" \t\r\n[]\n"
    + event(7, data=False, run_id=None)
    + event(8, message="x" * 70_000)
    + event(9).replace(b"role_end", b"\xff")
    + b"x" * (1 << 20)
    + b"y\n"
    + events(11, 600)
    + b'{"torn'
)


def comparable(message: Message) -> Message:
    """A message without what tells of the moment and of the one who says it."""
    found = Message()
    found.CopyFrom(message)
    found.ClearField("head")
    found.ClearField("sent_at")
    if found.HasField("batch"):
        found.batch.emitted_at = ""
    if found.HasField("bookmark") and found.bookmark.HasField("snapshot"):
        found.bookmark.snapshot.emitted_at = ""
    return found


def without_opened(messages: Iterator[Message]) -> list[Message]:
    first, *rest = messages
    assert first.HasField("opened")
    return [comparable(message) for message in rest]


REQUESTS: list[tuple[pb.LogPosition | None, dict[str, Any]]] = [
    (None, {}),
    (None, {"trace_id": "trace"}),
    (None, {"max_events": 1}),
    (None, {"max_events": 300, "trace_id": "trace"}),
    (place(MIXED, 4), {}),
    (place(MIXED), {}),
    (place(MIXED, 300), {"max_events": 7}),
    (pb.LogPosition(line=9), {}),
    (pb.LogPosition(line=9000), {}),
    (place(events(1, 9), 5), {}),
]


def test_both_ways_yield_the_same_messages(
    repo: Repo, loop: LoopFiles, start: StartAgent, local: OpenLocal, remote: OpenRemote
) -> None:
    loop.append(MIXED)
    loop.put("approval.json", {"status": "pending"})
    loop.put("run-summary.json", {"entries": [{"run_id": "r", "gates": {"tests": "passed"}, "iteration": 7}]})
    repo.put("state.json", {"active": True, "current_loop_id": "alpha"})
    agent = remote(start())
    for after, options in REQUESTS:
        near = list(local().events("alpha", after, **options))
        far = list(agent.events("alpha", after, **options))
        assert without_opened(iter(near)) == without_opened(iter(far))
        for messages in (near, far):
            messages[0].opened.boot_id = messages[0].opened.sprite_id = ""
            assert messages[0].head == messages[-1].head
        assert near[0].opened == far[0].opened
        assert near[-1].head == far[-1].head


def test_both_ways_yield_the_same_snapshot(
    repo: Repo, loop: LoopFiles, start: StartAgent, local: OpenLocal, remote: OpenRemote
) -> None:
    loop.append(MIXED)
    loop.put("run-summary.json", {"entries": [{"completion_ok": True}], "updated_at": "u"})
    repo.running(2**31 - 1, "alpha")  # nobody: of a living one the agent would keep a heartbeat
    agent = remote(start())
    cases: list[dict[str, Any]] = [{}, {"run_id": "other"}, {"trace_id": "trace"}]
    for settings in cases:
        near, far = local().snapshot("alpha", **settings), agent.snapshot("alpha", **settings)
        near.emitted_at = far.emitted_at = ""
        assert near == far


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
def test_both_ways_refuse_with_the_same_reason(
    loop: LoopFiles,
    start: StartAgent,
    local: OpenLocal,
    remote: OpenRemote,
    loop_id: str,
    spoil: Callable[[LoopFiles], None],
    reason: str,
) -> None:
    spoil(loop)
    agent = remote(start())
    for transport in (local(), agent):
        with pytest.raises(OpsError) as caught:
            transport.snapshot(loop_id)
        assert caught.value.reason == reason
    if reason not in {"invalid_json_line", "artifact_invalid"}:  # the log itself can be read
        for transport in (local(), agent):
            with pytest.raises(OpsError) as caught:
                next(transport.events(loop_id, None))
            assert caught.value.reason == reason


@pytest.mark.parametrize("way", ["local", "sprite_service"])
def test_followers_of_both_ways_get_lines_bookmarks_and_resets(
    loop: LoopFiles, start: StartAgent, local: OpenLocal, remote: OpenRemote, way: str
) -> None:
    loop.append(events(1, 2))
    transport = local() if way == "local" else remote(start())
    assert transport.name == way
    stream = transport.events("alpha", None, follow=True)
    messages = until(stream, "bookmark")
    check_stream(messages, events(1, 2))
    loop.append(event(3))
    messages = until(stream, "bookmark")
    assert raw_events(messages) == [(3, event(3)[:-1].decode())]
    assert messages[-1].bookmark.snapshot.position == place(events(1, 3))
    loop.put("approval.json", {"status": "pending"})
    (message,) = until(stream, "bookmark")
    assert message.bookmark.snapshot.run.status == "awaiting_approval"
    loop.replace(events(5, 9))
    messages = until_end_of(stream, events(5, 9))
    assert kinds(messages)[0] == "log_reset"
    check_stream(messages[1:], events(5, 9))
    loop.log.unlink()
    loop.append(events(7, 8))
    messages = until_end_of(stream, events(7, 8))
    assert "log_reset" in kinds(messages)
    stream.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", ["local", "sprite_service"])
def test_event_limit_ends_a_follower_of_both_ways(
    loop: LoopFiles, start: StartAgent, local: OpenLocal, remote: OpenRemote, way: str
) -> None:
    transport = local() if way == "local" else remote(start())
    stream = transport.events("alpha", None, follow=True, max_events=2)
    until(stream, "bookmark")
    loop.append(events(1, 5))
    rest = list(stream)
    assert [line for line, _ in raw_events(rest)] == [1, 2]
    assert kinds(rest)[-2:] == ["bookmark", "goodbye"]
    assert rest[-1].goodbye.reason == "max_events_reached"
