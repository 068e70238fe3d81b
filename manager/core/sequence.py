"""Whether snapshots and events come in order (contract G.5, with memory across idle passes: L12)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Self

from spritemesh.jsontext import JSON
from spritemesh.times import format_utc
from spritemesh.values import drop, get, whole

DRIFT = "ordering_drift_detected"
OK = "ok"


class Memory(NamedTuple):
    """The last values that were seen at all; the document forgets them in a pass that brings none."""

    snapshot_value: int | None = None
    event_value: int | None = None


class LogChange(NamedTuple):
    """What became of the log under the cursor.

    verdict: log_replaced, log_rewritten or log_truncated. previous_line: lines that had been read.
    line: complete lines that the log holds now. earlier: verdicts of changes before this one that no step
    has told of yet, each once.
    """

    verdict: str
    previous_line: int
    line: int
    earlier: tuple[str, ...] = ()

    @property
    def verdicts(self) -> tuple[str, ...]:
        """All of them, the last change's own last."""
        return (*self.earlier, self.verdict)

    @property
    def is_replacement(self) -> bool:
        """Whether what is there now began as another log."""
        return "log_replaced" in self.verdicts

    def after(self, change: "LogChange | None") -> "LogChange":
        """This change when `change` came before it and must be told, too."""
        if change is None:
            return self
        return self._replace(earlier=tuple(dict.fromkeys(change.verdicts + self.earlier)))

    def document(self) -> dict[str, JSON]:
        document: dict[str, JSON] = {
            "verdict": self.verdict,
            "previousLine": self.previous_line,
            "line": self.line,
        }
        return document | ({"earlier": list(self.earlier)} if self.earlier else {})


class Numbers(NamedTuple):
    """The sequence values of events, summed up: a session takes millions of them.

    events: how many. missing: those whose value is no non-negative whole number. in_order: no value is
    smaller than the one before it.
    """

    events: int = 0
    missing: int = 0
    first: int | None = None
    last: int | None = None
    in_order: bool = True

    @classmethod
    def of(cls, values: Sequence[int | None]) -> Self:
        """Of consecutive events; None for a value that is missing."""
        if not values:
            return cls()
        known = [value for value in values if value is not None]
        if not known:
            return cls(len(values), len(values))
        # Nearly always they count up by one, and comparing lists is a fifth of comparing pairs.
        in_order = known == list(range(known[0], known[0] + len(known))) or all(
            before <= after for before, after in pairwise(known)
        )
        return cls(len(values), len(values) - len(known), known[0], known[-1], in_order)

    def then(self, later: "Numbers") -> "Numbers":
        """Of these events and of `later` ones."""
        if not later.events or not self.events:
            return later if later.events else self
        joined = self.last is None or later.first is None or self.last <= later.first
        return Numbers(
            self.events + later.events,
            self.missing + later.missing,
            later.first if self.first is None else self.first,
            self.last if later.last is None else later.last,
            self.in_order and later.in_order and joined,
        )


# What a change of the log proves by itself, whatever the numbers say.
_VIOLATION = {"log_rewritten": "log_rewritten", "log_truncated": "event_sequence_regression"}


def evaluate_sequence(
    previous: JSON,
    memory: Memory,
    *,
    snapshot_value: int | None,
    numbers: Numbers,
    now: float,
    loop_id: str,
    trace_id: str | None,
    transport: str,
    replay: bool = False,
    change: LogChange | None = None,
    snapshot_came: bool = True,
) -> dict[str, JSON]:
    """The document sequence-state.json.

    previous: the document before this one, None when there is none. numbers: of the new events. replay: the
    events are old ones that were asked for again, so that their start is no regression (L3). change: told as
    the last key, `log`. snapshot_came: False when none was to be expected yet; the one before still stands
    then, unless the log is another one.
    """
    previous_snapshot = whole(get(previous, "snapshot", "current"))
    previous_last = whole(get(previous, "events", "last"))
    was_drifting = get(previous, "driftActive") is True
    replaced = change is not None and change.is_replacement
    # A document may be newer than the cursor, and so than what will be read: a crash came between. It may be
    # older, too, since a live session writes it only when it judges otherwise.
    known_snapshots = [value for value in (previous_snapshot, memory.snapshot_value) if value is not None]
    known_snapshot = min(known_snapshots, default=None)
    known_event = previous_last if memory.event_value is None else memory.event_value

    if not snapshot_came:
        snapshot_value = None if change is not None else known_snapshot
    violations: set[str] = set()
    if change is not None:
        violations.update(_VIOLATION[verdict] for verdict in change.verdicts if verdict in _VIOLATION)
    if snapshot_value is None:
        if snapshot_came:
            violations.add("snapshot_sequence_missing")
    elif known_snapshot is not None and snapshot_value < known_snapshot and not replaced:
        violations.add("snapshot_sequence_regression")
    if numbers.missing:
        violations.add("event_sequence_missing")
    if not numbers.in_order:
        violations.add("event_sequence_non_monotonic")
    starts_over = replay or change is not None
    goes_back = numbers.first is not None and known_event is not None and numbers.first < known_event
    if goes_back and not starts_over:
        violations.add("event_sequence_regression")

    drift = bool(violations)
    return drop(
        {
            "schemaVersion": "v1",
            "updatedAt": format_utc(now),
            "loopId": loop_id,
            "traceId": trace_id,
            "transport": transport,
            "status": DRIFT if drift else OK,
            "reasonCode": DRIFT if drift else None,
            "driftActive": drift,
            "violations": sorted(violations),
            "snapshot": {
                "previous": previous_snapshot,
                "current": snapshot_value,
                "monotonic": not violations & {"snapshot_sequence_regression", "snapshot_sequence_missing"},
                "regressed": "snapshot_sequence_regression" in violations,
                "missing": "snapshot_sequence_missing" in violations,
            },
            "events": {
                "ingestedCount": numbers.events,
                "previousLast": previous_last,
                "first": numbers.first,
                "last": numbers.last,
                "monotonicWithinBatch": "event_sequence_non_monotonic" not in violations,
                "monotonicAcrossBatches": "event_sequence_regression" not in violations,
                "regressed": bool(violations & {"event_sequence_non_monotonic", "event_sequence_regression"}),
                "missing": "event_sequence_missing" in violations,
            },
            "transition": {
                "previousDriftActive": was_drifting,
                "transitionedToDrift": drift and not was_drifting,
                "recoveredFromDrift": was_drifting and not drift,
            },
            "log": None if change is None else change.document(),
        }
    )


def next_memory(memory: Memory, document: JSON) -> Memory:
    """What to remember after `document`: its values, or the older ones of the same log where it has none.

    After a change of the log reading starts over: values from before say nothing about what is there.
    """
    if get(document, "log") is not None:
        memory = Memory()
    snapshot_value, event_value = get(document, "snapshot", "current"), get(document, "events", "last")
    return Memory(
        memory.snapshot_value if snapshot_value is None else snapshot_value,
        memory.event_value if event_value is None else event_value,
    )


def telemetry_row(document: dict[str, JSON]) -> dict[str, JSON]:
    """The row of telemetry/sequence.jsonl for a document of evaluate_sequence."""
    row = {
        "timestamp": document["updatedAt"],
        "loopId": document["loopId"],
        "traceId": document.get("traceId"),
        "transport": document["transport"],
        "category": "envelope_sequence",
    }
    for member in (
        "status",
        "reasonCode",
        "driftActive",
        "violations",
        "snapshot",
        "events",
        "transition",
        "log",
    ):
        row[member] = document.get(member)
    return drop(row)
