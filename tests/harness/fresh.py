"""What a manager holds after whatever it went through, compared with a fresh pass over the same files."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from manager.store import loop_files
from tests.harness.live_fleet import Document, Fleet
from tests.harness.manager import run

# Members that tell when one looked, and under which trace id.
OF_THE_MOMENT = {
    "generatedAt",
    "updatedAt",
    "emittedAt",
    "sequenceUpdatedAt",
    "lastHeartbeatAt",
    "heartbeatLagSeconds",
    "ingestLagSeconds",
    "traceId",
    "reconcileTraceId",
}
# Parts of state.json that tell of the passes before, of which a fresh manager has none.
OF_PASSES_BEFORE = (
    "transition.previousState",
    # What the last pass had that the one before had not.
    "sequence.events.",
    "sequence.snapshot.previous",
    # What telemetry sums up, and what is recommended for that reason.
    "tuning.telemetrySummary.observed.",
    "tuning.recommendedProfile",
    "tuning.confidence",
    "tuning.rationale",
    "drift.",
)


def differences_from_fresh(fleet: Fleet, ways: Mapping[str, Sequence[str]]) -> list[str]:
    """Where state.json of any loop is not what a first pass says; the pass takes the loop's files' place.

    ways: loop id -> flags of `ops-manager reconcile` that tell how the loop is reached.
    """
    live = {loop_id: fleet.document(loop_id, "state") for loop_id in ways}
    fresh = {loop_id: fresh_state(fleet, loop_id, way) for loop_id, way in ways.items()}
    return [
        f"{loop_id}: {path}: {values[0]!r}, and fresh {values[1]!r}"
        for loop_id in live
        for path, values in _differences(live[loop_id], fresh[loop_id]).items()
    ]


def fresh_state(fleet: Fleet, loop_id: str, way: Sequence[str]) -> Document:
    """state.json of a first pass over the loop's files as they are, in a directory that holds no more than
    what operators asked for."""
    intents = fleet.path(loop_id, "intents")
    kept = intents.read_bytes() if intents.exists() else b""
    shutil.rmtree(loop_files(str(fleet.root), loop_id).ops)
    if kept:
        intents.parent.mkdir()
        intents.write_bytes(kept)
    flags = ("--from-start", "--on-invalid-line", "quarantine", *way)
    done = run("reconcile", "--repo", str(fleet.root), "--loop", loop_id, *flags)
    assert done.code == 0, done
    return fleet.document(loop_id, "state")


def _leaves(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every member that holds no others, by its path."""
    members: Any = enumerate(document) if isinstance(document, list) else None
    members = document.items() if isinstance(document, dict) else members
    if not members:
        yield path, document
        return
    for name, value in members:
        yield from _leaves(value, f"{path}.{name}" if path else str(name))


def _differences(live: Document, fresh: Document) -> dict[str, tuple[Any, Any]]:
    """Members that differ and should not: path -> what is live, what is fresh."""
    pair = dict(_leaves(live)), dict(_leaves(fresh))
    paths = sorted(set(pair[0]) | set(pair[1]))
    found = {path: (pair[0].get(path), pair[1].get(path)) for path in paths}
    return {
        path: values
        for path, values in found.items()
        if values[0] != values[1]
        and not path.startswith(OF_PASSES_BEFORE)
        and path.rpartition(".")[2] not in OF_THE_MOMENT
    }
