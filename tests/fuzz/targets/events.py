"""Whole event logs: the agent's index, events and feed, then the manager's intake and step.

An input is the content of events.jsonl. What must hold, whatever stands there:

- ranges of batches cover each complete line once, in order, and prove it by the digest of the file;
- a line is an event, blank, or an InvalidLine with a code of the table, by rules that `json` of the standard
  library agrees with;
- what an event carries is the line's own text;
- read in pieces cut anywhere, or from any batch's end on, the log says the same;
- the manager comes to the same place, and makes documents of it that JSON can hold.
"""

import hashlib
import json
import random
import zlib
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from manager.core.facts import Arrived, Known
from manager.core.intake import Intake
from manager.core.observe import observe
from sprite_agent.runtime.feed import EventFeed, FeedOptions
from sprite_agent.runtime.lines import grant_batch_bytes
from sprite_agent.runtime.loop import LoopReader
from spritemesh import jsontext
from spritemesh.bridge import event_documents, snapshot_to_json
from spritemesh.errors import OpsError
from spritemesh.reasons import REASONS
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2
from tests.fuzz.checks import check_json
from tests.fuzz.driver import Run, Target
from tests.harness.loops import LoopFiles, Repo
from tests.unit.core.test_observe import SETTINGS

_WORDS = (
    b'{"timestamp":"2024-03-11T09:00:00Z","event":"loop_stop"}\n',
    b'"event":', b'"type":', b'"timestamp":', b'"run_id":', b'"iteration":', b'"role":', b'"status":',
    b'"message":', b'"data":', b'"loop_start"', b'"role_end"', b'"blocked"', b"{}\n", b"[]\n", b"\n\n",
    b"}\n{", b"}{", b"},\n", b'\\"', b"\\u0000", b"\\ud83d\\ude00", b"\\ud83d", b"\\n", b" " * 70000,
)  # fmt: skip
_REFUSED = frozenset(
    {
        "invalid_json_line",
        "line_not_object",
        "line_too_long",
        "missing_event_name",
        "missing_event_timestamp",
    }
)
# Of a snapshot whose last event has a run id of true (contract B.2).
_ODD_MEMBER = "artifact_invalid"
_STAMP = 1_710_147_600.0
_ROUNDS = 10_000

Message = sprite_pb2.WatchEventsResponse


class Told(NamedTuple):
    """What a feed told of one line. text: of an event, "" for a refused line, of which reason tells."""

    line: int
    text: str
    reason: str


class _Log:
    """A loop whose log is written anew for each input."""

    def __init__(self, directory: Path) -> None:
        self.files: LoopFiles = Repo(directory / "repo").loop("alpha")

    def reader(self) -> LoopReader:
        return LoopReader(str(self.files.repo), "alpha", clock=lambda: _STAMP)

    def run(self, data: bytes) -> Iterator[Hashable]:
        self.files.log.write_bytes(data)
        reader = self.reader()
        rng = random.Random(zlib.crc32(data))
        messages = list(_read(reader.feed(FeedOptions())))
        told = list(_told(messages))
        yield from {(entry.reason, bool(entry.text)) for entry in told}
        _check_ranges(data, messages)
        _check_lines(data, told)
        _check_documents(messages)
        self._check_pieces(data, told, rng)
        self._check_resumed(data, messages, told, rng)
        yield from _managed(reader, messages, told)
        reader.close()

    def _check_pieces(self, data: bytes, whole: list[Told], rng: random.Random) -> None:
        """The log as it grows, with reads in between, in batches of another size."""
        cuts = sorted(rng.randint(0, len(data)) for _ in range(rng.randint(1, 4)))
        log = self.files.log
        log.write_bytes(b"")
        reader = self.reader()
        feed = reader.feed(FeedOptions(follow=True, batch_bytes=grant_batch_bytes(rng.choice((1, 5000)))))
        messages = feed.open(None)
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            self.files.append(data[start:end])
            messages += _drained(feed)
        _check_ranges(data, messages)
        assert list(_told(messages)) == whole, "in pieces, the log reads otherwise"
        reader.close()

    def _check_resumed(
        self, data: bytes, messages: list[Message], whole: list[Told], rng: random.Random
    ) -> None:
        """From the end of a batch on, by a reader that has just begun."""
        ends = [message for message in messages if message.HasField("batch")]
        if not ends:
            return
        last = rng.choice(ends).batch
        after = pb.LogPosition(line=last.last_line, digest=last.end_digest)
        self.files.log.write_bytes(data)
        reader = self.reader()
        rest = list(_read(reader.feed(FeedOptions()), after))
        assert not any(message.HasField("log_reset") for message in rest), (
            "its own place does not fit the log"
        )
        assert list(_told(rest)) == [entry for entry in whole if entry.line > last.last_line]
        reader.close()


def _read(feed: EventFeed, after: pb.LogPosition | None = None) -> Iterator[Message]:
    yield from feed.open(after)
    yield from _drained(feed)
    yield feed.bookmark()
    yield feed.goodbye(feed.end_reason())


def _drained(feed: EventFeed) -> list[Message]:
    found: list[Message] = []
    for _ in range(_ROUNDS):
        messages = feed.read()
        if not messages:
            return found
        found += messages
    raise AssertionError("the feed comes to no end")


def _told(messages: list[Message]) -> Iterator[Told]:
    for message in messages:
        if message.HasField("invalid_line"):
            yield Told(message.invalid_line.line, "", message.invalid_line.reason)
        for event in message.batch.events:
            yield Told(event.line, event.raw, "")


def _check_ranges(data: bytes, messages: list[Message]) -> None:
    lines = data.split(b"\n")[:-1]
    hasher, reached = hashlib.sha256(), 0
    for message in messages:
        if message.HasField("batch"):
            batch = message.batch
            assert batch.first_line == reached + 1, f"line {reached + 1} is not covered, or twice"
            assert batch.last_line >= batch.first_line
            for line in lines[reached : batch.last_line]:
                hasher.update(line + b"\n")
            reached = batch.last_line
            assert batch.end_digest == hasher.digest(), f"another digest after line {reached}"
            numbers = [event.line for event in batch.events]
            assert numbers == sorted(set(numbers))
            assert not numbers or batch.first_line <= numbers[0] <= numbers[-1] <= reached
        elif message.HasField("invalid_line"):
            bad = message.invalid_line
            assert reached < bad.line <= len(lines), "an invalid line comes after its batch"
            line = lines[bad.line - 1]
            assert (bad.size_bytes, bad.sha256) == (len(line), hashlib.sha256(line).digest())
    assert reached == len(lines), f"{reached} of {len(lines)} lines are covered"


def _check_lines(data: bytes, told: list[Told]) -> None:
    lines = data.split(b"\n")[:-1]
    numbers = [entry.line for entry in told]
    wanted = [number for number, line in enumerate(lines, 1) if line.strip()]
    assert numbers == wanted, "a line is told of never or twice, or out of order"
    for entry in told:
        line = lines[entry.line - 1]
        if entry.reason:
            assert entry.reason in _REFUSED
            assert entry.reason in REASONS
        else:
            assert entry.text == line.decode("utf-8", "replace"), "an event's text is not its line"
        expected = _is_event(line)
        assert expected is None or expected == (not entry.reason), f"line {entry.line}: {entry.reason}"


def _is_event(line: bytes) -> bool | None:
    """Whether a line is an event, by another parser; None where that is not plain."""
    try:
        value: Any = json.loads(line.decode("utf-8", "replace"), parse_constant=_no_constant, parse_int=str)
    except RecursionError:
        return None
    except ValueError:
        return False
    if not isinstance(value, dict):
        return False
    name, timestamp = value.get("event") or value.get("type"), value.get("timestamp")
    plain = all(isinstance(found, str) and found.strip("\0\n") for found in (name, timestamp))
    return True if plain and line.count(b"[") + line.count(b"{") < 100 else None


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _check_documents(messages: list[Message]) -> None:
    for message in messages:
        for document, event in zip(event_documents(message.batch), message.batch.events, strict=True):
            check_json(jsontext.encode_ascii(document))
            assert document["event"]["raw"] == jsontext.parse(event.raw)


def _managed(reader: LoopReader, messages: list[Message], told: list[Told]) -> Iterator[Hashable]:
    """The manager's way through the same messages."""
    careful, patient = (Intake(Known().cursor.place, start_line=0, quarantine=way) for way in (False, True))
    bad = next((entry for entry in told if entry.reason), None)
    try:
        for message in messages:
            careful.accept(message)
        assert bad is None, "a bad line was passed"
    except OpsError as error:
        assert bad is not None
        assert error.reason == bad.reason
    for message in messages:
        patient.accept(message)
    patient.finish()
    taken, head = patient.take(), reader.head()
    assert (patient.place.line, patient.place.digest) == (
        head.line,
        head.digest if head.line else patient.place.digest,
    )
    assert taken.numbers.events == sum(not entry.reason for entry in told)
    assert [(found.line, found.reason) for found in taken.bad_lines] == [
        (entry.line, entry.reason) for entry in told if entry.reason
    ]
    assert not taken.problem
    try:
        snapshot = reader.snapshot()
        yield snapshot.run.status
        check_json(jsontext.encode_ascii(snapshot_to_json(snapshot)))
    except OpsError as error:
        assert error.reason in _REFUSED | {_ODD_MEMBER}
        assert "events.jsonl" in error.message
        yield f"snapshot {error.reason}"
    yield from _stepped(reader, patient, taken)


def _stepped(reader: LoopReader, intake: Intake, taken: Any) -> Iterator[Hashable]:
    try:
        snapshot = reader.snapshot(pass_invalid_lines=True)
    except OpsError as error:
        assert error.reason == _ODD_MEMBER, error
        return
    arrived = Arrived(
        snapshot=snapshot,
        last_event=taken.last_event,
        numbers=taken.numbers,
        offset=intake.offset,
        place=intake.place,
        line_count=intake.line_count,
        bad_lines=taken.bad_lines,
    )
    known = Known(reconcile_rows=[], control_rows=[])
    outcome = observe(known, arrived, SETTINGS, started_at=_STAMP, now=_STAMP + 1)
    for document in outcome:
        if isinstance(document, dict):
            check_json(jsontext.encode(document))
    assert outcome.failure_code == "", outcome.reconcile_row
    yield outcome.health["status"]


@contextmanager
def _opened(directory: Path) -> Iterator[Run]:
    yield _Log(directory).run


TARGET = Target("events", _opened, _WORDS)
