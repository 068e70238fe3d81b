"""One loop, live: what streams bring becomes steps of the core, each of them committed whole.

Pure: messages and times come in, steps go out. A step is what `observe` made of everything that came since
the step before. Whoever writes it says how that ended; what could not be written is taken into the next step,
so that nothing is told twice and nothing is lost.

Between two steps a loop keeps numbers, never events: its size does not follow its log.
"""

from typing import NamedTuple

from manager.core import sequence
from manager.core.cursor import Cursor
from manager.core.facts import Arrived, Known, Outcome, Settings
from manager.core.health import CRITICAL, DEGRADED, Condition, next_change
from manager.core.intake import Intake, Taken
from manager.core.liveness import Connection, Liveness, Record
from manager.core.observe import observe
from manager.core.resume import as_far_as_read, placed
from manager.core.step import SincePass, Step, joined, judgement, keeps_heartbeat, known_after
from manager.core.transport_health import evaluate_transport
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.values import get
from superloop.ops.v1 import envelope_pb2, manager_pb2, sprite_pb2

# At most so often a loop is committed, seconds; and so long new events wait for the snapshot that belongs
# to them. So many of them do not wait.
COMMIT_SECONDS = 0.2
COMMIT_EVENTS = 5000
# Lines that are no events are kept until they are on record: so many force a step, four times as many stop
# the reading.
COMMIT_BAD_LINES = 256
# Failures in a row count as one while they come so soon after one another, seconds: v1 counts passes, and
# its thresholds mean minutes.
STREAK_SECONDS = 15.0
# A step that failed is tried again after this, seconds.
RETRY_SECONDS = 1.0
# That a log went back is part of the state for so long, unless something new comes, seconds; passes show it
# until the next one.
REGRESSED_SECONDS = 60.0
# While none can be written, so many of the last records are kept.
_MOST_RECORDS = 1000
# Documents beside state and cursor are written when they judge otherwise than before; else this often while
# events come, and while only heartbeats do, seconds.
FRESH_SECONDS = 60.0
IDLE_FRESH_SECONDS = 120.0


class _Pending(NamedTuple):
    """What a step took from the loop, in case that it cannot be written."""

    taken: Taken
    offered: envelope_pb2.LoopRunSnapshot | None
    records: tuple[Record, ...]
    known: Known
    since_pass: SincePass


class LiveLoop:
    """What is known of one loop that is watched. known: what the files said, cursor included."""

    def __init__(self, settings: Settings, known: Known, now: float) -> None:
        self.settings = settings
        self.known = as_far_as_read(known)
        self.liveness = Liveness(settings.loop_id, now)
        self.counts = manager_pb2.SessionCounts()
        place = known.cursor.place
        self.intake = Intake(place, start_line=known.cursor.offset, quarantine=True, start_over=True)
        self.head_line = self.committed_line = place.line
        self.frozen = ""  # reason code that freezes control
        self.unwritable = ""  # reason code of the last step that could not be written
        self.telemetry_writable = True
        self._last_event: JSON = get(self.known.state, "evidence", "lastEventEnvelope")
        self._failure: OpsError | None = None
        self._problem = ""  # reason code of why there is no snapshot
        self._transport_health = known.transport_health
        self._counted_at = 0.0  # when a failure was last counted
        # The runtime keeps one itself, which says more than that its process lives.
        self._own_heartbeat = False
        self._offered: envelope_pb2.LoopRunSnapshot | None = None
        # Of a log that has gone back: projected once more, it is what the loop goes on from.
        self._regressed: envelope_pb2.LoopRunSnapshot | None = None
        self._records: list[Record] = []
        self._left = Taken()  # of a step that could not be written
        self._pending: _Pending | None = None
        self._unwritten: Known | None = None  # after a step that could not be written
        self._since_pass = SincePass(known.cursor.offset)
        self._dirty_since: float | None = None
        self._whole = False
        self._stepped_at = 0.0
        self._fresh_at = now
        self._stale = self._alive = False  # since then: documents differ; heartbeats came
        self._judge_at: float | None = None
        self.wake_at = 0.0  # when to tick

    # --- what arrives -------------------------------------------------------------------------------

    def open(self, trace_id: str, now: float) -> None:
        """A connection is being tried, under a trace id of its own."""
        self.settings = self.settings._replace(trace_id=trace_id)
        self.intake.reopen()
        self.liveness.connecting(now)

    def up(self, opened: sprite_pb2.Opened, now: float) -> None:
        """The loop is read."""
        failures = self.liveness.up(now)
        self._failure = None
        self._judge_transport("", now)
        self.liveness.sprite_id = opened.sprite_id or self.liveness.sprite_id
        again = failures or self.counts.disconnects
        detail: dict[str, JSON] = {"line": self.intake.place.line, "bootId": opened.boot_id or None}
        self._pass(Record("connection_restored" if again else "session_opened", detail), now)

    def down(self, error: OpsError, retry_at: float, now: float) -> None:
        """The connection broke, or could not be made."""
        was_up, first = self.liveness.connection == Connection.STATE_UP, not self.liveness.failures
        self.liveness.down(error.reason, retry_at, now)
        self._failure = error
        if was_up or first or now >= self._counted_at + STREAK_SECONDS:
            self._counted_at = now
            self._judge_transport("service_request_failed", now)
        self.counts.disconnects += was_up
        if was_up or first:
            self._pass(Record("connection_lost", {"cause": error.reason, "message": error.message}), now)
        self._touch(now)

    def offer(self, snapshot: envelope_pb2.LoopRunSnapshot, now: float) -> None:
        """A snapshot that was asked for, since nothing was known yet; it may be ahead of the events."""
        self._offered = snapshot
        self._touch(now)

    def accept(self, message: sprite_pb2.WatchEventsResponse, now: float) -> None:
        """Take a message of WatchEvents.

        Raises OpsError as Intake.accept does: that stream is of no more use, and another is opened at
        `intake.resume()`.
        """
        intake = self.intake
        events, replayed = intake.numbers.events, intake.replayed
        bad, change, line = len(intake.bad_lines), intake.change, intake.place.line
        try:
            intake.accept(message)
        except OpsError as error:
            if error.reason == "event_sequence_gap":
                self.counts.gaps += 1
                self.note(Record(error.reason, {"line": line, "message": error.message}), now)
            raise
        self.head_line = intake.line_count
        if intake.change is not change and intake.change is not None:
            self.counts.resets += 1
            self._last_event = None
            self._since_pass = SincePass(0)
            self._pass(Record(intake.change.verdict, intake.change.document()), now)
            return
        if intake.replayed > replayed:
            self._note_replay(intake.replayed - replayed, now)
        self.counts.events += intake.numbers.events - events
        self.counts.quarantined += len(intake.bad_lines) - bad
        if intake.place.line != line:
            self._touch(now)
        elif message.HasField("bookmark"):
            problem = message.bookmark.snapshot_problem
            if problem != self._problem or message.bookmark.HasField("snapshot"):
                self._touch(now)
            self._problem = problem

    def beat(self, heartbeat: sprite_pb2.Heartbeat, now: float) -> None:
        """Take a heartbeat."""
        before = self.liveness.runtime
        if self.liveness.heartbeat_at is None:
            self.wake_at = 0.0
        for record in self.liveness.beat(heartbeat, now):
            self.note(record, now)
        if heartbeat.HasField("head"):
            self.head_line = max(self.intake.place.line, heartbeat.head.position.line)
        self._alive = True
        if self.liveness.wants_probe(now):
            self.wake_at = 0.0
        if self.liveness.runtime != before:
            self._touch(now)

    def note(self, record: Record, now: float) -> None:
        """Something for telemetry/session.jsonl, and so for a step."""
        self._records.append(record)
        self._touch(now)

    def freeze(self, reason: str, record: Record, now: float) -> None:
        """Control may not step in because of `reason`; "": it may again."""
        self.frozen = reason
        self._pass(record, now)

    def intent(self, row: JSON, now: float) -> None:
        """The last row of intents.jsonl is another one."""
        self.known = self.known._replace(last_intent=row)
        self._touch(now)

    def tick(self, now: float) -> None:
        """Time has passed."""
        for record in self.liveness.tick(now):
            self.note(record, now)
        self.wake_at = self._next_tick(now)
        age = now - self._fresh_at
        due = self._judge_at is not None and now >= self._judge_at
        if self._regressed is not None and now >= self._stepped_at + REGRESSED_SECONDS:
            self.offer(self._regressed, now)
        if due or (self._stale and age >= FRESH_SECONDS) or (self._alive and age >= IDLE_FRESH_SECONDS):
            self._judge_at = None
            self._touch(now)

    def _next_tick(self, now: float) -> float:
        """When time next tells anything: heartbeats that come meanwhile only put it off."""
        liveness = self.liveness
        if liveness.silent or liveness.wants_probe(now):
            return now
        times = [liveness.silent_at, self._judge_at]
        if self._regressed is not None:
            times.append(self._stepped_at + REGRESSED_SECONDS)
        times.append(self._fresh_at + (FRESH_SECONDS if self._stale else IDLE_FRESH_SECONDS))
        return min(at for at in times if at is not None)

    def shift(self, seconds: float) -> None:
        """The manager's own clock was set by so much: ages stay what they are."""
        self.wake_at = 0.0
        self.liveness.shift(seconds)
        self._fresh_at += seconds
        self._stepped_at += seconds
        self._counted_at += seconds
        self._judge_at = 0.0
        if self._dirty_since is not None:
            self._dirty_since += seconds

    def excuse(self, seconds: float) -> None:
        """The manager itself did not run for so long: that nothing was heard says nothing."""
        if self.liveness.heartbeat_at is not None:
            self.liveness.heartbeat_at += seconds

    def close(self, now: float) -> None:
        """The session ends; one more step tells so."""
        self.liveness.waiting("session_closed", now)
        self._pass(Record("session_closed", {"line": self.intake.place.line}), now)

    # --- steps --------------------------------------------------------------------------------------

    @property
    def lifecycle(self) -> str:
        """State of the loop; "" when nothing is known of it."""
        found = get(self.shown.state, "transition", "currentState")
        return found if isinstance(found, str) else ""

    @property
    def shown(self) -> Known:
        """What to show of the loop: as of the last step, whether that could be written or not."""
        return self._unwritten or self.known

    @property
    def is_pending(self) -> bool:
        """Whether a step is being written."""
        return self._pending is not None

    @property
    def is_whole(self) -> bool:
        """Whether the next step is a pass, which needs the rows before it: see `remember`."""
        return self._whole

    @property
    def is_full(self) -> bool:
        """Whether no more may be read before a step is written: each bad line is kept until then."""
        return len(self.intake.bad_lines) + len(self._left.bad_lines) >= 4 * COMMIT_BAD_LINES

    def due_at(self) -> float | None:
        """When the next step is due; None: there is nothing to tell, or one is being written."""
        if self._dirty_since is None or self._pending is not None:
            return None
        intake = self.intake
        if self.unwritable:
            return self._stepped_at + RETRY_SECONDS
        if intake.numbers.events >= COMMIT_EVENTS or len(intake.bad_lines) >= COMMIT_BAD_LINES:
            return self._dirty_since
        # With its snapshot a step is complete; without, it may come in a moment.
        earliest = self._stepped_at + COMMIT_SECONDS
        if intake.snapshot or self._offered or not intake.numbers.events:
            return earliest
        return max(earliest, self._dirty_since + COMMIT_SECONDS)

    def remember(self, history: Known) -> None:
        """Rows before a whole step, and the last intent, as the files have them now."""
        self.known = self.known._replace(
            last_intent=history.last_intent,
            reconcile_rows=history.reconcile_rows,
            control_rows=history.control_rows,
            damaged_lines=history.damaged_lines,
        )

    def step(self, now: float) -> Step:
        """Everything since the step before. `written` or `failed` must follow before the next one."""
        taken = joined(self._left, self.intake.take())
        if taken.last_event is not None:
            self._last_event = taken.last_event
        records, whole = tuple(self._records), self._whole
        # A step that fails is made again with rows that are read then: held for a fleet, they are megabytes.
        before = self.known._replace(reconcile_rows=None, control_rows=None)
        pending = _Pending(taken, self._offered, records, before, self._since_pass)
        self._pending, self._left, self._stepped_at = pending, Taken(), now
        self._dirty_since, self._whole = None, False
        self._records.clear()

        if taken.snapshot is None and self._offered is not None:
            taken = taken._replace(snapshot=placed(self._offered, self.intake.place.line))
        self._offered = None
        self._problem = taken.problem or self._problem
        outcome = self._observe(taken, now, whole=whole)
        if outcome.failure_code and self._failure is None:
            # The snapshot is none of this loop's. The events are its own all the same.
            self._problem = outcome.failure_code
            taken = taken._replace(snapshot=None)
            outcome = self._observe(taken, now, whole=whole)
        if whole:
            outcome = outcome._replace(reconcile_row=self._since_pass.row(outcome.reconcile_row, taken))
        known = self.known
        order = known.sequence if outcome.sequence is None else outcome.sequence
        state = known.state if outcome.state is None else outcome.state
        judged = judgement(state, outcome.health, order) != judgement(
            known.state, known.health, known.sequence
        )
        moved = bool(taken.numbers.events or taken.change or taken.snapshot or taken.bad_lines)
        moved = moved or self.intake.place.line != self.known.cursor.place.line
        age = now - self._fresh_at
        fresh = whole or judged or age >= (FRESH_SECONDS if moved or self._stale else IDLE_FRESH_SECONDS)
        self._after(outcome, taken, now, whole=whole, fresh=fresh)
        if judged and not whole:
            self._whole = True  # a pass of its own tells of it, with the rows before it
            self._touch(now)
        return Step(outcome, records, moved, judged, whole, fresh, self.known.cursor.place.line, now)

    def written(self, step: Step, *, telemetry_writable: bool, now: float | None = None) -> None:
        """`step` is on disk since `now`, by default at once."""
        now = step.now if now is None else now
        self._pending = self._unwritten = None
        self.counts.commits += 1
        self.committed_line = step.line
        if self.unwritable:
            # What was written still says so.
            self.unwritable = ""
            self._whole = True
            self._touch(now)
        if telemetry_writable != self.telemetry_writable:
            self.telemetry_writable = telemetry_writable
            self._touch(now)

    def failed(self, error: OpsError, now: float) -> None:
        """The step could not be written: it is taken into the next one."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        self.counts.commit_failures += 1
        self.unwritable = error.reason
        self._unwritten = self.known
        self._left, self.known = pending.taken, pending.known._replace(last_intent=self.known.last_intent)
        self._offered = self._offered or pending.offered
        # Of a log that has gone meanwhile no row is left to tell.
        if self.intake.change is None:
            self._since_pass = pending.since_pass
        self._records = [*pending.records, *self._records][-_MOST_RECORDS:]
        self._whole = True
        self._touch(now)

    # --- inside -------------------------------------------------------------------------------------

    def _touch(self, now: float) -> None:
        if self._dirty_since is None:
            self._dirty_since = now

    def _pass(self, record: Record, now: float) -> None:
        """Something that a pass of its own tells."""
        self._whole = True
        self.note(record, now)

    def _note_replay(self, events: int, now: float) -> None:
        self.counts.replayed += events
        if self._records and self._records[-1].reason == "events_replayed":
            events += self._records.pop().detail["events"]
        self.note(Record("events_replayed", {"events": events, "line": self.intake.place.line}), now)

    def _judge_transport(self, failure_code: str, now: float) -> None:
        self._transport_health = evaluate_transport(
            self._transport_health,
            now=now,
            trace_id=self.settings.trace_id,
            transport=self.settings.transport,
            failure_code=failure_code,
        )

    def _observe(self, taken: Taken, now: float, *, whole: bool) -> Outcome:
        intake, snapshot, error = self.intake, taken.snapshot, self._failure
        if snapshot is not None:
            self._own_heartbeat = keeps_heartbeat(snapshot)
        arrived = Arrived(
            snapshot=snapshot,
            last_event=self._last_event if snapshot is not None else taken.last_event,
            numbers=taken.numbers,
            offset=intake.offset,
            place=intake.place,
            line_count=intake.line_count,
            change=taken.change,
            bad_lines=taken.bad_lines,
            replayed=taken.replayed,
            projects=snapshot is not None,
            heartbeat=None if self._own_heartbeat else self.liveness.runtime_document(),
            transport_health=self._transport_health or None,
            conditions=tuple(self._conditions(now)),
        )
        nothing_came = not (taken.numbers.events or taken.change or taken.bad_lines or snapshot)
        if error is not None and nothing_came:
            arrived = arrived._replace(
                failure_code="service_request_failed", failure_message=f"{error.reason}: {error.message}"
            )
        elif error is not None:
            self._whole = True  # first what had come; that nothing more does is the next step
            self._touch(now)
        return observe(
            self.known,
            arrived,
            self.settings,
            started_at=now,
            now=now,
            telemetry_writable=self.telemetry_writable,
            brief=not whole,
        )

    def _conditions(self, now: float) -> list[Condition]:
        found = self.liveness.conditions(self.lifecycle, now)
        if self.frozen:
            found.append(Condition(self.frozen, CRITICAL, "sprite.agents", "2", "1"))
        if self._problem:
            found.append(Condition(self._problem, DEGRADED, "snapshot", "unavailable", "available"))
        if self.unwritable:
            found.append(Condition(self.unwritable, DEGRADED, "state", "unwritable", "writable"))
        return found

    def _after(self, outcome: Outcome, taken: Taken, now: float, *, whole: bool, fresh: bool) -> None:
        known, since = self.known, self._since_pass
        cursor = known.cursor
        if outcome.cursor is not None:
            memory = sequence.next_memory(cursor.memory, outcome.sequence)
            cursor = Cursor(self.intake.offset, self.intake.place, memory)
        self.known = known_after(known, outcome, cursor)
        self._since_pass = SincePass(cursor.offset) if whole else since.then(taken)
        self._regressed = None
        if taken.snapshot is not None and get(self.known.state, "divergence", "flags", "cursorRegression"):
            self._regressed = taken.snapshot
        if fresh:
            self._fresh_at = now
        self._stale, self._alive = not fresh, False
        changes = [
            next_change(self.known.state, self.known.heartbeat, self.settings.thresholds, now),
            self.liveness.dead_at,
        ]
        self._judge_at = min((at for at in changes if at is not None and at > now), default=None)
        self.wake_at = min(self.wake_at, self._next_tick(now))
