"""A reader's way through a stream (architecture 6, remedies L3 and L4)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.core.cursor import Place
from manager.core.intake import Intake, Taken
from manager.core.sequence import LogChange, Numbers
from spritemesh.errors import OpsError
from superloop.ops.v1 import envelope_pb2 as pb
from tests.fakes.streams import FakeLog, Message


def place(log: FakeLog, line: int) -> Place:
    position = log.position(line)
    return Place(position.line, position.digest, position.first_line_digest)


def intake(log: FakeLog, start: int = 0, *, quarantine: bool = False) -> Intake:
    return Intake(place(log, start) if start else Place(), start_line=start, quarantine=quarantine)


def feed(reader: Intake, messages: list[Message]) -> Intake:
    for message in messages:
        reader.accept(message)
    return reader


def refusal(reader: Intake, messages: list[Message]) -> OpsError:
    with pytest.raises(OpsError) as caught:
        feed(reader, messages)
    return caught.value


def test_drained_stream_ends_at_the_head() -> None:
    log = FakeLog(5)
    reader = feed(intake(log), log.drained(size=2))
    reader.finish()
    assert reader.numbers == Numbers.of([1, 2, 3, 4, 5])
    assert reader.place == place(log, 5)
    assert (reader.offset, reader.line_count) == (5, 5)
    assert reader.last_event["sequence"]["value"] == 5


def test_stream_without_events_keeps_the_place() -> None:
    log = FakeLog(3)
    reader = feed(intake(log, 3), log.drained(3))
    assert (reader.numbers, reader.offset, reader.last_event) == (Numbers.of([]), 3, None)
    assert reader.place == place(log, 3)


def test_place_of_a_v1_cursor_gets_its_proof() -> None:
    log = FakeLog(3)
    reader = feed(Intake(Place(3), start_line=3), log.drained(3))
    assert reader.place == place(log, 3)


def test_trailing_blank_lines_are_read_but_not_counted_as_consumed() -> None:
    log = FakeLog(5, blank=[3, 5])
    reader = feed(intake(log), log.drained())
    assert (reader.offset, reader.place.line) == (4, 5)


def test_replayed_batch_is_dropped_and_counted() -> None:
    log = FakeLog(4)
    reader = feed(intake(log), [log.opened(), log.batch(1, 3), log.batch(2, 3), log.batch(4, 4)])
    assert (reader.numbers, reader.replayed) == (Numbers.of([1, 2, 3, 4]), 2)


def test_overlapping_batch_counts_only_what_is_new() -> None:
    log = FakeLog(4)
    reader = feed(intake(log), [log.opened(), log.batch(1, 3), log.batch(2, 4)])
    assert (reader.numbers, reader.replayed) == (Numbers.of([1, 2, 3, 4]), 2)


def test_gap_is_refused_before_the_place_moves() -> None:
    log = FakeLog(6)
    reader = intake(log)
    error = refusal(reader, [log.opened(), log.batch(1, 2), log.batch(4, 6)])
    assert error.reason == "event_sequence_gap"
    assert (reader.numbers, reader.place) == (Numbers.of([1, 2]), place(log, 2))


def test_bookmark_beyond_the_events_is_a_gap() -> None:
    log = FakeLog(6)
    error = refusal(intake(log), [log.opened(), log.batch(1, 2), log.bookmark()])
    assert error.reason == "event_sequence_gap"


def test_same_line_with_another_digest_is_refused() -> None:
    log, other = FakeLog(3), FakeLog(3, first="another")
    error = refusal(intake(log), [log.opened(), log.batch(1, 3), other.batch(1, 3)])
    assert error.reason == "service_response_invalid"


def test_reader_goes_on_after_a_gap_where_it_stopped() -> None:
    log = FakeLog(6)
    reader = intake(log)
    refusal(reader, [log.opened(), log.batch(1, 2), log.batch(4, 6)])
    reader.reopen()
    assert reader.resume() == log.position(2)
    feed(reader, log.drained(2)).finish()
    assert reader.numbers == Numbers.of([1, 2, 3, 4, 5, 6])


def test_invalid_line_fails_and_what_precedes_it_counts() -> None:
    log = FakeLog(4, blank=[3])
    reader = intake(log)
    error = refusal(reader, [log.opened(), log.invalid(3), log.batch(1, 4)])
    assert error.reason == "invalid_json_line"
    assert "line 3" in error.message
    assert reader.numbers == Numbers.of([1, 2])
    assert reader.place == Place()


def test_invalid_line_beyond_the_event_limit_is_not_met() -> None:
    log = FakeLog(4, blank=[3])
    messages = [
        log.opened(),
        log.invalid(3),
        log.batch(1, 2),
        log.bookmark(2),
        log.goodbye("max_events_reached"),
    ]
    reader = feed(intake(log), messages)
    reader.finish()
    assert (reader.numbers, reader.bad_lines) == (Numbers.of([1, 2]), [])


def test_quarantined_line_is_passed_with_its_facts() -> None:
    log = FakeLog(3, blank=[3])
    reader = feed(
        intake(log, quarantine=True), [log.opened(), log.invalid(3), log.batch(1, 3), log.bookmark()]
    )
    assert reader.offset == 3
    assert reader.bad_lines[0]._asdict() == {
        "line": 3,
        "size_bytes": 7,
        "sha256": "03" * 32,
        "reason": "invalid_json_line",
        "prefix": "{broken",
    }


def test_quarantined_line_told_again_is_kept_once() -> None:
    log = FakeLog(3, blank=[2])
    once = [log.invalid(2), log.batch(1, 3)]
    reader = feed(intake(log, quarantine=True), [log.opened(), *once, *once])
    assert [bad.line for bad in reader.bad_lines] == [2]


@pytest.mark.parametrize(
    ("reason", "verdict"), [("replaced", "log_replaced"), ("rewritten", "log_rewritten")]
)
def test_reset_starts_over_from_the_beginning(reason: str, verdict: str) -> None:
    old, new = FakeLog(5), FakeLog(2, first="another")
    reader = feed(intake(old, 5), [new.opened(), new.reset(reason, 5), *new.drained()[1:]])
    assert reader.change is not None
    assert reader.change.document() == {"verdict": verdict, "previousLine": 5, "line": 2}
    assert (reader.numbers, reader.place) == (Numbers.of([1, 2]), place(new, 2))


@pytest.mark.parametrize(("reason", "code"), [("truncated", "log_truncated"), ("ahead", "cursor_ahead")])
def test_log_shorter_than_the_place_is_refused_with_both_numbers(reason: str, code: str) -> None:
    log = FakeLog(2)
    reader = Intake(Place(5), start_line=5)
    error = refusal(reader, [log.opened(), log.reset(reason, 5)])
    assert error.reason == code
    assert "5" in error.message
    assert "2" in error.message
    assert (reader.change is not None) == (reason == "truncated")


def test_stream_without_goodbye_is_broken() -> None:
    log = FakeLog(2)
    reader = feed(intake(log), log.drained()[:-1])
    with pytest.raises(OpsError, match="goodbye"):
        reader.finish()


def test_unplanned_goodbye_is_refused_with_its_reason() -> None:
    log = FakeLog(2)
    assert refusal(intake(log), [log.opened(), log.goodbye("agent_draining")]).reason == "agent_draining"


def test_stream_must_begin_with_opened() -> None:
    log = FakeLog(2)
    assert refusal(intake(log), [log.batch(1, 2)]).reason == "service_response_invalid"


def test_message_of_unknown_kind_is_refused() -> None:
    assert refusal(intake(FakeLog(1)), [Message()]).reason == "service_response_invalid"


def test_events_of_a_v1_service_are_taken_as_they_come() -> None:
    log = FakeLog(9)
    messages = [log.opened()]
    for line in (6, 0, 3):
        message = Message()
        message.batch.CopyFrom(pb.EventBatch(first_line=line, last_line=line, line_count=9))
        message.batch.events.add(line=line, name="x", raw="{}")
        messages.append(message)
    bookmark = Message()
    bookmark.bookmark.position.line = 7
    reader = feed(intake(log), [*messages, bookmark])
    assert reader.numbers == Numbers.of([6, None, 3])
    assert (reader.offset, reader.place) == (7, Place(7))


cuts = st.lists(st.integers(1, 12), max_size=6)


@given(st.integers(1, 12), st.sets(st.integers(2, 12)), cuts, st.integers(0, 12))
def test_any_cutting_into_batches_and_streams_gives_every_event_once(
    count: int, blank: set[int], at: list[int], break_at: int
) -> None:
    log = FakeLog(count, blank=blank)
    ends = sorted({cut for cut in at if cut < count} | {count})
    ranges = [(before + 1, end) for before, end in zip([0, *ends], ends, strict=False)]
    reader = intake(log)
    feed(reader, [log.opened(), *(log.batch(*span) for span in ranges if span[1] <= break_at)])
    # The connection breaks; the agent sends from its own idea of a batch start, overlapping or not.
    reader.reopen()
    resumed = reader.place.line
    feed(reader, [log.opened(resumed), *(log.batch(*span) for span in ranges), log.bookmark(), log.goodbye()])
    reader.finish()
    expected = [number for number in range(1, count + 1) if number not in blank]
    assert reader.numbers == Numbers.of(expected)
    assert reader.place == place(log, count)
    assert reader.offset == (expected[-1] if expected else 0)


def bookmark_with_snapshot(log: FakeLog, line: int) -> Message:
    message = log.bookmark(line)
    message.bookmark.snapshot.CopyFrom(FakeLog(line).snapshot())
    return message


def test_snapshot_of_a_bookmark_holds_only_until_the_next_events() -> None:
    log = FakeLog(5)
    reader = feed(intake(log), [log.opened(), log.batch(1, 2), bookmark_with_snapshot(log, 2)])
    assert reader.snapshot is not None
    feed(reader, [log.batch(3, 5), log.bookmark(5)])
    assert reader.snapshot is None


def test_replayed_batch_leaves_the_snapshot_that_holds() -> None:
    log = FakeLog(2)
    reader = feed(intake(log), [log.opened(), log.batch(1, 2), bookmark_with_snapshot(log, 2)])
    assert feed(reader, [log.batch(1, 2)]).snapshot is not None


def test_snapshot_of_an_earlier_line_is_not_taken() -> None:
    log = FakeLog(5)
    feed(reader := intake(log), [log.opened(), log.batch(1, 5), bookmark_with_snapshot(log, 2)])
    assert reader.snapshot is None


def test_snapshot_does_not_outlive_its_log() -> None:
    log = FakeLog(2)
    reader = feed(intake(log), [log.opened(), log.batch(1, 2), bookmark_with_snapshot(log, 2)])
    assert feed(reader, [log.reset("replaced", 2)]).snapshot is None


def test_what_was_taken_is_forgotten_and_the_place_is_not() -> None:
    log = FakeLog(4, blank=[2])
    bookmark = log.bookmark()
    bookmark.bookmark.snapshot.CopyFrom(log.snapshot())
    reader = feed(
        intake(log, quarantine=True),
        [log.opened(), log.invalid(2), log.batch(1, 4), log.batch(1, 2), bookmark],
    )
    taken = reader.take()
    assert taken.numbers == Numbers.of([1, 3, 4])
    assert taken.last_event["sequence"]["value"] == 4
    assert taken.snapshot is not None
    assert (taken.replayed, [bad.line for bad in taken.bad_lines]) == (1, [2])
    assert (reader.place, reader.offset) == (place(log, 4), 4)
    assert reader.take() == Taken()


def test_event_that_cannot_be_told_is_counted_all_the_same() -> None:
    log = FakeLog(1)
    batch = log.batch(1, 1)
    batch.batch.events[0].raw = "{no json"
    taken = feed(intake(log), [log.opened(), batch]).take()
    assert (taken.numbers.events, taken.last_event) == (1, None)
    assert taken.problem == "service_response_invalid"


def test_truncated_log_is_read_anew_where_that_was_asked_for() -> None:
    log = FakeLog(3)
    reader = Intake(place(FakeLog(5), 5), start_line=5, start_over=True)
    feed(reader, [log.opened(), log.reset("truncated", 5), log.batch(1, 3)])
    assert reader.change == LogChange("log_truncated", 5, 3)
    assert (reader.place, reader.numbers.events) == (place(log, 3), 3)


def test_line_passed_before_a_reset_stays_on_record_and_one_told_of_does_not() -> None:
    log, another = FakeLog(4, blank=[2, 4]), FakeLog(2, first="another")
    reader = intake(log, quarantine=True)
    feed(reader, [log.opened(), log.invalid(2), log.batch(1, 3), log.invalid(4)])
    feed(reader, [another.reset("replaced", 3), another.batch(1, 2)])
    assert [bad.line for bad in reader.bad_lines] == [2]


def test_resets_that_no_step_has_told_of_are_all_kept() -> None:
    log = FakeLog(2)
    reader = Intake(place(FakeLog(5), 5), start_line=5, start_over=True)
    feed(reader, [log.opened(), log.reset("truncated", 5), log.batch(1, 2), log.reset("replaced", 2)])
    change = reader.take().change
    assert change is not None
    assert change.verdicts == ("log_truncated", "log_replaced")
    feed(reader, [log.batch(1, 2), log.reset("replaced", 2)])
    change = reader.take().change
    assert change is not None
    assert change.verdicts == ("log_replaced",)
