"""Whether snapshots and events come in order (contract G.5, with memory across idle passes: L12)."""

from collections.abc import Sequence as Values
from itertools import pairwise
from typing import NamedTuple

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
    line: complete lines that the log holds now.
    """

    verdict: str
    previous_line: int
    line: int

    def document(self) -> dict[str, JSON]:
        return {"verdict": self.verdict, "previousLine": self.previous_line, "line": self.line}


# What a change of the log proves by itself, whatever the numbers say.
_VIOLATION = {"log_rewritten": "log_rewritten", "log_truncated": "event_sequence_regression"}

# Changes after which reading starts over: values of the log before say nothing about the one that is there.
_NEW_LOG = ("log_replaced", "log_rewritten")


def evaluate_sequence(
    previous: JSON,
    memory: Memory,
    *,
    snapshot_value: int | None,
    event_values: Values[int | None],
    now: float,
    loop_id: str,
    trace_id: str | None,
    transport: str,
    replay: bool = False,
    change: LogChange | None = None,
) -> dict[str, JSON]:
    """The document sequence-state.json.

    previous: the document before this one, None when there is none. event_values: sequence value of each
    new event, None for one that is no non-negative whole number. replay: the events are old ones that were
    asked for again, so that their start is no regression (L3). change: told as the last key, `log`.
    """
    previous_snapshot = whole(get(previous, "snapshot", "current"))
    previous_last = whole(get(previous, "events", "last"))
    was_drifting = get(previous, "driftActive") is True
    replaced = change is not None and change.verdict == "log_replaced"
    known_snapshot = memory.snapshot_value if previous_snapshot is None else previous_snapshot
    known_event = memory.event_value if previous_last is None else previous_last

    values = [value for value in event_values if value is not None]
    first_value, last_value = (values[0], values[-1]) if values else (None, None)
    violations: set[str] = set()
    if change is not None and change.verdict in _VIOLATION:
        violations.add(_VIOLATION[change.verdict])
    if snapshot_value is None:
        violations.add("snapshot_sequence_missing")
    elif known_snapshot is not None and snapshot_value < known_snapshot and not replaced:
        violations.add("snapshot_sequence_regression")
    if len(values) < len(event_values):
        violations.add("event_sequence_missing")
    if any(after < before for before, after in pairwise(values)):
        violations.add("event_sequence_non_monotonic")
    starts_over = replay or change is not None
    if first_value is not None and known_event is not None and first_value < known_event and not starts_over:
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
                "ingestedCount": len(event_values),
                "previousLast": previous_last,
                "first": first_value,
                "last": last_value,
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
    """What to remember after `document`: its values, or the older ones of the same log where it has none."""
    if get(document, "log", "verdict") in _NEW_LOG:
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
