"""The runtime's spans in the tree of a trace: below the step that caused them (`ops-manager trace`).

A span whose metadata names the ops trace id is what a process began with; everything below it hangs from it
by its parent id, also what other processes added. Lines come in the order in which spans ended, children
first.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON, JSONError, encode, parse
from spritemesh.times import format_utc_milliseconds, parse_rfc3339
from spritemesh.values import drop, get

# Of a larger tree the first ones are shown.
MAX_SPANS = 1000
# Spans that stand deeper among others are left out, so that documents are no deeper than any of ours may be.
MAX_DEPTH = 100
# Longer texts are cut, characters; the tracer's have 100, and ids 33.
_TEXT_CHARS = 300
_ID_CHARS = 128
# Metadata that is larger or deeper is left to `spritemesh trace view`.
_METADATA_BYTES = 2048
_METADATA_DEPTH = 32
# Kinds of steps that run something in the sprite, the nearest first.
_CAUSES = ("runtime", "invocation", "intent")
_SYSTEM = "system"
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
    """Spans of a trace that are shown, by time, each once. left_out: those that are not, at least. damaged:
    lines that are none. problem: why some files were not read."""

    found: Sequence[Span] = ()
    left_out: int = 0
    damaged: int = 0
    problem: OpsError | None = None


NO_SPANS = Spans()


class Cause(NamedTuple):
    """A step that spans may hang from. at: epoch seconds. seconds: how long it took, None when that is not
    known. document: gets them as its `steps`."""

    kind: str
    loop_id: str
    at: float
    seconds: float | None
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
        if shown is not None and not _is_small(shown):
            shown = None
    detail = {
        "spanId": trace_id[:_ID_CHARS],
        "parentId": _text(record, "parent_id")[:_ID_CHARS] or None,
        "layer": _cut(record, "hrm_layer") or None,
        "operation": _cut(record, "operation") or None,
        "component": _cut(record, "component") or None,
        "input": _cut(record, "input_summary") or None,
        "output": _cut(record, "output_summary") or None,
        "metadata": shown,
    }
    return Span(
        trace_id,
        _text(record, "parent_id"),
        at,
        seconds,
        _cut(record, "status"),
        loop_id,
        file,
        _text(metadata, "ops_trace_id"),
        drop(detail),
    )


def below(spans: Iterable[Span], trace_id: str) -> tuple[list[Span], int]:
    """Those under the spans that name the request, or under the span of that id, whose own line may be gone:
    by time, and how many more there are. spans: each once."""
    known = {span.trace_id: span for span in spans}
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
    ordered = sorted((span for span in known.values() if span.trace_id in wanted), key=_order)
    parents = {span.trace_id: span.parent_id for span in ordered[:MAX_SPANS]}
    shown = [span for span in ordered[:MAX_SPANS] if _depth(span.trace_id, parents) < MAX_DEPTH]
    return shown, len(ordered) - len(shown)


def grow(spans: Sequence[Span], causes: Sequence[Cause], start: float) -> list[JSON]:
    """Hang span steps from each other and from the steps that caused them; those that nothing here caused.

    spans: each once, by time. start: of the whole trace, epoch seconds.
    """
    steps = {span.trace_id: _step(span, start) for span in spans}
    parents = {span.trace_id: span.parent_id for span in spans}
    causes = [cause for cause in causes if cause.kind in _CAUSES]
    roots: list[JSON] = []
    for span in spans:
        step = steps[span.trace_id]
        if _depth(span.trace_id, parents):
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


def _depth(trace_id: str, parents: Mapping[str, str]) -> int:
    """How many spans are above; 0 where the way up comes to a circle, as only damaged lines say."""
    above = parents[trace_id]
    for depth in range(len(parents)):
        if above not in parents:
            return depth
        above = parents[above]
    return 0


def _cause(span: Span, causes: Sequence[Cause]) -> Cause | None:
    """The step that was running when the span began: the last of those that began before it. When none did,
    clocks may differ: the nearest step, unless the span goes on beyond it, as one that caused it would."""

    def rank(cause: Cause) -> tuple[bool, float, int]:
        is_running = cause.seconds is None or span.at <= cause.at + cause.seconds
        return is_running, cause.at, -_CAUSES.index(cause.kind)

    end = span.at + span.seconds
    possible = [cause for cause in causes if span.loop_id in {"", cause.loop_id}]
    if span.detail.get("layer") == _SYSTEM:
        # The agent's own work is around the runtime's, whose step may not tell when it began.
        possible = [cause for cause in possible if cause.kind != "runtime"] or possible
    before = [cause for cause in possible if cause.at <= span.at]
    if before:
        return max(before, key=rank)
    behind = [
        cause
        for cause in possible
        if cause.at <= span.at + _SLACK_SECONDS and end < cause.at + (cause.seconds or 0.0)
    ]
    return min(behind, key=lambda cause: (_CAUSES.index(cause.kind), cause.at), default=None)


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


def _is_small(metadata: JSON) -> bool:
    text = encode(metadata)
    if len(text) > _METADATA_BYTES:
        return False
    try:
        parse(text, max_depth=_METADATA_DEPTH)
    except JSONError:
        return False
    return True


def _cut(record: JSON, name: str) -> str:
    text = _text(record, name)
    return text if len(text) <= _TEXT_CHARS else f"{text[:_TEXT_CHARS]}..."


def _text(record: JSON, name: str) -> str:
    value = get(record, name)
    return value if isinstance(value, str) else ""
