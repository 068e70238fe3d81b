"""Steps of a live loop: what one of them is, what two come to, and what a pass tells of those before it."""

from typing import NamedTuple

from manager.core.cursor import Cursor
from manager.core.facts import Known, Outcome
from manager.core.intake import Taken
from manager.core.liveness import Record
from spritemesh.heartbeat import bears_mark
from spritemesh.jsontext import JSON
from spritemesh.values import get
from superloop.ops.v1 import envelope_pb2


class Step(NamedTuple):
    """What came of a loop since the step before.

    moved: events, a snapshot or another log came. judged: health, sequence or the lifecycle state are others
    than before. whole: it is a pass of its own, with all its rows. fresh: documents are due that judge as
    before. line: place that the cursor moves to.
    """

    outcome: Outcome
    records: tuple[Record, ...]
    moved: bool
    judged: bool
    whole: bool
    fresh: bool
    line: int
    now: float


class SincePass(NamedTuple):
    """What rows of reconcile.jsonl must tell together, so that they cover the log without gaps. offset: of
    the cursor after the last one."""

    offset: int
    events: int = 0
    replayed: int = 0
    quarantined: int = 0

    def then(self, taken: Taken) -> "SincePass":
        """With a brief step more."""
        return SincePass(
            self.offset,
            self.events + taken.numbers.events,
            self.replayed + taken.replayed,
            self.quarantined + len(taken.bad_lines),
        )

    def row(self, row: dict[str, JSON], taken: Taken) -> dict[str, JSON]:
        """`row`, of the pass that took `taken`, with what the brief steps before it did."""
        total = self.then(taken)
        told = row | {"cursorOffsetBefore": total.offset, "eventsIngested": total.events}
        counts = {"eventsReplayed": total.replayed, "linesQuarantined": total.quarantined}
        return told | {name: count for name, count in counts.items() if count}


def known_after(known: Known, outcome: Outcome, cursor: Cursor) -> Known:
    """What is known once `outcome` is. Rows are forgotten: hundreds a loop, read again when a pass needs
    them."""
    return known._replace(
        cursor=cursor,
        state=known.state if outcome.state is None else outcome.state,
        health=outcome.health,
        heartbeat=known.heartbeat if outcome.heartbeat is None else outcome.heartbeat,
        sequence=known.sequence if outcome.sequence is None else outcome.sequence,
        transport_health=outcome.transport_health,
        drift=outcome.drift or known.drift,
        reconcile_rows=None,
        control_rows=None,
    )


def joined(earlier: Taken, later: Taken) -> Taken:
    """Two steps' worth. Of a log that is no more, only the bad lines count: they go on record."""
    bad_lines = earlier.bad_lines + later.bad_lines
    replayed = earlier.replayed + later.replayed
    if later.change is not None:
        change = later.change.after(earlier.change)
        return later._replace(bad_lines=bad_lines, replayed=replayed, change=change)
    return Taken(
        earlier.numbers.then(later.numbers),
        earlier.last_event if later.last_event is None else later.last_event,
        earlier.snapshot if later.snapshot is None and not later.numbers.events else later.snapshot,
        replayed,
        bad_lines,
        earlier.change,
        later.problem,
    )


def judgement(state: JSON, health: JSON, order: JSON) -> tuple[JSON, ...]:
    """What is judged of a loop: when it differs, people want to know at once."""
    return (
        get(state, "transition", "currentState"),
        get(health, "status"),
        get(health, "reasonCodes"),
        get(order, "status"),
        get(order, "violations"),
    )


def keeps_heartbeat(snapshot: envelope_pb2.LoopRunSnapshot) -> bool:
    """Whether the runtime writes heartbeat.v1.json itself. The agent's own bears its mark."""
    runtime = snapshot.runtime
    return runtime.HasField("heartbeat") and not bears_mark(runtime.heartbeat.json)
