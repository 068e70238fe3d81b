"""WatchEvents against a real agent: draining, cursors, lines of every kind."""

from collections.abc import Callable

import pytest
from google.protobuf.duration_pb2 import Duration

from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2_grpc
from tests.harness.agents import Agent
from tests.harness.loops import LoopFiles, event, events
from tests.harness.streams import Reset, check_stream, kinds, place, raw_events, watch

Stub = sprite_pb2_grpc.SpriteServiceStub
MakeLoop = Callable[..., LoopFiles]


def test_drained_log_arrives_whole_and_proved(stub: Stub, make_loop: MakeLoop) -> None:
    data = events(1, 2000)
    loop = make_loop(data)
    messages = list(watch(stub, loop.loop_id))
    assert kinds(messages)[0] == "opened"
    assert kinds(messages)[-2:] == ["bookmark", "goodbye"]
    check_stream(messages, data)
    assert [line for line, _ in raw_events(messages)] == list(range(1, 2001))
    assert messages[-2].bookmark.position == place(data)
    assert messages[-1].goodbye.reason == "drained_to_head"


def test_text_of_a_line_arrives_as_it_was_written(stub: Stub, make_loop: MakeLoop) -> None:
    lines = [
        '{ "timestamp":"t",\t"event":"e" , "data":{"b":1.0,"a":12345678901234567890} }',
        '{"timestamp":"t","event":"e","data":"\\u00e9\\ud83d\\ude00 é\u2028"}',
        '{"timestamp":"t","event":"e","data":1,"data":2}',
    ]
    loop = make_loop("".join(line + "\n" for line in lines).encode())
    assert [raw for _, raw in raw_events(watch(stub, loop.loop_id))] == lines


def test_empty_log_is_opened_and_drained(stub: Stub, make_loop: MakeLoop) -> None:
    messages = list(watch(stub, make_loop().loop_id))
    assert kinds(messages) == ["opened", "bookmark", "goodbye"]
    assert messages[1].bookmark.position == place(b"")


def test_bookmark_of_a_drained_log_brings_the_snapshot_of_that_place(stub: Stub, make_loop: MakeLoop) -> None:
    data = events(1, 7)
    *_, bookmark, _ = watch(stub, make_loop(data).loop_id, trace_id="t")
    snapshot = bookmark.bookmark.snapshot
    assert snapshot.position == bookmark.bookmark.position == place(data)
    assert (snapshot.sequence_value, snapshot.trace_id) == (7, "t")
    assert snapshot.artifacts.events.line_count == 7


def test_agent_introduces_itself(stub: Stub, make_loop: MakeLoop, shared_agent: Agent) -> None:
    loop_id = make_loop().loop_id
    first, second = (next(watch(stub, loop_id)).opened for _ in range(2))
    assert first.boot_id == second.boot_id
    assert len(first.boot_id) == 32
    assert first.sprite_id == second.sprite_id
    assert len(first.sprite_id) == 32
    assert first.agent_version


def test_small_batches_are_granted_for_a_slow_way(stub: Stub, make_loop: MakeLoop) -> None:
    data = events(1, 400)
    messages = list(watch(stub, make_loop(data).loop_id, max_batch_bytes=1))
    check_stream(messages, data)
    lines = data.splitlines(keepends=True)
    sizes = [
        sum(map(len, lines[message.batch.first_line - 1 : message.batch.last_line]))
        for message in messages
        if message.HasField("batch")
    ]
    assert sum(sizes) == len(data)
    assert 2048 < max(sizes) <= 4096


@pytest.mark.parametrize(("wanted", "granted"), [(None, 5.0), (0, 1.0), (2.5, 2.5), (3600, 60.0)])
def test_bookmark_interval_is_granted_within_bounds(
    stub: Stub, make_loop: MakeLoop, wanted: float | None, granted: float
) -> None:
    interval = None if wanted is None else Duration(seconds=int(wanted), nanos=int(wanted % 1 * 1e9))
    opened = next(watch(stub, make_loop().loop_id, bookmark_interval=interval)).opened
    assert opened.bookmark_interval.ToMilliseconds() / 1000 == granted


@pytest.mark.parametrize("line", [0, 1, 255, 256, 500])
def test_verified_cursor_resumes_behind_its_line(stub: Stub, make_loop: MakeLoop, line: int) -> None:
    data = events(1, 500)
    messages = list(watch(stub, make_loop(data).loop_id, after=place(data, line)))
    assert messages[0].opened.start == place(data, line)
    check_stream(messages, data, start=line)
    assert [number for number, _ in raw_events(messages)] == list(range(line + 1, 501))


@pytest.mark.parametrize(
    ("name", "data", "after"),
    [
        ("REASON_REPLACED", events(2, 9), place(events(1, 5), 4)),
        ("REASON_REPLACED", b"", place(events(1, 5), 4)),
        ("REASON_REWRITTEN", event(1) + events(3, 9), place(events(1, 5), 4)),
        ("REASON_TRUNCATED", events(1, 3), place(events(1, 5), 4)),
        ("REASON_AHEAD", events(1, 3), pb.LogPosition(line=4)),
    ],
)
def test_cursor_that_does_not_fit_is_reset_and_the_log_sent_from_its_start(
    stub: Stub, make_loop: MakeLoop, name: str, data: bytes, after: pb.LogPosition
) -> None:
    messages = list(watch(stub, make_loop(data).loop_id, after=after))
    assert kinds(messages)[:2] == ["opened", "log_reset"]
    assert messages[1].log_reset.reason == Reset.Reason.Value(name)
    assert messages[1].log_reset.requested == after
    check_stream(messages, data)
    assert messages[-2].bookmark.position == place(data)


def test_cursor_of_a_v1_tool_is_taken_on_trust(stub: Stub, make_loop: MakeLoop) -> None:
    data = events(1, 5)
    messages = list(watch(stub, make_loop(data).loop_id, after=pb.LogPosition(line=3)))
    check_stream(messages, data, start=3)
    assert [number for number, _ in raw_events(messages)] == [4, 5]


def test_nonsense_in_a_cursor_is_a_reset_and_no_fault(stub: Stub, make_loop: MakeLoop) -> None:
    loop_id = make_loop(events(1, 3)).loop_id
    for after in (
        pb.LogPosition(line=2, digest=b"short"),
        pb.LogPosition(line=2**63, digest=b"\0" * 32),
        pb.LogPosition(line=2**64 - 1),
        pb.LogPosition(line=0, digest=b"\1" * 32),
        pb.LogPosition(line=2, first_line_digest=b"\1"),
    ):
        messages = list(watch(stub, loop_id, after=after))
        assert kinds(messages)[-1] == "goodbye"


@pytest.mark.parametrize("limit", [1, 3, 256, 300])
def test_event_limit_ends_the_stream_at_a_place_to_resume_from(
    stub: Stub, make_loop: MakeLoop, limit: int
) -> None:
    data = b"\n" + events(1, 600)
    loop_id = make_loop(data).loop_id
    found: list[int] = []
    after = None
    while len(found) < 600:
        messages = list(watch(stub, loop_id, after=after, max_events=limit, follow=limit == 300))
        assert messages[0].opened.max_events == limit
        found += [line for line, _ in raw_events(messages)]
        after = messages[-2].bookmark.position
        assert messages[-1].goodbye.reason == (
            "max_events_reached" if len(found) % limit == 0 else "drained_to_head"
        )
        if limit < 256 and len(found) >= 6:
            break
    assert found == list(range(2, len(found) + 2))


def test_lines_that_are_no_events_are_told_and_passed(stub: Stub, make_loop: MakeLoop) -> None:
    data = b"\n".join(
        [event(1)[:-1], b"", b"{half", b" \t", b"[]", b"{}", b'{"event":"e"}', b"\0", b"\xff", event(10)[:-1]]
    )
    data += b"\n" + event(11)[:-1] + b"\r\n" + b"\r\n" + b'{"torn'
    messages = list(watch(stub, make_loop(data).loop_id))
    check_stream(messages, data)
    assert [(m.invalid_line.line, m.invalid_line.reason) for m in messages if m.HasField("invalid_line")] == [
        (3, "invalid_json_line"),
        (5, "line_not_object"),
        (6, "missing_event_name"),
        (7, "missing_event_timestamp"),
        (8, "invalid_json_line"),
        (9, "invalid_json_line"),
    ]
    assert [line for line, _ in raw_events(messages)] == [1, 10, 11]
    assert messages[-1].head.torn_tail_bytes == 6
    assert messages[-2].bookmark.position.line == 12


def test_line_of_three_megabytes_is_passed_and_the_rest_arrives(stub: Stub, make_loop: MakeLoop) -> None:
    data = event(1) + event(2, message="x" * (3 << 20)) + event(3) + event(4, message="y" * 1_000_000)
    messages = list(watch(stub, make_loop(data).loop_id))
    check_stream(messages, data)
    assert [line for line, _ in raw_events(messages)] == [1, 3, 4]
    (bad,) = (message.invalid_line for message in messages if message.HasField("invalid_line"))
    assert (bad.line, bad.reason, len(bad.prefix)) == (2, "line_too_long", 256)


def test_line_that_grows_when_it_is_repaired_wedges_nobody(stub: Stub, make_loop: MakeLoop) -> None:
    bomb = event(2, message="?" * 1_000_000).replace(b"?", b"\xff")
    deep = event(3)[:-2] + b',"more":' + b"[" * 5000 + b"]" * 5000 + b"}\n"
    wide = event(4)[:-2] + b',"message":' + b"[" * 200 + b"1," * 90_000 + b"1" + b"]" * 200 + b"}\n"
    data = event(1) + bomb + deep + wide + event(5)
    messages = list(watch(stub, make_loop(data).loop_id))
    check_stream(messages, data)
    assert [line for line, _ in raw_events(messages)] == [1, 5]
    assert messages[-1].goodbye.reason == "drained_to_head"


def test_interleaved_writers_leave_garbage_that_stops_nobody(stub: Stub, make_loop: MakeLoop) -> None:
    first, second = event(1, message="a" * 5000), event(2, message="b" * 5000)
    mixed = first[:4096] + second[:4096] + first[4096:] + second[4096:]
    data = event(0) + mixed + event(3)
    messages = list(watch(stub, make_loop(data).loop_id))
    check_stream(messages, data)
    good = [raw for _, raw in raw_events(messages)]
    assert good[0] == event(0)[:-1].decode()
    assert good[-1] == event(3)[:-1].decode()
    assert any(message.HasField("invalid_line") for message in messages)


def test_snapshot_too_large_to_travel_is_told_and_events_still_arrive(
    stub: Stub, make_loop: MakeLoop
) -> None:
    data = events(1, 3)
    loop = make_loop(data)
    loop.put("run-summary.json", {"entries": [{"notes": "x" * (5 << 20)}]})
    messages = list(watch(stub, loop.loop_id))
    assert len(raw_events(messages)) == 3
    assert messages[-2].bookmark.snapshot_problem == "artifact_too_large"
    assert messages[-1].goodbye.reason == "drained_to_head"


def test_many_streams_of_one_log_see_the_same(stub: Stub, make_loop: MakeLoop) -> None:
    data = events(1, 700)
    loop_id = make_loop(data).loop_id
    streams = [watch(stub, loop_id) for _ in range(30)]
    for stream in streams:
        check_stream(messages := list(stream), data)
        assert len(raw_events(messages)) == 700
