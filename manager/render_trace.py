"""What a person sees of traces. Rules as in `manager.render`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manager.render import bold, grid, members, plain, shown, word
from spritemesh.jsontext import JSON
from spritemesh.tracing.layers import BY_WORD
from spritemesh.values import get

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text
    from rich.tree import Tree

_NOTES = ("skippedLines", "leftOutSteps", "leftOutSpans")


def trace(document: JSON) -> RenderableType:
    """The tree of a trace: of each step when it began, how long it took, and how it ended."""
    from rich.tree import Tree

    words = (shown(get(document, "traceId")), shown(get(document, "startedAt")))
    root = Tree(bold(words[0]).append(f"  {words[1]}  {_seconds(get(document, 'durationSeconds'))}", "dim"))
    _grow(root, get(document, "steps"))
    for name in _NOTES:
        if get(document, name) is not None:
            root.add(plain(f"{name} {shown(get(document, name))}", "yellow"))
    return root


def recent_traces(document: JSON) -> RenderableType:
    """The list of the last traces, the latest first, for 80 columns: of one, `trace` tells more."""
    table = grid("trace id", "last step", "status", "loops")
    for column in table.columns[:3]:
        column.no_wrap = True  # to be copied
    table.columns[3].overflow = "ellipsis"
    traces = get(document, "traces")
    for row in traces if isinstance(traces, list) else ():
        loops, last = get(row, "loops"), shown(get(row, "lastAt"))
        # Without spaces, so that they stay in one line.
        names = ",".join(map(shown, loops)) if isinstance(loops, list) else "-"
        # 01-31 12:00:00: the year and parts of seconds would take the room of the rest.
        time = plain(last[5:19].replace("T", " "))
        table.add_row(plain(shown(get(row, "traceId"))), time, word(get(row, "status")), plain(names))
    return table


def _grow(branch: Tree, steps: JSON) -> None:
    for step in steps if isinstance(steps, list) else ():
        label = _span(step) if get(step, "kind") == "span" else _step(step)
        _grow(branch.add(label), get(step, "steps"))


def _step(step: JSON) -> Text:
    label = _began(step).append_text(bold(shown(get(step, "kind"))))
    if get(step, "status") is not None:
        label.append("  ").append_text(word(get(step, "status")))
    if get(step, "durationSeconds") is not None:
        label.append(f"  {_seconds(get(step, 'durationSeconds'))}")
    label.append(f"  {shown(get(step, 'loopId'))}", "cyan")
    if get(step, "detail"):
        label.append("  ").append_text(members(get(step, "detail")))
    return label


def _span(step: JSON) -> Text:
    """A span much as the tracer's console tells it: `[alt] plan: ship it → done  success  0.005 s`."""
    detail = get(step, "detail")
    layer = BY_WORD.get(str(get(detail, "layer")))
    prefix = shown(get(detail, "layer")) if layer is None else layer.prefix
    label = _began(step).append(f"[{prefix}] ", "magenta").append_text(bold(shown(get(detail, "operation"))))
    if get(detail, "input") is not None:
        label.append(f": {shown(get(detail, 'input'))}")
    if get(detail, "output") is not None:
        label.append(f" → {shown(get(detail, 'output'))}")
    label.append("  ").append_text(word(get(step, "status")))
    label.append(f"  {_seconds(get(step, 'durationSeconds'))}")
    if get(detail, "component") is not None:
        label.append(f"  {shown(get(detail, 'component'))}", "dim")
    if get(detail, "metadata"):
        label.append("  ").append_text(members(get(detail, "metadata")))
    return label


def _began(step: JSON) -> Text:
    told = _seconds(get(step, "offsetSeconds"))
    # What began before the first step caused it.
    return plain(f"{'' if told.startswith('-') else '+'}{told}  ", "dim")


def _seconds(value: JSON) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.3f} s" if number else shown(value)
