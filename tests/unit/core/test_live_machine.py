"""Order, exactly: every complete line is applied once and in order, whatever happens between log and disk.

A real log on disk, read by the agent's own feed, is followed by the manager's core, whose documents are put
on disk as a session puts them there. Appends, replays, lost batches, cut connections, restarts of agent and
manager, a full disk and three ways to change the log come in any order. `Truth` is kept beside, from the
messages alone.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from pathlib import Path
from typing import NamedTuple

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from manager.core.live import LiveLoop
from manager.core.session_record import session_document
from manager.core.step import Step
from manager.fleet.commits import SessionStore, Write
from manager.store import LoopStore
from manager.store.paths import LoopFiles, loop_files
from sprite_agent.runtime.feed import EventFeed, FeedOptions
from sprite_agent.runtime.identity import Identity
from sprite_agent.runtime.loop import LoopReader
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc
from spritemesh.values import get
from superloop.ops.v1 import sprite_pb2
from tests.fakes.streams import LOOP
from tests.harness.loops import Repo, event
from tests.unit.core.test_observe import SETTINGS

Message = sprite_pb2.WatchEventsResponse
_Reason = sprite_pb2.LogReset
_REGRESSIONS = (_Reason.REASON_TRUNCATED, _Reason.REASON_REWRITTEN)
# So few that batches end in many places.
BATCH_BYTES = 400


class Truth(NamedTuple):
    """What the manager has been sent. applied: events of the log that is there, number and text. passed:
    lines that are no events, of all logs. owes: the log went back, and no step has told so. behind: it went
    back, and no snapshot has been projected."""

    lineage: int = 0
    applied: tuple[tuple[int, str], ...] = ()
    passed: frozenset[tuple[int, str]] = frozenset()
    owes: bool = False
    behind: bool = False


class Agent:
    """Reads the log as an agent does. A restarted one remembers nothing."""

    def __init__(self, repo: Path, boot: int, now: float) -> None:
        self.reader = LoopReader(
            str(repo), LOOP, identity=lambda: Identity(f"boot-{boot}"), clock=lambda: now
        )

    def feed(self) -> EventFeed:
        return self.reader.feed(FeedOptions(follow=True, trace_id="t", batch_bytes=BATCH_BYTES))


class Log:
    """The log on disk, and every state it was in. Each write has a time of its own, as on a slower disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[bytes] = []
        self.torn = b""
        self.versions: dict[bytes, tuple[bytes, ...]] = {}
        self._writes = 0
        self._numbers = 0
        self.replace([])

    def event(self, name: str = "role_end") -> bytes:
        self._numbers += 1
        return event(self._numbers, name)

    def append(self, lines: list[bytes], torn: bytes = b"") -> None:
        data = b"".join(lines)
        with self.path.open("ab") as file:
            file.write(data + torn)
        whole = (self.torn + data + torn).split(b"\n")
        self.torn = whole.pop()
        self.lines += [line + b"\n" for line in whole]
        self._written()

    def truncate(self, count: int) -> None:
        self.lines, self.torn = self.lines[:count], b""
        os.truncate(self.path, len(b"".join(self.lines)))
        self._written()

    def replace(self, lines: list[bytes]) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(b"".join(lines))
        fresh.replace(self.path)
        self.lines, self.torn = list(lines), b""
        self._written()

    def fits(self, place: bytes) -> bool:
        """Whether the log begins with what had the digest `place`."""
        before = self.versions[place]
        return tuple(self.lines[: len(before)]) == before

    def events(self) -> tuple[tuple[int, str], ...]:
        numbered = enumerate(self.lines, 1)
        return tuple((number, line[:-1].decode()) for number, line in numbered if _is_event(line))

    def bad_lines(self) -> set[tuple[int, str]]:
        numbered = enumerate(self.lines, 1)
        bad = ((number, line[:-1]) for number, line in numbered if line.strip() and not _is_event(line))
        return {(number, hashlib.sha256(line).hexdigest()) for number, line in bad}

    def _written(self) -> None:
        self._writes += 1
        os.utime(self.path, ns=(self._writes, self._writes))
        hasher = hashlib.sha256()
        self.versions[hasher.digest()] = ()
        for count, line in enumerate(self.lines, 1):
            hasher.update(line)
            self.versions.setdefault(hasher.digest(), tuple(self.lines[:count]))


class Manager:
    """The core and its files. A killed one leaves its files."""

    def __init__(self, store: LoopStore, now: float) -> None:
        self.store = store
        self.documents = SessionStore(store)
        self.loop = LiveLoop(SETTINGS, store.read_standing(), now)

    def remember(self) -> None:
        if self.loop.is_whole:
            self.loop.remember(self.store.read_known(SETTINGS.window))

    def put(self, step: Step, now: float, *, most: int | None = None) -> bool:
        """Put the step's documents in place; the first `most` of them. Returns whether that was all."""
        write = Write(self.documents, step, self.loop.settings, session_document(self.loop, now))
        documents = self.documents.documents(write)
        for path, data in documents[:most]:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(data)
        return most is None or most >= len(documents)


LINES = st.lists(st.sampled_from(["event", "event", "event", "blank", "invalid"]), min_size=1, max_size=9)


class OrderMachine(RuleBasedStateMachine):
    """See the module."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="order-"))
        repo = Repo(self.root)
        repo.put("state.json", {"active": True})
        self.log = Log(repo.loop(LOOP).log)
        self.now = 1_000_000.0
        self.boots = 0
        self.feed: EventFeed | None = None
        self.wire: deque[Message] = deque()
        self.delivered: list[Message] = []  # batches of this connection, of the log that is there
        self.held: set[tuple[int, str]] = set()  # lines that are no events, told of on this connection
        self.store = LoopStore(loop_files(str(self.root), LOOP))
        self.truth = self.committed = Truth()
        self.pending: tuple[Step, Truth, Truth] | None = None
        self.quarantine: set[tuple[int, str]] = set()
        self.lineages = 0
        self.tore_documents = self.has_torn = self.went_back = False
        self.agent = Agent(self.root, self.boots, self.now)
        self.manager = Manager(self.store, self.now)

    def teardown(self) -> None:
        if hasattr(self, "root"):
            self.agent.reader.close()
            shutil.rmtree(self.root)

    # --- the log ------------------------------------------------------------------------------------

    def lines(self, kinds: list[str]) -> list[bytes]:
        made = []
        for kind in kinds:
            line = b"\n" if kind == "blank" else self.log.event()
            made.append(b"{" + line[:40] + b"\n" if kind == "invalid" else line)
        return made

    @rule(kinds=LINES)
    def append(self, kinds: list[str]) -> None:
        self.log.append(self.lines(kinds))

    @rule(cut=st.integers(1, 30))
    def append_torn(self, cut: int) -> None:
        line = self.log.event()
        self.log.append([], torn=line[:cut])
        self.rest = line[cut:]

    @precondition(lambda self: self.log.torn and getattr(self, "rest", b""))
    @rule()
    def complete_torn(self) -> None:
        self.log.append([], torn=self.rest)
        self.rest = b""

    @precondition(lambda self: len(self.log.lines) > 1)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        self.log.truncate(data.draw(st.integers(0, len(self.log.lines) - 1)))
        self.changed()

    @rule(kinds=LINES, empty=st.sampled_from([False, False, True]))
    def replace(self, kinds: list[str], *, empty: bool) -> None:
        self.log.replace([] if empty else [self.log.event("loop_start"), *self.lines(kinds)])
        self.changed()

    @precondition(lambda self: len(self.log.lines) > 1)
    @rule(kinds=LINES)
    def rewrite(self, kinds: list[str]) -> None:
        self.log.replace([self.log.lines[0], *self.lines(kinds)])
        self.changed()

    def changed(self) -> None:
        self.rest = b""
        self.went_back = True

    # --- the way ------------------------------------------------------------------------------------

    @precondition(lambda self: self.feed is None)
    @rule()
    def connect(self) -> None:
        loop = self.manager.loop
        loop.open("t", self.now)
        self.open_stream()

    def open_stream(self) -> None:
        self.feed = self.agent.feed()
        self.delivered.clear()
        self.held.clear()
        wanted = self.manager.loop.intake.resume()
        fits = wanted is None or self.log.fits(wanted.digest)
        messages = self.feed.open(wanted)
        assert [m.WhichOneof("payload") for m in messages] == ["opened", *([] if fits else ["log_reset"])]
        self.check_reset(messages)
        self.wire = deque(messages)

    @precondition(lambda self: self.feed is not None)
    @rule()
    def read(self) -> None:
        """The agent sends what there is, or else a bookmark."""
        feed = self.feed
        assert feed is not None
        fits = self.log.fits(feed.position.digest)
        messages = feed.read()
        assert fits or messages[0].HasField("log_reset")
        self.check_reset(messages)
        self.wire += messages or [feed.bookmark()]

    def check_reset(self, messages: list[Message]) -> None:
        for message in messages:
            if message.HasField("log_reset"):
                before, lines = self.log.versions[message.log_reset.requested.digest], self.log.lines
                another = not lines or before[0] != lines[0]
                shorter = len(lines) < len(before)
                expected = _Reason.REASON_TRUNCATED if shorter else _Reason.REASON_REWRITTEN
                assert message.log_reset.reason == (_Reason.REASON_REPLACED if another else expected)

    @precondition(lambda self: self.wire)
    @rule(count=st.integers(1, 12), overlap=st.booleans())
    def deliver(self, count: int, *, overlap: bool) -> None:
        """overlap: batches begin with lines that are here already."""
        for _ in range(min(count, len(self.wire))):
            if not self.wire:
                return
            message = self.wire.popleft()
            self.accept(self.overlapping(message) if overlap and message.HasField("batch") else message)

    def overlapping(self, message: Message) -> Message:
        before = [
            found.batch for found in self.delivered if found.batch.last_line + 1 == message.batch.first_line
        ]
        joined = Message()
        joined.CopyFrom(message)
        if before:
            joined.batch.first_line = before[0].first_line
            del joined.batch.events[:]
            joined.batch.events.extend([*before[0].events, *message.batch.events])
        return joined

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        self.accept(data.draw(st.sampled_from(self.delivered)))

    @precondition(lambda self: any(message.HasField("batch") for message in self.wire))
    @rule()
    def lose_batch(self) -> None:
        self.wire.remove(next(message for message in self.wire if message.HasField("batch")))

    @precondition(lambda self: self.feed is not None)
    @rule()
    def cut(self) -> None:
        self.lose_connection(OpsError("stream_broken", "cut"))

    def lose_connection(self, error: OpsError) -> None:
        self.manager.loop.down(error, self.now + 1, self.now)
        self.hang_up()

    def hang_up(self) -> None:
        self.feed = None
        self.wire.clear()
        self.delivered.clear()

    def accept(self, message: Message) -> None:
        loop = self.manager.loop
        before, place = loop.intake.numbers.events, loop.intake.place.line
        try:
            loop.accept(message, self.now)
        except OpsError as error:
            if error.reason != "event_sequence_gap" or loop.intake.place.line != place:
                raise
            loop.intake.reopen()
            self.open_stream()
            return
        if message.HasField("opened"):
            loop.up(message.opened, self.now)
            if loop.known.state is None:
                loop.offer(self.agent.reader.snapshot(pass_invalid_lines=True), self.now)
        elif message.HasField("log_reset"):
            self.lineages += 1
            regressed = message.log_reset.reason in _REGRESSIONS
            self.truth = Truth(
                self.lineages,
                owes=self.truth.owes or regressed,
                behind=self.truth.behind or regressed,
                passed=self.truth.passed,
            )
            self.delivered.clear()
            self.held.clear()
        elif message.HasField("batch"):
            new = [found for found in message.batch.events if found.line > place]
            assert loop.intake.numbers.events - before == len(new)
            self.truth = self.truth._replace(
                applied=(*self.truth.applied, *((found.line, found.raw) for found in new)),
                passed=self.truth.passed | {bad for bad in self.held if bad[0] <= message.batch.last_line},
            )
            if new:
                assert loop.intake.numbers.last == new[-1].line
            if message not in self.delivered:
                self.delivered.append(message)
        elif message.HasField("invalid_line"):
            self.held.add((message.invalid_line.line, message.invalid_line.sha256.hex()))

    # --- the disk -----------------------------------------------------------------------------------

    @precondition(lambda self: self.pending is None and self.manager.loop.due_at() is not None)
    @rule()
    def step(self) -> None:
        manager, truth, committed = self.manager, self.truth, self.committed
        self.now += 1  # so that what is of this step can be told by its time
        manager.remember()
        drifted = get(manager.loop.known.sequence, "driftActive") is True
        step = manager.loop.step(self.now)
        outcome, order = step.outcome, step.outcome.sequence
        # What this step brings, no more and no less.
        known = len(committed.applied) if truth.lineage == committed.lineage else 0
        assert (get(order, "events", "ingestedCount") or 0) == len(truth.applied) - known
        # The log went back, exactly then there is drift, and once it is told.
        violations = get(order, "violations") or []
        assert bool(violations) == truth.owes, violations
        told = [row["category"] for row in outcome.escalations]
        assert ("ordering_drift_detected" in told) == (truth.owes and not drifted)
        may_diverge = truth.behind or (self.tore_documents and self.went_back)
        assert may_diverge or "divergence_detected" not in told
        self.truth = truth._replace(owes=False, behind=truth.behind and not _is_projected(step))
        self.pending = (step, truth, self.truth)

    @precondition(lambda self: self.pending is not None)
    @rule()
    def commit(self) -> None:
        assert self.pending is not None
        step, _, told = self.pending
        self.quarantine |= _quarantined(step)
        assert self.manager.put(step, self.now)
        self.manager.loop.written(step, telemetry_writable=True)
        self.committed, self.pending = told, None
        if _is_projected(step):
            self.tore_documents = self.went_back = False

    @precondition(lambda self: self.pending is not None)
    @rule(told=st.booleans())
    def fail(self, *, told: bool) -> None:
        """The disk is full: before the rows, or after them."""
        assert self.pending is not None
        step, before, _ = self.pending
        if told:
            self.quarantine |= _quarantined(step)
        self.manager.documents.forget()
        self.manager.loop.failed(OpsError("state_unwritable", "no space"), self.now)
        self.truth = self.truth._replace(
            owes=self.truth.owes or before.owes, behind=self.truth.behind or before.behind
        )
        self.pending = None

    @rule(documents=st.integers(0, 8))
    def kill_manager(self, documents: int) -> None:
        """At any moment: in the midst of a commit, so many of its documents are in place."""
        self.hang_up()
        if self.pending is not None:
            step, _, told = self.pending
            self.quarantine |= _quarantined(step)
            if self.manager.put(step, self.now, most=documents):
                self.committed = told
            else:
                self.tore_documents = self.has_torn = True
            self.pending = None
        self.truth = self.committed
        self.manager = Manager(self.store, self.now)

    # --- several at once, so that what takes many steps is met often ----------------------------------

    @rule(kinds=LINES)
    def keep_up(self, kinds: list[str]) -> None:
        """As on most days: what is appended arrives and is stepped."""
        if self.pending is not None:
            self.commit()
        if self.feed is None:
            self.connect()
        self.append(kinds)
        self.read()
        self.deliver(len(self.wire), overlap=False)
        if self.manager.loop.due_at() is not None:
            self.step()

    @rule(kinds=LINES, documents=st.integers(1, 6))
    def kill_amid_pass(self, kinds: list[str], documents: int) -> None:
        if self.feed is not None:
            self.cut()
        self.keep_up(kinds)
        self.kill_manager(documents)

    @precondition(lambda self: self.feed is not None and len(self.log.lines) > 1)
    @rule(kinds=LINES, failed=st.booleans())
    def regress_then_replace(self, kinds: list[str], *, failed: bool) -> None:
        """Before it could be told that the log went back, it is another one."""
        if self.pending is not None:
            self.commit()
        self.rewrite(kinds)
        self.read()
        self.deliver(len(self.wire), overlap=False)
        if failed:
            self.step()
            self.fail(told=False)
        self.replace(kinds, empty=False)
        self.read()
        self.deliver(len(self.wire), overlap=False)

    # --- time and agents ----------------------------------------------------------------------------

    @rule()
    def restart_agent(self) -> None:
        if self.feed is not None:
            self.lose_connection(OpsError("stream_broken", "the agent is gone"))
        self.agent.reader.close()
        self.boots += 1
        self.agent = Agent(self.root, self.boots, self.now)

    @rule(seconds=st.sampled_from([0.01, 0.3, 20.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.manager.loop.tick(self.now)

    # --- what holds ---------------------------------------------------------------------------------

    @invariant()
    def applied_lines_count_up(self) -> None:
        numbers = [line for line, _ in self.truth.applied]
        assert numbers == sorted(set(numbers))

    @invariant()
    def place_covers_what_was_applied(self) -> None:
        intake = self.manager.loop.intake
        read = self.log.versions[intake.place.digest or hashlib.sha256().digest()]
        assert len(read) == intake.place.line
        if self.truth.applied:
            assert self.truth.applied[-1][0] <= intake.place.line

    @rule()
    def settle(self) -> None:
        """Everything arrives and is written; then a manager that reads from the start knows the same."""
        if self.pending is not None:
            self.commit()
        for _ in range(2):  # a pass after the last change of the log, so that drift is over
            if self.feed is not None:
                self.cut()
            self.connect()
            self.drain()
        assert self.truth.applied == self.log.events()
        assert self.quarantine >= self.truth.passed >= self.log.bad_lines()
        fresh = self.read_from_start()
        ours, theirs = _compared(self.store.read_known(1).state), _compared(fresh.read_known(1).state)
        if self.has_torn and ours["event"] is None:
            # It told of a line that no cursor had passed, and that was gone when it was looked for again.
            for told in (ours, theirs):
                del told["event"], told["transition"]
        assert ours == theirs
        assert self.store.read_cursor() == fresh.read_cursor()

    def drain(self) -> None:
        for _ in range(100):
            self.read()
            while self.wire:
                self.accept(self.wire.popleft())
            if self.manager.loop.due_at() is None:
                assert self.manager.loop.intake.place.line == len(self.log.lines)
                return
            self.step()
            self.commit()
        raise AssertionError("it never settles")

    def read_from_start(self) -> LoopStore:
        """The files of a second manager, which nothing happened to."""
        directory = self.root / "fresh"
        shutil.rmtree(directory, ignore_errors=True)
        paths = loop_files(str(self.root), LOOP)._asdict()
        elsewhere = {name: str(directory / os.path.basename(path)) for name, path in paths.items()}
        manager = Manager(LoopStore(LoopFiles(**elsewhere)), self.now)
        loop = manager.loop
        for _ in range(2):
            feed = self.agent.feed()
            loop.open("t", self.now)
            messages = feed.open(loop.intake.resume())
            loop.up(messages[0].opened, self.now)
            while messages:
                for message in messages:
                    loop.accept(message, self.now)
                messages = feed.read()
            loop.accept(feed.bookmark(), self.now)
            while loop.due_at() is not None:
                manager.remember()
                step = loop.step(self.now)
                assert manager.put(step, self.now)
                loop.written(step, telemetry_writable=True)
        return manager.store


def _is_event(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _is_projected(step: Step) -> bool:
    return bool(get(step.outcome.state, "generatedAt") == format_utc(step.now))


def _quarantined(step: Step) -> set[tuple[int, str]]:
    return {(row["line"], row["sha256"]) for row in step.outcome.quarantine_rows}


def _compared(state: JSON) -> dict[str, JSON]:
    """Without times, trace ids, the state before, and what sums up passes."""
    assert isinstance(state, dict)
    kept = {name: state[name] for name in ("run", "projection", "cursor", "divergence")}
    kept["transition"] = {**state["transition"], "previousState": None}
    event_envelope = get(state, "evidence", "lastEventEnvelope")
    kept["event"] = event_envelope and (event_envelope["event"], event_envelope["sequence"])
    kept["health"] = get(state, "health", "status"), get(state, "health", "reasonCodes")
    kept["sequence"] = get(state, "sequence", "violations"), get(state, "sequence", "snapshot", "current")
    return kept


TestOrder = OrderMachine.TestCase
TestOrder.settings = hypothesis_settings(
    max_examples=int(os.environ.get("ORDER_EXAMPLES", "100")), stateful_step_count=40, deadline=None
)
