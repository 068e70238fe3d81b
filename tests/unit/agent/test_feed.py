"""EventFeed: what a subscriber is told, and that it is told everything exactly once."""

import json
import time
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sprite_agent.runtime import feed as feed_module
from sprite_agent.runtime import lines as lines_module
from sprite_agent.runtime import ownheartbeat
from sprite_agent.runtime.events import MAX_LINE_BYTES, fill_event
from sprite_agent.runtime.feed import EventFeed, FeedOptions, duration
from sprite_agent.runtime.identity import Identity
from sprite_agent.runtime.lines import grant_batch_bytes
from sprite_agent.runtime.loop import LoopReader
from spritemesh.errors import OpsError
from spritemesh.names import HEARTBEAT_WRITER
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2
from tests.harness.agents import Message
from tests.harness.loops import LoopFiles, event, events
from tests.harness.streams import Reset, check_stream, kinds, place, raw_events
from tests.harness.waiting import wait_for

NOW = 1_800_000_000.25


@pytest.fixture
def reader(loop: LoopFiles) -> Iterable[LoopReader]:
    found = LoopReader(str(loop.repo), loop.loop_id, identity=lambda: Identity("b" * 32), clock=lambda: NOW)
    yield found
    found.close()


def drain(feed: EventFeed) -> list[Message]:
    """Everything that reading brings now."""
    found = []
    while messages := feed.read():
        found.extend(messages)
    return found


def opened(
    reader: LoopReader, after: pb.LogPosition | None = None, **options: object
) -> tuple[EventFeed, list[Message]]:
    feed = reader.feed(FeedOptions(**options))  # type: ignore[arg-type]
    return feed, feed.open(after)


def test_opened_tells_what_was_granted(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(events(1, 3))
    feed, messages = opened(reader, place(events(1, 3), 2), follow=True, max_events=9, bookmark_seconds=1.5)
    (message,) = messages
    assert message.opened.boot_id == "b" * 32
    assert (message.opened.follow, message.opened.max_events) == (True, 9)
    assert message.opened.bookmark_interval == duration(1.5)
    assert message.opened.start == place(events(1, 3), 2) == feed.position


def test_every_message_tells_head_and_time(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(events(1, 2) + b"bad\n\ntorn")
    feed, messages = opened(reader)
    messages += [*drain(feed), feed.bookmark(), feed.goodbye("drained_to_head")]
    assert set(kinds(messages)) == {"opened", "batch", "invalid_line", "bookmark", "goodbye"}
    for message in messages:
        assert message.head.position == place(events(1, 2) + b"bad\n\n")
        assert message.head.size_bytes == loop.log.stat().st_size
        assert message.head.torn_tail_bytes == 4
        assert message.sent_at.ToNanoseconds() == int(NOW * 1e9)


def test_batch_header_says_once_what_events_share(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(events(1, 3))
    feed, _ = opened(reader, trace_id="trace")
    (message,) = drain(feed)
    batch = message.batch
    assert batch.source == pb.Source(repo_path=str(loop.repo), loop_id="alpha")
    assert (batch.trace_id, batch.emitted_at) == ("trace", "2027-01-15T08:00:00Z")
    assert (batch.first_line, batch.last_line, batch.line_count) == (1, 3, 3)
    feed, _ = opened(reader)
    assert not drain(feed)[0].batch.HasField("trace_id")


def test_blank_lines_are_covered_but_are_no_events(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(b"\n" + event(2) + b" \t\r\n\n" + event(5) + b"\v\f\n")
    feed, _ = opened(reader)
    messages = drain(feed)
    assert [line for line, _ in raw_events(messages)] == [2, 5]
    assert messages[-1].batch.last_line == 6
    check_stream(messages, loop.log.read_bytes())


def test_log_of_blank_lines_gives_a_batch_without_events(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(b"\n\n\n")
    feed, _ = opened(reader)
    (message,) = drain(feed)
    assert (message.batch.first_line, message.batch.last_line, len(message.batch.events)) == (1, 3, 0)


def test_invalid_line_comes_before_the_batch_that_covers_it(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(event(1) + b"{half" + event(2) + event(3) + b"[]\n")
    feed, _ = opened(reader)
    messages = drain(feed)
    assert kinds(messages) == ["batch", "invalid_line", "batch", "invalid_line", "batch"]
    assert [message.invalid_line.reason for message in messages[1::2]] == [
        "invalid_json_line",
        "line_not_object",
    ]
    assert [line for line, _ in raw_events(messages)] == [1, 3]
    check_stream(messages, loop.log.read_bytes())


def test_prefix_of_an_invalid_line_is_short_and_repaired(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(b"\xff" * 300 + b"\n")
    feed, _ = opened(reader)
    found = drain(feed)[0].invalid_line
    assert (found.prefix, found.size_bytes) == ("\ufffd" * 256, 300)


def test_batches_are_cut_by_number_of_events_and_by_bytes(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(events(1, 600) + b"".join(event(n, message="x" * 20_000) for n in range(601, 609)))
    feed, _ = opened(reader)
    messages = drain(feed)
    assert max(len(message.batch.events) for message in messages) == lines_module.BATCH_LINES
    limit = lines_module.BATCH_BYTES + 21_000
    assert all(sum(len(e.raw) for e in message.batch.events) < limit for message in messages)
    check_stream(messages, loop.log.read_bytes())
    assert messages[-1].batch.last_line == 608


@pytest.mark.parametrize("size", [MAX_LINE_BYTES - 200, MAX_LINE_BYTES, MAX_LINE_BYTES + 1, 3 << 20])
def test_long_line_stops_nobody(reader: LoopReader, loop: LoopFiles, size: int) -> None:
    long = event(2, message="x" * size)
    loop.append(event(1) + long + event(3))
    feed, _ = opened(reader)
    messages = drain(feed)
    fits = len(long) - 1 <= MAX_LINE_BYTES
    assert [line for line, _ in raw_events(messages)] == ([1, 2, 3] if fits else [1, 3])
    bad = [m.invalid_line for m in messages if m.HasField("invalid_line")]
    assert [(found.line, found.reason) for found in bad] == ([] if fits else [(2, "line_too_long")])
    check_stream(messages, loop.log.read_bytes())
    assert all(message.ByteSize() < 4 << 20 for message in messages)


def test_one_read_makes_few_messages_of_a_log_full_of_garbage(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(b"x\n" * 3000)
    feed, _ = opened(reader)
    found = []
    while messages := feed.read():
        assert len(messages) <= 600
        found.extend(messages)
    assert sum(message.HasField("invalid_line") for message in found) == 3000
    check_stream(found, loop.log.read_bytes())
    assert found[-1].batch.last_line == 3000


def test_torn_tail_is_delivered_once_when_its_newline_comes(reader: LoopReader, loop: LoopFiles) -> None:
    feed, _ = opened(reader)
    for byte in event(1)[:-1]:
        loop.append(bytes([byte]))
        assert feed.read() == []
    loop.append(b"\n")
    assert raw_events(drain(feed)) == [(1, event(1)[:-1].decode())]
    assert drain(feed) == []


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 256, 257])
def test_event_limit_counts_events_and_ends_the_feed(reader: LoopReader, loop: LoopFiles, limit: int) -> None:
    data = b"\n" + b"bad\n" + events(1, 400)
    loop.append(data)
    feed, _ = opened(reader, max_events=limit)
    messages = drain(feed)
    assert len(raw_events(messages)) == limit
    assert (feed.finished, feed.end_reason()) == (True, "max_events_reached")
    assert feed.position == place(data, limit + 2)
    check_stream(messages, data)


def test_feed_that_reached_the_head_says_so(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(events(1, 2))
    feed, _ = opened(reader, max_events=5)
    drain(feed)
    assert (feed.finished, feed.end_reason()) == (False, "drained_to_head")


# --- cursors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verified", [True, False])
@pytest.mark.parametrize("line", [0, 1, 4, 5])
def test_reading_starts_after_a_place_that_fits(
    reader: LoopReader, loop: LoopFiles, line: int, verified: bool
) -> None:
    data = events(1, 5)
    loop.append(data)
    after = place(data, line) if verified else pb.LogPosition(line=line)
    feed, messages = opened(reader, after)
    assert kinds(messages) == ["opened"]
    assert [number for number, _ in raw_events(drain(feed))] == list(range(line + 1, 6))
    assert feed.position == place(data)


def reset_cases() -> list[tuple[str, bytes, pb.LogPosition, int]]:
    old = events(1, 5)
    bare = pb.LogPosition(line=place(old, 4).line, digest=place(old, 4).digest)
    return [
        ("first line differs", events(2, 9), place(old, 4), Reset.REASON_REPLACED),
        ("first line differs, shorter", events(2, 3), place(old, 4), Reset.REASON_REPLACED),
        ("empty", b"", place(old, 4), Reset.REASON_REPLACED),
        ("empty, first line not known", b"", bare, Reset.REASON_REPLACED),
        ("torn only", b"torn", place(old, 4), Reset.REASON_REPLACED),
        ("history changed", event(1) + events(3, 9), place(old, 4), Reset.REASON_REWRITTEN),
        ("history changed, first line not known", events(2, 9), bare, Reset.REASON_REWRITTEN),
        ("shorter", events(1, 3), place(old, 4), Reset.REASON_TRUNCATED),
        ("shorter, first line not known", events(1, 3), bare, Reset.REASON_TRUNCATED),
        ("no digest", events(1, 3), pb.LogPosition(line=4), Reset.REASON_AHEAD),
        ("no digest, empty", b"", pb.LogPosition(line=4), Reset.REASON_AHEAD),
    ]


@pytest.mark.parametrize(
    ("data", "after", "reason"), [case[1:] for case in reset_cases()], ids=[case[0] for case in reset_cases()]
)
def test_place_that_does_not_fit_is_reset_with_its_reason(
    reader: LoopReader, loop: LoopFiles, data: bytes, after: pb.LogPosition, reason: int
) -> None:
    loop.append(data)
    feed, messages = opened(reader, after)
    assert kinds(messages) == ["opened", "log_reset"]
    reset = messages[1].log_reset
    assert (reset.reason, reset.requested, reset.resume.line) == (reason, after, 0)
    assert messages[0].opened.start.line == 0
    messages = drain(feed)
    check_stream(messages, data)
    assert len(raw_events(messages)) == data.count(b"\n")


@pytest.mark.parametrize(
    ("fresh", "reason"),
    [
        (events(2, 9), Reset.REASON_REPLACED),
        (event(9), Reset.REASON_REPLACED),
        (b"", Reset.REASON_REPLACED),
        (events(1, 2), Reset.REASON_TRUNCATED),
        (event(1) + events(3, 9), Reset.REASON_REWRITTEN),
        (events(1, 5), None),
        (events(1, 8), None),
    ],
    ids=["replaced", "replaced, shorter", "emptied", "truncated", "rewritten", "copied", "copied and longer"],
)
@pytest.mark.parametrize("noticed_by_another", [True, False])
def test_log_that_changes_while_it_is_followed_is_told(
    reader: LoopReader, loop: LoopFiles, fresh: bytes, reason: int | None, noticed_by_another: bool
) -> None:
    loop.append(events(1, 5))
    feed, _ = opened(reader, follow=True)
    drain(feed)
    loop.replace(fresh)
    if noticed_by_another:
        reader.head()
    messages = drain(feed)
    resets = [message.log_reset for message in messages if message.HasField("log_reset")]
    assert [reset.reason for reset in resets] == ([] if reason is None else [reason])
    if reason is None:
        check_stream(messages, fresh, start=5)
    else:
        assert kinds(messages)[0] == "log_reset"
        assert resets[0].requested == place(events(1, 5))
        check_stream(messages[1:], fresh)
    assert feed.position == place(fresh)


@pytest.mark.parametrize("noticed_by_another", [True, False])
def test_log_replaced_in_mid_replay_never_mixes_with_the_old_one(
    reader: LoopReader, loop: LoopFiles, noticed_by_another: bool
) -> None:
    old = b"".join(event(n, message="old" * 100) for n in range(1, 3000))
    fresh = b"".join(event(n, message="new" * 90) for n in range(7, 4000))
    loop.append(old)
    feed, _ = opened(reader)
    before = feed.read()
    reached = feed.position
    assert 0 < reached.line < 2999
    loop.replace(fresh)
    if noticed_by_another:
        reader.head()
    after = drain(feed)
    check_stream(before, old)
    assert after[0].log_reset.reason == Reset.REASON_REPLACED
    assert after[0].log_reset.requested == reached
    check_stream(after[1:], fresh)
    assert feed.position == place(fresh)


def test_copy_of_the_log_in_mid_replay_goes_on_without_a_word(reader: LoopReader, loop: LoopFiles) -> None:
    data = b"".join(event(n, message="m" * 300) for n in range(1, 2000))
    loop.append(data)
    feed, _ = opened(reader)
    messages = feed.read()
    loop.replace(data)
    messages += drain(feed)
    assert "log_reset" not in kinds(messages)
    check_stream(messages, data)
    assert feed.position == place(data)


def test_log_that_is_away_raises_and_reading_goes_on_afterwards(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(events(1, 3))
    feed, _ = opened(reader, follow=True)
    messages = drain(feed)
    aside = loop.directory / "aside"
    loop.log.rename(aside)
    with pytest.raises(OpsError) as caught:
        feed.read()
    assert caught.value.reason == "events_missing"
    aside.rename(loop.log)
    loop.append(event(4))
    messages += drain(feed)
    check_stream(messages, events(1, 4))
    assert [line for line, _ in raw_events(messages)] == [1, 2, 3, 4]


def test_long_line_cut_off_half_way_leaves_the_feed_usable(
    reader: LoopReader, loop: LoopFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = event(1) + b"x" * (2 << 20) + b"\n"
    loop.append(whole)
    feed, _ = opened(reader, after=place(event(1)))
    real, calls = reader.log.read, []

    def read(*args: int) -> bytes:
        calls.append(args)
        return real(*args) if len(calls) < 5 else b""  # type: ignore[arg-type]

    monkeypatch.setattr(reader.log, "read", read)
    with pytest.raises(OpsError, match="shrank"):
        feed.read()
    assert feed.position == place(event(1))
    monkeypatch.undo()
    messages = drain(feed)
    check_stream(messages, whole, start=1)
    assert messages[0].invalid_line.reason == "line_too_long"


def test_feed_notices_growth_that_another_reader_took_in(reader: LoopReader, loop: LoopFiles) -> None:
    feed, _ = opened(reader, follow=True)
    assert not feed.may_be_behind()
    loop.append(event(1))
    reader.head()
    assert feed.may_be_behind()
    drain(feed)
    assert not feed.may_be_behind()


# --- bookmarks -----------------------------------------------------------------------------------------


def test_bookmark_brings_the_snapshot_once_until_it_changes(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(events(1, 2))
    feed, _ = opened(reader)
    drain(feed)
    first = feed.bookmark().bookmark
    assert first.position == first.snapshot.position == place(events(1, 2))
    assert not feed.bookmark().bookmark.HasField("snapshot")
    assert feed.due_bookmark() is None
    loop.put("approval.json", {"status": "pending"})
    news = feed.due_bookmark()
    assert news is not None
    assert news.bookmark.snapshot.run.status == "awaiting_approval"


def test_own_heartbeat_brings_no_bookmark_and_is_in_the_snapshot_all_the_same(
    reader: LoopReader, loop: LoopFiles
) -> None:
    loop.append(events(1, 2))
    feed, _ = opened(reader)
    drain(feed)
    assert feed.bookmark().bookmark.HasField("snapshot")
    for sequence in (1, 2):
        own = {"writer": HEARTBEAT_WRITER, "sequence": sequence}
        loop.put("heartbeat.v1.json", own)
        assert not feed.is_bookmark_due()
        assert not feed.bookmark().bookmark.HasField("snapshot")
        assert json.loads(reader.snapshot().runtime.heartbeat.json) == own
    loop.append(event(3))
    drain(feed)
    told = feed.bookmark().bookmark.snapshot
    assert told.runtime.HasField("heartbeat")
    assert told.artifacts.heartbeat.exists
    loop.heartbeat.unlink()
    assert not feed.is_bookmark_due()
    assert not feed.bookmark().bookmark.HasField("snapshot")


@pytest.mark.parametrize(
    "text", ['{"timestamp":"t"}', '{"writer":"runtime"}', '["writer","sprite-agent"]', "{}"]
)
def test_heartbeat_of_the_runtime_brings_a_bookmark_each_time(
    reader: LoopReader, loop: LoopFiles, text: str
) -> None:
    loop.append(events(1, 2))
    loop.put("heartbeat.v1.json", {"writer": HEARTBEAT_WRITER})
    feed, _ = opened(reader)
    drain(feed)
    feed.bookmark()
    for written in (text, text + " ", text):
        loop.heartbeat.write_text(written)
        assert feed.is_bookmark_due()
        news = feed.due_bookmark()
        assert news is not None
        assert news.bookmark.snapshot.runtime.heartbeat.json == written
    # What was the runtime's and is the agent's now is news, too: the runtime's is gone.
    loop.put("heartbeat.v1.json", {"writer": HEARTBEAT_WRITER})
    assert feed.is_bookmark_due()


def test_bookmark_of_a_quiet_loop_needs_no_snapshot(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(events(1, 2))
    feed, _ = opened(reader)
    drain(feed)
    assert not feed.is_bookmark_bare()

    def is_bare_after_another() -> bool:
        feed.bookmark()
        return feed.is_bookmark_bare()

    wait_for(is_bare_after_another, what="the files to settle")
    loop.put("heartbeat.v1.json", {"writer": HEARTBEAT_WRITER})
    wait_for(feed.is_bookmark_bare, what="the file to settle")
    (loop.directory / "approval.json").write_text("{broken")
    for _ in range(2):
        assert not feed.is_bookmark_bare()
        assert feed.bookmark().bookmark.snapshot_problem == "artifact_invalid"
    loop.put("approval.json", {"status": "pending"})
    assert feed.bookmark().bookmark.snapshot.run.status == "awaiting_approval"
    loop.append(event(3))
    drain(feed)
    assert not feed.is_bookmark_bare()
    assert feed.bookmark().bookmark.snapshot.sequence_value == 3


def test_heartbeat_is_looked_into_once_a_change(
    reader: LoopReader, loop: LoopFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.put("heartbeat.v1.json", {"writer": HEARTBEAT_WRITER})
    wait_for(lambda: time.time() - loop.heartbeat.stat().st_mtime > 0.1, what="the file to settle")
    looks: list[str] = []
    is_own = ownheartbeat.is_own

    def look(path: str) -> bool:
        looks.append(path)
        return is_own(path)

    monkeypatch.setattr(ownheartbeat, "is_own", look)
    feed, _ = opened(reader)
    feed.bookmark()
    for _ in range(5):
        assert not feed.is_bookmark_due()
    assert looks == [str(loop.heartbeat)]


def test_bookmark_short_of_the_head_brings_no_snapshot(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(events(1, 5))
    feed, _ = opened(reader, max_events=2)
    drain(feed)
    bookmark = feed.bookmark().bookmark
    assert (bookmark.position, bookmark.HasField("snapshot")) == (place(events(1, 5), 2), False)


def test_bookmark_never_pairs_a_place_with_a_later_snapshot(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(events(1, 2))
    feed, _ = opened(reader)
    drain(feed)
    loop.append(event(3))
    bookmark = feed.bookmark().bookmark
    assert (bookmark.position.line, bookmark.HasField("snapshot")) == (2, False)


def test_bookmark_tells_why_there_is_no_snapshot(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(events(1, 2))
    (loop.directory / "approval.json").write_text("{broken")
    feed, _ = opened(reader)
    drain(feed)
    bookmark = feed.bookmark().bookmark
    assert (bookmark.snapshot_problem, bookmark.HasField("snapshot")) == ("artifact_invalid", False)
    assert bookmark.position == place(events(1, 2))


@pytest.mark.parametrize("seconds", [0.0, 0.25, 1.0, 5.5, 59.999])
def test_durations_keep_their_fractions(seconds: float) -> None:
    found = duration(seconds)
    assert found.seconds + found.nanos / 1e9 == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    ("wanted", "granted"),
    [(0, 65536), (1, 4096), (4096, 4096), (9999, 9999), (65536, 65536), (2**32 - 1, 65536)],
)
def test_size_of_batches_is_granted_within_bounds(wanted: int, granted: int) -> None:
    assert grant_batch_bytes(wanted) == granted


@pytest.mark.parametrize("size", [4096, 4097, 10_000, 65_536])
def test_batches_of_any_size_cover_the_same(reader: LoopReader, loop: LoopFiles, size: int) -> None:
    long = event(0, message="x" * 9000)
    data = b"".join(
        (events(1, 300), b"bad\n", long, b"\n", long, events(1, 40), event(0, message="y" * 300_000))
    )
    loop.append(data)
    feed, messages = opened(reader, batch_bytes=size)
    messages += drain(feed)
    check_stream(messages, data)
    lines = data.splitlines(keepends=True)
    spans = [lines[m.batch.first_line - 1 : m.batch.last_line] for m in messages if m.HasField("batch")]
    assert [line for span in spans for line in span] == lines
    for span in spans:
        assert len(span) == 1 or sum(map(len, span)) <= size


# --- an invariant --------------------------------------------------------------------------------------

_line = st.one_of(
    st.sampled_from(
        [b"", b" ", b"\r", b"\t\v\f", b"[]", b"{}", b"null", b"\0", b"{half", b'"text"', b"\xff\xfe"]
    ),
    st.integers(1, 9).map(lambda number: event(number)[:-1]),
    st.builds(lambda text: event(1, message=text)[:-1], st.text(max_size=20)),
    st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")),
    st.integers(1, 400).map(lambda size: event(1, message="x" * size)[:-1] + b"\r"),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(_line, max_size=25),
    tail=st.sampled_from([b"", b"torn", b"{"]),
    start=st.integers(0, 25),
    limit=st.integers(0, 8),
    sizes=st.tuples(st.integers(1, 4), st.integers(20, 400), st.integers(1, 4)),
    batch_bytes=st.integers(1, 300),
    pieces=st.lists(st.integers(1, 200), max_size=6),
)
def test_feed_hands_out_every_complete_line_exactly_once(
    lines: list[bytes],
    tail: bytes,
    start: int,
    limit: int,
    sizes: tuple[int, int, int],
    batch_bytes: int,
    pieces: list[int],
    loop: LoopFiles,
) -> None:
    data = b"".join(line + b"\n" for line in lines) + tail
    start = min(start, len(lines))
    loop.log.write_bytes(b"")
    reader = LoopReader(str(loop.repo), loop.loop_id)
    bounds = ((lines_module, "BATCH_LINES"), (lines_module, "READ_BYTES"), (feed_module, "READ_MESSAGES"))
    with pytest.MonkeyPatch.context() as patch:
        for (module, name), size in zip(bounds, sizes, strict=True):
            patch.setattr(module, name, size)
        # The lines before the place are there at the start; the rest arrives in pieces.
        offset = sum(len(line) + 1 for line in lines[:start])
        loop.append(data[:offset])
        feed = reader.feed(FeedOptions(max_events=limit, batch_bytes=batch_bytes))
        messages = feed.open(place(data, start))
        for size in pieces:
            loop.append(data[offset : offset + size])
            offset += len(data[offset : offset + size])
            messages += feed.read()
        loop.append(data[offset:])
        messages += drain(feed)
        messages.append(feed.bookmark())
    reader.close()
    check_stream(messages, data, start)
    expected: list[pb.LoopRunEvent] = []
    bad: list[tuple[int, str]] = []
    reached = start
    for number, line in enumerate(lines[start:], start + 1):
        if limit and len(expected) == limit:
            break
        reached = number
        if line.strip():
            found = pb.LoopRunEvent()
            reason = fill_event(found, number, line)
            if reason:
                bad.append((number, reason))
            else:
                expected.append(found)
    assert [found for message in messages for found in message.batch.events] == expected
    told = [m.invalid_line for m in messages if m.HasField("invalid_line")]
    assert [(found.line, found.reason) for found in told] == bad
    if limit and len(expected) == limit:
        last_event = expected[-1].line
        assert messages[-1].bookmark.position == place(data, last_event)
    else:
        assert messages[-1].bookmark.position == place(data, reached)


def test_reset_reasons_are_all_told_apart() -> None:
    told = {case[3] for case in reset_cases()}
    assert told | {Reset.REASON_UNSPECIFIED} == set(sprite_pb2.LogReset.Reason.values())


def test_large_line_of_odd_values_is_left_for_a_thread(reader: LoopReader, loop: LoopFiles) -> None:
    """On the event loop it would take long; what comes before and after it need not wait for a thread."""
    heavy = b'{"timestamp":"t","event":"odd","message":{"a":[' + b"1," * 20_000 + b"1]}}\n"
    whole = event(1) + heavy + event(3)
    loop.append(whole)
    feed, _ = opened(reader)
    quick = list(feed.messages(patient=False))
    assert (feed.is_stuck, feed.position.line) == (True, 1)
    assert not list(feed.messages(patient=False))
    messages = quick + feed.read()
    assert (feed.is_stuck, feed.position.line) == (False, 3)
    check_stream(messages, whole)


def test_bookmark_after_new_lines_keeps_a_pace(reader: LoopReader, loop: LoopFiles) -> None:
    """Each brings a whole snapshot: a busy log must not send one with every line."""
    feed, _ = opened(reader, follow=True)
    feed.bookmark()
    loop.append(event(1))
    drain(feed)
    assert feed.due_bookmark() is None
    assert 0 < feed.seconds_to_bookmark() <= 1
    loop.put("approval.json", {"status": "pending"})
    news = feed.due_bookmark()
    assert news is not None, "a state file is told of at once"
    assert news.bookmark.position.line == 1
