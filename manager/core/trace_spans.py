"""The runtime's spans in the tree of a trace: below the step that caused them (`ops-manager trace`).

A span whose metadata names the ops trace id is what a process began with; everything below it hangs from it
by its parent id, also what other processes added. Lines come in the order in which spans ended, children
first.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from spritemesh.jsontext import JSON, encode
from spritemesh.times import format_utc_milliseconds, parse_rfc3339
from spritemesh.values import drop, get

# Of a larger tree the first ones are shown.
MAX_SPANS = 1000
# Metadata that is larger is left to `spritemesh trace view`.
_METADATA_BYTES = 2048
# Kinds of steps that run something in the sprite, the nearest first.
_CAUSES = ("runtime", "invocation", "intent")
# The clocks of sprite and manager need not agree to the moment, seconds.
_SLACK_SECONDS = 2.0


class Span(NamedTuple):
    """One span. at: epoch seconds. ops_trace_id: the request that it was begun under, "" when it names none.
    loop_id: "" when it may be of several. file: as in Entry. detail: what is shown of it."""

    trace_id: str
    parent_id: str
    at: float
    seconds: float
    status: str
    loop_id: str
    file: str
    ops_trace_id: str
    detail: dict[str, JSON]


class Spans(NamedTuple):
    """Spans in any order. left_out: those that were not even kept. damaged: lines that are none."""

    found: Sequence[Span] = ()
    left_out: int = 0
    damaged: int = 0


NO_SPANS = Spans()


class Cause(NamedTuple):
    """A step that spans may hang from. document: gets them as its `steps`."""

    kind: str
    loop_id: str
    at: float
    document: dict[str, JSON]


def span_of(record: JSON, *, loop_id: str, file: str) -> Span | None:
    """The span of a line of a trace file; None when it lacks an id or a time."""
    trace_id, at = get(record, "trace_id"), parse_rfc3339(get(record, "timestamp"))
    if not isinstance(trace_id, str) or not trace_id or at is None:
        return None
    milliseconds = get(record, "duration_ms")
    usable = isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool)
    seconds = milliseconds / 1000 if usable and 0 <= milliseconds < 1e15 else 0.0
    metadata = get(record, "metadata")
    shown = None
    if isinstance(metadata, dict):
        shown = {name: value for name, value in metadata.items() if name != "ops_trace_id"} or None
        if shown is not None and len(encode(shown)) > _METADATA_BYTES:
            shown = None
    detail = {
        "spanId": trace_id,
        "parentId": _text(record, "parent_id") or None,
        "layer": _text(record, "hrm_layer") or None,
        "operation": _text(record, "operation") or None,
        "component": _text(record, "component") or None,
        "input": _text(record, "input_summary") or None,
        "output": _text(record, "output_summary") or None,
        "metadata": shown,
    }
    return Span(
        trace_id,
        _text(record, "parent_id"),
        at,
        seconds,
        _text(record, "status"),
        loop_id,
        file,
        _text(metadata, "ops_trace_id"),
        drop(detail),
    )


def below(spans: Iterable[Span], trace_id: str) -> tuple[list[Span], int]:
    """Those under the spans that name the request, or under the span of that id, whose own line may be gone:
    by time, each once, and how many more there are."""
    known = {span.trace_id: span for span in reversed(list(spans))}
    children = _children(known.values())
    wanted = {
        span.trace_id
        for span in known.values()
        if trace_id in (span.ops_trace_id, span.trace_id, span.parent_id)
    }
    todo = list(wanted)
    while todo:
        for child in children.get(todo.pop(), ()):
            if child.trace_id not in wanted:
                wanted.add(child.trace_id)
                todo.append(child.trace_id)
    ordered = sorted((known[trace_id] for trace_id in wanted), key=_order)
    return ordered[:MAX_SPANS], max(0, len(ordered) - MAX_SPANS)


def grow(spans: Sequence[Span], causes: Sequence[Cause], start: float) -> list[JSON]:
    """Hang span steps from each other and from the steps that caused them; those that nothing here caused.

    spans: each once, by time. start: of the whole trace, epoch seconds.
    """
    steps = {span.trace_id: _step(span, start) for span in spans}
    parents = {span.trace_id: span.parent_id for span in spans}
    roots: list[JSON] = []
    for span in spans:
        step = steps[span.trace_id]
        if span.parent_id in steps and not _is_own_ancestor(span.trace_id, parents):
            _add(steps[span.parent_id], step)
        elif (cause := _cause(span, causes)) is not None:
            _add(cause.document, step)
        else:
            roots.append(step)
    return roots


def _children(spans: Iterable[Span]) -> Mapping[str, list[Span]]:
    children: dict[str, list[Span]] = {}
    for span in spans:
        if span.parent_id:
            children.setdefault(span.parent_id, []).append(span)
    return children


def _is_own_ancestor(trace_id: str, parents: Mapping[str, str]) -> bool:
    """Whether the way up comes back to where it began, as only damaged lines say."""
    above = parents[trace_id]
    for _ in parents:
        if above == trace_id:
            return True
        if above not in parents:
            return False
        above = parents[above]
    return True


def _cause(span: Span, causes: Sequence[Cause]) -> Cause | None:
    """Of the nearest kind the last one that began before the span; the first one where clocks differ."""
    for kind in _CAUSES:
        of_kind = [cause for cause in causes if cause.kind == kind and span.loop_id in {"", cause.loop_id}]
        before = [cause for cause in of_kind if cause.at <= span.at + _SLACK_SECONDS]
        if of_kind:
            during = [cause for cause in before if cause.at <= span.at]
            return max(during or before, key=lambda cause: cause.at, default=of_kind[0])
    return None


def _add(document: dict[str, JSON], step: JSON) -> None:
    steps = document.setdefault("steps", [])
    if isinstance(steps, list):
        steps.append(step)


def _step(span: Span, start: float) -> dict[str, JSON]:
    return drop(
        {
            "kind": "span",
            "loopId": span.loop_id or None,
            "at": format_utc_milliseconds(span.at),
            "offsetSeconds": round(span.at - start, 3),
            "durationSeconds": round(span.seconds, 6),
            "status": span.status or None,
            "file": span.file or None,
            "detail": span.detail,
        }
    )


def _order(span: Span) -> tuple[float, float]:
    """By time; of those that began in the same moment the longer one is around the other."""
    return span.at, -span.seconds


def _text(record: JSON, name: str) -> str:
    value = get(record, name)
    return value if isinstance(value, str) else ""
