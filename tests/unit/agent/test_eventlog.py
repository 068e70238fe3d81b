"""LogIndex: lines, digests and places of a log that grows, shrinks and is replaced."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sprite_agent.runtime import eventlog
from sprite_agent.runtime.eventlog import Head, LogIndex
from spritemesh.errors import OpsError
from tests.harness.loops import LoopFiles, event, events


@pytest.fixture
def index(loop: LoopFiles) -> LogIndex:
    return LogIndex(str(loop.log))


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def described(head: Head) -> tuple[object, ...]:
    """A head without what depends on the history of the index."""
    return head[1:]


def reason_of(work: object) -> str:
    with pytest.raises(OpsError) as caught:
        work()  # type: ignore[operator]
    return caught.value.reason


def test_empty_log_has_a_head_without_lines(index: LogIndex) -> None:
    head = index.refresh()
    assert (head.line, head.offset, head.size) == (0, 0, 0)
    assert (head.digest, head.first_line_digest) == (sha(b""), b"")


def test_head_tells_lines_sizes_and_digests(loop: LoopFiles, index: LogIndex) -> None:
    data = events(1, 3)
    loop.append(data)
    head = index.refresh()
    assert (head.line, head.offset, head.size) == (3, len(data), len(data))
    assert (head.digest, head.first_line_digest) == (sha(data), sha(event(1)))
    assert head.file_sha256 == sha(data).hex()
    assert head.mtime == int(loop.log.stat().st_mtime)


def test_torn_tail_counts_in_size_and_file_digest_only(loop: LoopFiles, index: LogIndex) -> None:
    loop.append(event(1) + b'{"half')
    head = index.refresh()
    assert (head.line, head.offset, head.size) == (1, len(event(1)), len(event(1)) + 6)
    assert head.digest == sha(event(1))
    assert head.file_sha256 == sha(event(1) + b'{"half').hex()


def test_torn_tail_becomes_a_line_when_its_newline_comes(loop: LoopFiles, index: LogIndex) -> None:
    whole = event(1)
    for cut in range(1, len(whole)):
        loop.append(whole[cut - 1 : cut])
        assert index.refresh().line == 0
    loop.append(b"\n")
    head = index.refresh()
    assert (head.line, head.first_line_digest, head.digest) == (1, sha(whole), sha(whole))


def test_generation_stays_while_the_log_is_appended_to(loop: LoopFiles, index: LogIndex) -> None:
    generation = index.refresh().generation
    for number in range(1, 5):
        loop.append(event(number))
        assert index.refresh().generation == generation


def test_unchanged_log_is_not_read_again(
    loop: LoopFiles, index: LogIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.append(events(1, 2))
    head = index.refresh()
    monkeypatch.setattr(os, "preadv", None)
    assert index.refresh() is head
    assert index.refresh_if_idle() is head


@pytest.mark.parametrize(
    "fresh",
    [b"", events(1, 2), events(2, 9), events(1, 5)[:-2] + b"!\n", b"x" * len(events(1, 5))],
    ids=["emptied", "shortened", "longer", "same size", "same size without lines"],
)
@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "another file"])
def test_generation_changes_when_the_log_is_another(
    loop: LoopFiles, index: LogIndex, fresh: bytes, in_place: bool
) -> None:
    loop.append(events(1, 5))
    before = index.refresh()
    # The clock of a file system ticks a hundred times a second or more; tests are faster.
    os.utime(loop.log, ns=(0, 0))
    if in_place:
        loop.log.write_bytes(fresh)
    else:
        loop.replace(fresh)
    after = index.refresh()
    assert after.generation != before.generation
    assert described(after) == described(LogIndex(str(loop.log)).refresh())


def test_refresh_if_idle_gives_nothing_when_there_is_something_to_read(
    loop: LoopFiles, index: LogIndex
) -> None:
    assert index.refresh_if_idle() is None
    index.refresh()
    loop.append(event(1))
    assert index.refresh_if_idle() is None
    index.refresh()
    loop.log.unlink()
    assert index.refresh_if_idle() is None


def test_missing_log_is_told(index: LogIndex, loop: LoopFiles) -> None:
    loop.log.unlink()
    assert reason_of(index.refresh) == "events_missing"


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_log_that_is_no_file_is_told_and_never_waited_for(
    index: LogIndex, loop: LoopFiles, kind: str
) -> None:
    loop.log.unlink()
    if kind == "directory":
        loop.log.mkdir()
    else:
        os.mkfifo(loop.log)
    assert reason_of(index.refresh) == "events_missing"


def test_index_recovers_when_the_log_comes_back(loop: LoopFiles, index: LogIndex) -> None:
    loop.append(events(1, 3))
    index.refresh()
    loop.log.rename(loop.directory / "aside")
    assert reason_of(index.refresh) == "events_missing"
    loop.append(event(7))
    assert index.refresh().line == 1


def test_closed_index_reads_the_log_anew(loop: LoopFiles, index: LogIndex) -> None:
    loop.append(events(1, 3))
    head = index.refresh()
    index.close()
    assert reason_of(lambda: index.read(head, 0, 10)) == "log_unavailable"
    assert described(index.refresh()) == described(head)


def test_what_was_asked_of_another_log_is_refused(loop: LoopFiles, index: LogIndex) -> None:
    loop.append(events(1, 9))
    head = index.refresh()
    loop.replace(event(1))
    index.refresh()
    assert reason_of(lambda: index.read(head, 0, 10)) == "log_unavailable"
    assert reason_of(lambda: index.place(head, 9)) == "log_unavailable"
    assert reason_of(lambda: index.last_line(head)) == "log_unavailable"


def test_deleted_log_can_be_read_on_to_its_end(loop: LoopFiles, index: LogIndex) -> None:
    loop.append(events(1, 3))
    head = index.refresh()
    loop.log.unlink()
    assert index.read(head, 0, head.size) == events(1, 3)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", None),
        (b"\n \n\t\r\n", None),
        (b"a\n", (1, b"a")),
        (b"a\nb\n", (2, b"b")),
        (b"a\nb\n\n  \n", (2, b"b")),
        (b"a\ntorn", (1, b"a")),
        (b"a\r\n", (1, b"a\r")),
    ],
)
def test_last_line_is_the_last_that_is_not_blank(
    loop: LoopFiles, index: LogIndex, data: bytes, expected: tuple[int, bytes] | None
) -> None:
    loop.append(data)
    assert index.last_line(index.refresh()) == expected


def test_last_line_is_found_behind_many_blank_ones(loop: LoopFiles, index: LogIndex) -> None:
    loop.append(events(1, 2) + b"\n" * 700_000)
    assert index.last_line(index.refresh()) == (2, event(2)[:-1])


def test_last_line_is_cut_when_it_is_longer_than_any_event(loop: LoopFiles, index: LogIndex) -> None:
    loop.append(event(1) + b"x" * (5 << 20) + b"\n")
    found = index.last_line(index.refresh())
    assert found is not None
    assert found[0] == 2
    assert len(found[1]) <= 4 << 20


def test_places_are_found_from_checkpoints_as_from_the_start(
    loop: LoopFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventlog, "_SCAN_BYTES", 512)
    monkeypatch.setattr(eventlog, "_CHECKPOINT_BYTES", 1024)
    monkeypatch.setattr(eventlog, "_MAX_CHECKPOINTS", 8)
    data = events(1, 400)
    loop.append(data)
    index = LogIndex(str(loop.log))
    head = index.refresh()
    lines = data.splitlines(keepends=True)
    for line in (0, 1, 2, 57, 199, 200, 399, 400):
        place = index.place(head, line)
        before = b"".join(lines[:line])
        assert (place.line, place.offset, place.digest) == (line, len(before), sha(before))
    assert len(index._checkpoints) <= 8 + 1
    with pytest.raises(ValueError, match="401"):
        index.place(head, 401)


def test_checkpoints_do_not_grow_with_the_log(loop: LoopFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "_SCAN_BYTES", 64)
    monkeypatch.setattr(eventlog, "_CHECKPOINT_BYTES", 64)
    monkeypatch.setattr(eventlog, "_MAX_CHECKPOINTS", 16)
    index = LogIndex(str(loop.log))
    for _ in range(40):
        loop.append(events(1, 20))
        index.refresh()
        assert len(index._checkpoints) <= 17


# --- an invariant --------------------------------------------------------------------------------------

_text = st.binary(max_size=40).map(lambda data: data.replace(b"\xff", b"\n"))
_step = st.one_of(
    st.tuples(st.just("append"), _text),
    st.tuples(st.just("truncate"), st.integers(0, 60)),
    st.tuples(st.just("replace"), _text),
    st.tuples(st.just("rewrite"), _text),
    st.tuples(st.just("delete"), st.just(b"")),
    st.tuples(st.just("look"), st.just(b"")),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(_step, max_size=12))
def test_index_equals_a_fresh_one_whatever_happened(steps: list[tuple[str, object]], tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"")
    index = LogIndex(str(path))
    for tick, (kind, value) in enumerate(steps):
        if kind == "delete":
            path.unlink()
            assert reason_of(index.refresh) == "events_missing"
            path.write_bytes(b"")
        elif kind == "truncate":
            assert isinstance(value, int)
            os.truncate(path, min(value, path.stat().st_size))
        elif isinstance(value, bytes) and kind == "append":
            with path.open("ab") as file:
                file.write(value)
        elif isinstance(value, bytes) and kind == "rewrite":
            path.write_bytes(value)
        elif isinstance(value, bytes) and kind == "replace":
            (tmp_path / "fresh").write_bytes(value)
            (tmp_path / "fresh").replace(path)
        # Changes of one size are told apart by their times, and the test is faster than that clock.
        os.utime(path, ns=(0, tick * 1_000_000_000))
        if kind == "look":
            assert described(index.refresh()) == described(LogIndex(str(path)).refresh())
    head = index.refresh()
    fresh = LogIndex(str(path))
    assert described(head) == described(fresh.refresh())
    data = path.read_bytes()
    lines = data.split(b"\n")[:-1]
    for line in range(len(lines) + 1):
        before = b"".join(item + b"\n" for item in lines[:line])
        assert index.place(head, line)[:2] == (line, len(before))
        assert index.place(head, line).digest == sha(before)
    filled = [(number, item) for number, item in enumerate(lines, 1) if item.strip()]
    assert index.last_line(head) == (filled[-1] if filled else None)
    index.close()
    fresh.close()
