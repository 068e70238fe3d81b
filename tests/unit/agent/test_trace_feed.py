"""TraceFeed: whatever happens to trace files, a subscriber gets every line exactly once, or is told."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sprite_agent.runtime.identity import Identity
from sprite_agent.runtime.tracefeed import TraceFeed, TraceOptions
from sprite_agent.runtime.tracelines import MAX_LINE_BYTES
from sprite_agent.runtime.tracelogs import TraceLogs
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2
from tests.harness.streams import place
from tests.harness.traces import (
    TraceFile,
    TraceMessage,
    check_batches,
    kinds,
    numbers,
    places,
    refused,
    resets,
    span,
    spans,
)

NAME = "trace.jsonl"
NOW = 1_800_000_000.25
Reset = sprite_pb2.LogReset
Places = dict[str, pb.LogPosition]
# Opens a feed as an agent that has just started would.
Open = Callable[..., TraceFeed]


@pytest.fixture
def file(tmp_path: Path) -> TraceFile:
    return TraceFile(tmp_path / NAME)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as stack:

        def begin(after: Places | None = None, **options: object) -> TraceFeed:
            files = stack.enter_context(TraceLogs(str(tmp_path)).opened("alpha"))
            return opened(files, after, **options)

        yield begin


def opened(files: object, after: Places | None = None, **options: object) -> TraceFeed:
    feed = TraceFeed(
        files,  # type: ignore[arg-type]
        after or {},
        TraceOptions(**options),  # type: ignore[arg-type]
        identity=Identity("b" * 32),
        clock=lambda: NOW,
    )
    (message,) = feed.open()
    assert message.HasField("opened")
    return feed


def drain(feed: TraceFeed) -> list[TraceMessage]:
    """Everything that reading brings now."""
    found: list[TraceMessage] = []
    while messages := feed.read():
        found += messages
    check_batches(found)
    return found


def test_lines_arrive_as_they_were_written_and_name_their_file(tmp_path: Path, fresh: Open) -> None:
    lines = {
        NAME: span(1),
        ".superloop/trace.jsonl": b'{ "trace_id":"x" , "n":1.0,\t"u":"\\u00e9 \xc3\xa9" }\n',
        ".superloop/loops/alpha/trace.jsonl": b'{"trace_id":"a","a":1,"a":12345678901234567890}\n',
    }
    for name, line in lines.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(line)
    feed = fresh()
    messages = drain(feed)
    found = {message.file: message.batch.lines[0].record.json.encode() + b"\n" for message in messages}
    assert found == lines
    for message in messages:
        assert message.head.position == place(lines[message.file])
        assert message.batch.first_line_digest == hashlib.sha256(lines[message.file]).digest()
        assert message.sent_at.ToNanoseconds() == int(NOW * 1e9)
    assert {found.file: found.position for found in feed.bookmark().bookmark.places} == places(messages)


def test_opened_tells_the_files_that_are_there_and_their_places(file: TraceFile, fresh: Open) -> None:
    file.append(spans(1, 5))
    feed = fresh({NAME: place(spans(1, 5), 3), ".superloop/trace.jsonl": place(span(1))})
    start = feed.open()[0].opened.start
    assert [(found.file, found.position) for found in start] == [(NAME, place(spans(1, 5), 3))]
    assert numbers(drain(feed)) == [4, 5]


def test_missing_file_is_waited_for_and_read_from_its_beginning(file: TraceFile, fresh: Open) -> None:
    feed = fresh(follow=True)
    assert drain(feed) == []
    assert not feed.bookmark().bookmark.places
    file.append(span(1))
    assert feed.may_be_behind()
    assert numbers(drain(feed)) == [1]
    assert not feed.may_be_behind()


def test_place_in_a_file_that_is_missing_is_kept_until_it_can_be_checked(
    file: TraceFile, fresh: Open
) -> None:
    wanted = place(spans(1, 3), 2)
    feed = fresh({NAME: wanted})
    assert drain(feed) == []
    assert feed.bookmark().bookmark.places[0].position == wanted
    file.append(spans(1, 3))
    assert numbers(drain(feed)) == [3]


def test_line_that_is_no_trace_event_is_told_and_passed(file: TraceFile, fresh: Open) -> None:
    bad = [
        (b"{half", "invalid_json_line"),
        (b"[1]", "line_not_object"),
        (b"{}", "missing_trace_id"),
        (b'{"trace_id":7}', "missing_trace_id"),
        (b'{"trace_id":""}', "missing_trace_id"),
        (b'{"trace_id":"a","x":"\xff"}', "invalid_json_line"),
        (b'{"trace_id":"a","x":' + b"[" * 300 + b"]" * 300 + b"}", "invalid_json_line"),
        (b'{"trace_id":"a","x":"' + b"x" * MAX_LINE_BYTES + b'"}', "line_too_long"),
        (b"x" * 3_000_000, "line_too_long"),
    ]
    file.append(span(0) + b" \n" + b"".join(line + b"\n" for line, _ in bad) + span(9))
    feed = fresh()
    messages = drain(feed)
    assert refused(messages) == [(number, reason) for number, (_, reason) in enumerate(bad, 3)]
    assert numbers(messages) == [0, 9]
    for message, (line, _) in zip((m for m in messages if m.HasField("invalid_line")), bad, strict=True):
        assert message.invalid_line.sha256 == hashlib.sha256(line).digest()
        assert line.decode("utf-8", "replace").startswith(message.invalid_line.prefix)
    assert feed.bookmark().bookmark.places[0].position == place(file.path.read_bytes())


@pytest.mark.parametrize("size", [400, 3000, MAX_LINE_BYTES])
def test_line_up_to_the_limit_is_taken(file: TraceFile, fresh: Open, size: int) -> None:
    line = span(1, filling="")
    file.append(span(1, filling="x" * (size + 1 - len(line))))
    assert file.path.stat().st_size == size + 1
    assert numbers(drain(fresh())) == [1]


@pytest.mark.parametrize("moved", range(5))
@pytest.mark.parametrize("is_drained", [False, True])
def test_place_is_found_in_whatever_file_it_is_by_now(
    file: TraceFile, fresh: Open, moved: int, is_drained: bool
) -> None:
    """After a restart: nobody remembers anything but the place."""
    file.append(spans(1, 4))
    messages = drain(fresh(max_lines=4 if is_drained else 2))
    for number in range(moved):
        file.move_aside(spans(number * 10 + 11, number * 10 + 12))
    rest = drain(fresh(places(messages)))
    assert resets(rest) == []
    expected = [1, 2, 3, 4, *(n for first in range(11, 11 + moved * 10, 10) for n in (first, first + 1))]
    assert numbers(messages) + numbers(rest) == expected


def test_moved_file_is_read_though_there_is_no_young_one(file: TraceFile, fresh: Open) -> None:
    file.append(spans(1, 4))
    os.replace(file.path, file.old(1))
    messages = drain(fresh({NAME: place(spans(1, 4), 2)}))
    assert (numbers(messages), resets(messages)) == ([3, 4], [])


def test_subscriber_without_a_place_begins_at_the_oldest_line(file: TraceFile, fresh: Open) -> None:
    for number in range(1, 9):
        file.move_aside(span(number))
    assert numbers(drain(fresh())) == [4, 5, 6, 7, 8]


@pytest.mark.parametrize("first", [span(0), b"\n"], ids=["header", "blank"])
def test_place_that_fits_files_which_begin_alike_loses_no_line(
    file: TraceFile, fresh: Open, first: bytes
) -> None:
    file.append(first)
    wanted = {NAME: place(first)}
    file.append(spans(1, 3))
    file.move_aside(first + spans(11, 12))
    messages = drain(fresh(wanted))
    assert [number for number in numbers(messages) if number] == [1, 2, 3, 11, 12]
    assert resets(messages) == []


def test_place_in_a_file_and_in_its_copy_is_read_on_in_the_file(file: TraceFile, fresh: Open) -> None:
    file.append(spans(1, 3))
    file.old(1).write_bytes(file.path.read_bytes())
    file.append(span(4))
    messages = drain(fresh({NAME: place(spans(1, 2))}))
    assert (numbers(messages), resets(messages)) == ([3, 4], [])


def test_copy_that_is_put_in_the_place_of_a_followed_file_is_read_on(file: TraceFile, fresh: Open) -> None:
    file.append(spans(1, 3))
    feed = fresh(follow=True)
    drain(feed)
    other = file.path.with_name("other")
    other.write_bytes(spans(1, 5))
    other.replace(file.path)
    messages = drain(feed)
    assert (numbers(messages), resets(messages)) == ([4, 5], [])


def test_follower_goes_on_over_rotations_without_a_word(file: TraceFile, fresh: Open) -> None:
    feed = fresh(follow=True)
    messages = []
    for number in range(1, 30, 3):
        file.move_aside(span(number))
        messages += drain(feed)
        file.append(span(number + 1))
        file.move_aside(span(number + 2))
        messages += drain(feed)
    assert numbers(messages) == list(range(1, 31))
    assert set(kinds(messages)) == {"batch"}


def test_place_stays_at_the_end_of_a_moved_file_until_the_next_has_a_line(
    file: TraceFile, fresh: Open
) -> None:
    file.append(spans(1, 2))
    feed = fresh(follow=True)
    drain(feed)
    os.replace(file.path, file.old(1))
    assert drain(feed) == []
    file.path.write_bytes(b'{"half')
    assert drain(feed) == []
    assert feed.bookmark().bookmark.places[0].position == place(spans(1, 2))
    os.replace(file.old(1), file.old(2))
    os.replace(file.path, file.old(1))
    file.append(span(3))
    messages = drain(feed)
    assert (numbers(messages), resets(messages)) == ([3], [])


def test_file_that_was_dropped_while_it_was_read_is_read_to_its_end(file: TraceFile, fresh: Open) -> None:
    file.append(spans(1, 600))
    feed = fresh(follow=True, batch_bytes=4096)
    messages = [next(feed.messages())]
    for number in range(601, 606):
        file.move_aside(span(number))
        feed.take_in()
    assert not any(b'"number":1}' in old.read_bytes() for old in file.path.parent.glob("trace.*"))
    messages += drain(feed)
    assert numbers(messages) == list(range(1, 606))
    assert resets(messages) == []


def test_lines_that_were_dropped_before_they_were_read_are_told_of(file: TraceFile, fresh: Open) -> None:
    file.append(spans(1, 3))
    feed = fresh(follow=True)
    reached = places(drain(feed))
    for number in range(10, 20):
        file.move_aside(span(number))
    for messages in (drain(feed), drain(fresh(reached))):
        assert kinds(messages)[0] == "log_reset"
        assert resets(messages) == [Reset.REASON_REPLACED]
        assert messages[0].log_reset.requested == reached[NAME]
        assert messages[0].log_reset.resume.line == 0
        assert (messages[0].file, numbers(messages)) == (NAME, [15, 16, 17, 18, 19])


def test_file_that_was_deleted_before_anybody_read_it_is_told_of(file: TraceFile, fresh: Open) -> None:
    file.append(spans(1, 600))
    feed = fresh(follow=True, batch_bytes=4096)
    messages = [next(feed.messages())]
    file.move_aside(span(700))
    feed.take_in()
    file.path.unlink()
    file.append(span(800))
    rest = drain(feed)
    assert numbers(messages) + numbers(rest) == [*range(1, 601), 800]
    assert resets(rest) == [Reset.REASON_REPLACED]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (spans(5, 9), Reset.REASON_REPLACED),
        (spans(1, 1) + spans(7, 9), Reset.REASON_REWRITTEN),
        (spans(1, 2), Reset.REASON_TRUNCATED),
    ],
    ids=["replaced", "rewritten", "truncated"],
)
@pytest.mark.parametrize("is_restarted", [False, True])
def test_file_written_in_place_is_told_and_sent_whole(
    file: TraceFile, fresh: Open, content: bytes, reason: int, is_restarted: bool
) -> None:
    file.append(spans(100, 101))
    file.move_aside(spans(1, 3))
    feed = fresh(follow=True)
    reached = places(drain(feed))
    with file.path.open("r+b") as handle:
        handle.write(content)
        handle.truncate()
    if is_restarted:
        feed = fresh(reached)
    messages = drain(feed)
    assert resets(messages) == [reason]
    # What is older was handed out before; an agent that knows of no place but one that fits nothing cannot
    # know that.
    older = [100, 101] if is_restarted and reason == Reset.REASON_REPLACED else []
    found = [int(line.split(b'"number":')[1].split(b"}")[0]) for line in content.splitlines()]
    assert numbers(messages) == older + found


def test_file_that_is_written_in_place_twice_at_once_is_told_of_once(file: TraceFile, fresh: Open) -> None:
    file.append(spans(100, 101))
    file.move_aside(spans(1, 3))
    feed = fresh(follow=True)
    drain(feed)
    for content in (spans(5, 9), spans(20, 22)):
        file.path.write_bytes(content)
        feed.take_in()
    messages = drain(feed)
    assert (resets(messages), numbers(messages)) == ([Reset.REASON_REPLACED], [20, 21, 22])


def test_file_that_is_emptied_is_told_of_with_its_next_line(file: TraceFile, fresh: Open) -> None:
    file.append(spans(1, 3))
    feed = fresh(follow=True)
    drain(feed)
    os.truncate(file.path, 0)
    assert drain(feed) == []
    assert feed.bookmark().bookmark.places[0].position == place(spans(1, 3))
    file.append(span(4))
    messages = drain(feed)
    assert (resets(messages), numbers(messages)) == ([Reset.REASON_REPLACED], [4])


def test_file_that_is_deleted_is_told_of_with_the_next_one(file: TraceFile, fresh: Open) -> None:
    file.append(span(100))
    file.move_aside(spans(1, 2))
    feed = fresh(follow=True)
    drain(feed)
    file.path.unlink()
    assert drain(feed) == []
    file.append(spans(5, 6))
    messages = drain(feed)
    assert (resets(messages), numbers(messages)) == ([Reset.REASON_REPLACED], [5, 6])


def test_file_that_is_copied_and_then_cut_is_read_on_in_the_copy(file: TraceFile, fresh: Open) -> None:
    """As some programs rotate; lines between the copy and the cut are lost to everybody."""
    file.append(spans(1, 3))
    feed = fresh(follow=True)
    messages = drain(feed)
    file.append(span(4))
    file.old(1).write_bytes(file.path.read_bytes())
    os.truncate(file.path, 0)
    file.append(span(5))
    rest = drain(feed)
    assert numbers(messages) + numbers(rest) == [1, 2, 3, 4, 5]
    assert resets(rest) == []


def test_place_without_digest_is_checked_against_the_length_of_the_youngest(
    file: TraceFile, fresh: Open
) -> None:
    file.append(spans(1, 9))
    file.move_aside(spans(10, 12))
    assert numbers(drain(fresh({NAME: pb.LogPosition(line=2)}))) == [12]
    messages = drain(fresh({NAME: pb.LogPosition(line=4)}))
    assert resets(messages) == [Reset.REASON_AHEAD]
    assert numbers(messages) == list(range(1, 13))


def test_busy_file_keeps_no_other_waiting(tmp_path: Path, file: TraceFile, fresh: Open) -> None:
    other = TraceFile(tmp_path / ".superloop" / NAME)
    for trace in (file, other):
        trace.append(spans(1, 5000))
    feed = fresh()
    read = [numbers(feed.read(), file) for file in (NAME, f".superloop/{NAME}") for _ in range(2)]
    assert all(read)
    drain(feed)


def test_invalid_lines_in_one_file_keep_no_other_waiting(
    tmp_path: Path, file: TraceFile, fresh: Open
) -> None:
    file.append(b"x\n" * 5000)
    TraceFile(tmp_path / ".superloop" / NAME).append(span(1))
    feed = fresh()
    assert 1 in numbers(feed.read() + feed.read())


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_limit_counts_the_lines_of_all_files(
    tmp_path: Path, file: TraceFile, fresh: Open, limit: int
) -> None:
    file.append(span(1) + b"bad\n")
    TraceFile(tmp_path / ".superloop" / NAME).append(spans(3, 4))
    feed = fresh(max_lines=limit)
    messages = drain(feed)
    covered = [m.batch.last_line - m.batch.first_line + 1 for m in messages if m.HasField("batch")]
    assert sum(covered) == min(limit, 4)
    assert feed.finished == (limit < 5)
    assert feed.end_reason() == ("max_lines_reached" if limit < 5 else "drained_to_head")


def test_small_batches_are_granted(file: TraceFile, fresh: Open) -> None:
    file.append(spans(1, 200))
    messages = drain(fresh(batch_bytes=4096))
    assert all(sum(len(line.record.json) for line in m.batch.lines) <= 4096 for m in messages)
    assert len(messages) > 10


def test_what_takes_long_is_said_beforehand(file: TraceFile, fresh: Open) -> None:
    feed = fresh(follow=True)
    assert feed.is_quick()
    file.append(spans(1, 2000))
    assert not feed.is_quick()
    feed.take_in()
    assert feed.is_quick()
    drain(feed)
    file.move_aside(spans(2001, 2002))
    assert not feed.is_quick()
    feed.take_in()
    assert feed.is_quick()
    file.append(b"x" * 400_000 + b"\n")
    feed.take_in()
    assert numbers(feed.messages(patient=False)) == [2001, 2002]
    assert list(feed.messages(patient=False)) == []
    assert feed.is_stuck
    assert refused(drain(feed)) == [(3, "line_too_long")]


def test_line_that_takes_long_to_judge_is_left_for_a_thread(file: TraceFile, fresh: Open) -> None:
    odd = b'{"trace_id":"abcd","metadata":{"number":2,"nested":[' + b",".join([b"[[1]]"] * 9000) + b"]}}\n"
    file.append(span(1, filling="x" * 50_000) + odd)
    feed = fresh(follow=True)
    feed.take_in()
    assert numbers(feed.messages(patient=False)) == [1]
    assert feed.is_stuck
    assert numbers(drain(feed)) == [2]


def test_what_is_no_file_is_no_file_and_is_warned_of_once(
    file: TraceFile, tmp_path: Path, fresh: Open, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(file.path)
    logs = TraceLogs(str(tmp_path))
    for _ in range(2):
        with logs.opened() as files:
            assert drain(opened(files)) == []
    (warning,) = caplog.records
    assert warning.getMessage() == f"cannot read '{file.path}': it is no regular file [log_unavailable]"
    feed = fresh(follow=True)
    assert drain(feed) == []
    file.path.unlink()
    file.path.mkdir()
    assert drain(feed) == []
    file.path.rmdir()
    file.append(span(1))
    assert numbers(drain(feed)) == [1]


def test_file_that_cannot_be_read_hides_no_other_and_is_warned_of_once(
    tmp_path: Path, file: TraceFile, fresh: Open, caplog: pytest.LogCaptureFixture
) -> None:
    file.append(spans(1, 9))
    TraceFile(tmp_path / ".superloop" / NAME).append(span(10))
    feed = fresh(follow=True)
    (held,) = feed._walks[0]._files.logs
    directory = os.open(tmp_path, os.O_RDONLY)
    os.dup2(directory, held._file)  # reading it fails
    os.close(directory)
    assert numbers(drain(feed)) + numbers(drain(feed)) == [10]
    (warning,) = caplog.records
    assert warning.getMessage() == f"cannot read '{file.path}': Is a directory [log_unavailable]"


def test_two_names_of_one_file_are_one(tmp_path: Path, file: TraceFile, fresh: Open) -> None:
    file.append(span(1))
    (tmp_path / ".superloop").mkdir()
    (tmp_path / ".superloop" / NAME).symlink_to(file.path)
    assert numbers(drain(fresh())) == [1]


def test_link_to_a_file_that_is_read_brings_no_line_twice(
    tmp_path: Path, file: TraceFile, fresh: Open
) -> None:
    """Made while the file is followed, and met by who comes again with the places reached."""
    other = TraceFile(tmp_path / ".superloop" / NAME)
    other.append(spans(1, 3))
    feed = fresh(follow=True)
    reached = places(drain(feed))
    file.path.symlink_to(other.path)
    other.append(span(4))
    for follower in (feed, fresh(reached)):
        messages = drain(follower)
        assert (numbers(messages, f".superloop/{NAME}"), numbers(messages, NAME)) == ([4], [])
    assert feed.is_quick()
    other.move_aside(span(5))
    assert numbers(drain(feed)) == [5]
    file.path.unlink()
    file.append(span(6))
    assert numbers(drain(feed), NAME) == [6]


def test_files_are_let_go_of_without_waiting_for_whoever_reads_them(tmp_path: Path, file: TraceFile) -> None:
    """An event loop does it, for a client that is gone, while a thread still looks through a large file."""
    file.append(span(1))
    before = len(os.listdir("/proc/self/fd"))
    with ExitStack() as stack:
        log = stack.enter_context(TraceLogs(str(tmp_path)).opened())[NAME]
        log.look()
        (held,) = log.logs
        with held._lock, log._lock:
            ending = threading.Thread(target=stack.close)
            ending.start()
            ending.join(5)
            assert not ending.is_alive()
            assert len(os.listdir("/proc/self/fd")) == before + 1
    del log, held
    assert len(os.listdir("/proc/self/fd")) == before


def test_files_are_held_no_longer_than_somebody_reads_them(tmp_path: Path, file: TraceFile) -> None:
    def held() -> int:
        return len(os.listdir("/proc/self/fd"))

    file.append(span(1))
    file.move_aside(span(2))
    logs, before = TraceLogs(str(tmp_path)), held()
    with logs.opened() as files, logs.opened() as same:
        assert [files[name] is same[name] for name in files] == [True, True]
        first, second = opened(files), opened(same)
        assert numbers(drain(first)) == numbers(drain(second)) == [1, 2]
        assert held() == before + 2
    assert held() == before
    assert drain(first) == []
    assert held() == before


def test_lines_of_a_writer_at_work_arrive_once_each(tmp_path: Path) -> None:
    """Two readers share the files, whose looks come between each other's."""
    file = TraceFile(tmp_path / NAME, limit=40_000)
    written, pause, reached = threading.Event(), threading.Event(), [0, 0]

    def write() -> None:
        for number in range(0, 6000, 3):
            # No reader is so slow that five files pass it by.
            while number - min(reached) > 300:
                pause.wait(0.001)
            file.append(spans(number, number + 2))
        written.set()

    found: list[list[TraceMessage]] = [[], []]
    with TraceLogs(str(tmp_path)).opened() as files:

        def read(reader: int) -> None:
            feed = opened(files, follow=True)
            while True:
                is_over = written.is_set()
                new = feed.read()
                found[reader] += new
                reached[reader] += len(numbers(new))
                if is_over and not new:
                    return

        threads = [
            threading.Thread(target=write),
            *(threading.Thread(target=read, args=(n,)) for n in (0, 1)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for messages in found:
        check_batches(messages)
        assert resets(messages) == []
        assert numbers(messages) == list(range(6000))


_LINES = st.lists(
    st.one_of(
        st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")),
        st.sampled_from(
            [span(1)[:-1], b'{"trace_id":"\\ud800"}', b'{"trace_id":"a"} {}', b'{"trace_id":"a"}\0', b"\r"]
        ),
        st.sampled_from([b"x" * 70_000, b"y" * 300_000, b'{"trace_id":"c","p":"' + b"z" * 60_000 + b'"}']),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=_LINES, tail=st.binary(max_size=9), batch_bytes=st.sampled_from([4096, 65536]))
def test_any_bytes_are_covered_line_by_line(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], tail: bytes, batch_bytes: int
) -> None:
    root = tmp_path_factory.mktemp("repo")
    (root / NAME).write_bytes(b"".join(line + b"\n" for line in lines) + tail.replace(b"\n", b""))
    with TraceLogs(str(root)).opened() as files:
        messages = drain(opened(files, batch_bytes=batch_bytes))
    covered, whole = 0, hashlib.sha256()
    for message in messages:
        if message.HasField("batch"):
            batch = message.batch
            assert batch.first_line == covered + 1
            for line in lines[covered : batch.last_line]:
                whole.update(line + b"\n")
            assert batch.end_digest == whole.digest()
            covered = batch.last_line
        else:
            assert message.invalid_line.line > covered
    assert covered == len(lines)
    taken = [(line.number, line.record.json.encode()) for m in messages for line in m.batch.lines]
    assert all(lines[number - 1] == line for number, line in taken)
    told = [number for number, _ in taken] + [number for number, _ in refused(messages)]
    assert sorted(told) == [number for number, line in enumerate(lines, 1) if line.strip()]


_STEPS = st.lists(st.sampled_from(["append", "move", "torn", "read", "some", "restart"]), max_size=40)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
def test_every_line_comes_once_whatever_the_order_of_things(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    root = tmp_path_factory.mktemp("repo")
    file, count, moves = TraceFile(root / NAME), 0, 0
    messages: list[TraceMessage] = []
    with ExitStack() as stack:

        def begin() -> TraceFeed:
            files = stack.enter_context(TraceLogs(str(root)).opened())
            return opened(files, places(messages), follow=True, batch_bytes=4096)

        feed = begin()
        for step in steps:
            if step in {"append", "torn"} or (step == "move" and moves < 4):
                data = spans(count + 1, count + 12)
                count += 12
                if step == "torn":
                    with file.path.open("ab") as handle:
                        handle.write(data[:700])
                        handle.flush()
                        messages += drain(feed)
                        handle.write(data[700:])
                elif step == "move":
                    moves += 1
                    file.move_aside(data)
                else:
                    file.append(data)
            elif step == "some":
                messages += islice(feed.messages(), 1)
            elif step == "restart":
                feed = begin()
            elif step == "read":
                messages += drain(feed)
                moves = 0
        messages += drain(feed)
    check_batches(messages)
    assert numbers(messages) == list(range(1, count + 1))
    assert resets(messages) == []
