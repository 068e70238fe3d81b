"""What happened under one trace id, as a tree: intent, invocation, runtime, confirmation and effect; pass,
escalation and alert; and what the runtime's own spans tell below them (`ops-manager trace`).

The index tells times to the millisecond; the rows of artifacts tell of what the index lacks, because v1 tools
wrote it or because the entry is gone. Both are `Entry`, and a step that both tell of is one step.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

from manager.core.trace_rows import CUT_SECONDS
from manager.core.trace_spans import NO_SPANS, Cause, Spans, grow
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc_milliseconds
from spritemesh.traceentry import Entry
from spritemesh.values import drop, get

SCHEMA_VERSION = "v1"

# Kind -> kinds that it can hang from, the nearest first. All other kinds are roots.
_PARENTS: Mapping[str, tuple[str, ...]] = {
    "invocation": ("intent",),
    "runtime": ("invocation", "intent"),
    "confirmation": ("invocation", "intent"),
    "effect": ("confirmation", "runtime", "invocation", "intent"),
    "escalation": ("reconcile", "session"),
    "alert": ("escalation", "reconcile"),
}
# Kinds of which one request has one.
_ONCE = frozenset({"runtime", "effect"})
# Order of steps that began in the same instant.
_KINDS = (
    *("intent", "invocation", "runtime", "event", "confirmation", "effect"),
    *("session", "reconcile", "escalation"),
)


def trace_document(
    trace_id: str,
    repo_path: str,
    entries: Sequence[Entry],
    *,
    spans: Spans = NO_SPANS,
    skipped: int = 0,
    left_out: int = 0,
) -> dict[str, JSON]:
    """The tree of a trace, or of a span. entries and spans: at least one of both. skipped: damaged lines.
    left_out: entries of a trace that has too many, the oldest ones."""
    ordered, parents = _in_family(sorted(_once(entries), key=_order))
    # A span may be of whoever caused the first step, or of a clock that is wrong.
    times = [(entry.at, entry.seconds or 0.0) for entry in ordered] or [
        (span.at, span.seconds) for span in spans.found
    ]
    start, end = min(at for at, _ in times), max(at + seconds for at, seconds in times)
    steps = [_step(entry, start) for entry in ordered]
    roots: list[JSON] = []
    for place in sorted(range(len(ordered)), key=lambda place: _order(ordered[place])):
        above = parents[place]
        (roots if above is None else steps[above].setdefault("steps", [])).append(steps[place])
    causes = [
        Cause(entry.kind, entry.loop_id, entry.at, entry.seconds, step)
        for entry, step in zip(ordered, steps, strict=True)
    ]
    roots += grow(spans.found, causes, start)
    return drop(
        {
            "schemaVersion": SCHEMA_VERSION,
            "traceId": trace_id,
            "repoPath": repo_path,
            "startedAt": format_utc_milliseconds(start),
            "endedAt": format_utc_milliseconds(end),
            "durationSeconds": _rounded(end - start),
            "loops": sorted(
                {entry.loop_id for entry in ordered} | {span.loop_id for span in spans.found if span.loop_id}
            ),
            "stepCount": len(ordered),
            "spanCount": len(spans.found) or None,
            "steps": roots,
            "skippedLines": skipped + spans.damaged or None,
            "leftOutSteps": left_out or None,
            "leftOutSpans": spans.left_out or None,
        }
    )


def recent_document(
    repo_path: str, entries: Iterable[Entry], count: int, *, skipped: int = 0
) -> dict[str, JSON]:
    """The last `count` traces, the latest first; of each, what its last steps were."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.trace_id, []).append(entry)
    latest = sorted(groups.values(), key=lambda group: -max(entry.at for entry in group))[:count]
    return drop(
        {
            "schemaVersion": SCHEMA_VERSION,
            "repoPath": repo_path,
            "traces": [_summary(sorted(group, key=_order)) for group in latest],
            "skippedLines": skipped or None,
        }
    )


def _summary(group: list[Entry]) -> dict[str, JSON]:
    # What it was about is its first step; escalations and alerts only follow from that.
    return {
        "traceId": group[0].trace_id,
        "lastAt": format_utc_milliseconds(group[-1].at),
        "loops": sorted({entry.loop_id for entry in group}),
        "kinds": list(dict.fromkeys(entry.kind for entry in group)),
        "status": next((entry.status for entry in group if entry.status), None),
    }


def _step(entry: Entry, start: float) -> dict[str, JSON]:
    return drop(
        {
            "kind": entry.kind,
            "loopId": entry.loop_id,
            "at": format_utc_milliseconds(entry.at),
            "offsetSeconds": _rounded(entry.at - start),
            "durationSeconds": None if entry.seconds is None else _rounded(entry.seconds),
            "status": entry.status or None,
            "file": entry.file or None,
            "detail": entry.detail or None,
        }
    )


def _once(entries: Sequence[Entry]) -> list[Entry]:
    """Without the command and the effect that a manager tells of again: an agent that works on the same
    repository knows their times."""
    kept: dict[tuple[object, ...], Entry] = {}
    for place, entry in enumerate(entries):
        link = _text(entry.detail, "idempotencyKey")
        key = (entry.kind, entry.loop_id, link) if entry.kind in _ONCE and link else (place,)
        known = kept.get(key)
        if known is None or (known.seconds is None and entry.seconds is not None):
            kept[key] = entry
    return list(kept.values())


def _in_family(ordered: list[Entry]) -> tuple[list[Entry], list[int | None]]:
    """The steps, and for each the place of its parent.

    What began before its parent did so only because its time was cut: it is moved to the parent's.
    """
    family = _Family(ordered)
    parents = [family.above(entry) for entry in ordered]

    def began(place: int) -> float:
        above = parents[place]
        return ordered[place].at if above is None else max(ordered[place].at, began(above))

    return [entry._replace(at=began(place)) for place, entry in enumerate(ordered)], parents


class _Family:
    """Finds what each step hangs from."""

    def __init__(self, ordered: Sequence[Entry]) -> None:
        """ordered: all steps, by time."""
        # (kind, loop, link) -> steps by time; a link is `name=value`, and `name` stands for all of them.
        self._steps: dict[tuple[str, str, str], list[tuple[float, int]]] = {}
        for place, entry in enumerate(ordered):
            # What was only told again has no steps of its own.
            if get(entry.detail, "replayed") is True:
                continue
            for name in ("idempotencyKey", "category"):
                link = _text(entry.detail, name)
                for key in {(entry.kind, entry.loop_id, f"{name}={link}"), (entry.kind, entry.loop_id, name)}:
                    self._steps.setdefault(key, []).append((entry.at, place))

    def above(self, entry: Entry) -> int | None:
        """Place of the parent: of the nearest kind, the last one that began before it.

        Key of a control request or category of an escalation must agree where both are known.
        """
        name = "category" if entry.kind == "alert" else "idempotencyKey"
        link = _text(entry.detail, name)
        links = (f"{name}={link}", f"{name}=") if link else (name,)
        for kind in _PARENTS.get(entry.kind, ()):
            found = [self._latest((kind, entry.loop_id, wanted), entry.at) for wanted in links]
            best = max((step for step in found if step is not None), default=None)
            if best is not None:
                return best[1]
        return None

    def _latest(self, key: tuple[str, str, str], at: float) -> tuple[float, int] | None:
        steps = self._steps.get(key, [])
        place = bisect_right(steps, at, key=lambda step: step[0])
        if place:
            return steps[place - 1]
        # Times of artifacts are cut, so that what came after may seem to come before.
        return steps[0] if steps and steps[0][0] <= at + CUT_SECONDS else None


def _order(entry: Entry) -> tuple[float, int]:
    return entry.at, _KINDS.index(entry.kind) if entry.kind in _KINDS else len(_KINDS)


def _text(detail: JSON, name: str) -> str:
    value = get(detail, name)
    return value if isinstance(value, str) else ""


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
