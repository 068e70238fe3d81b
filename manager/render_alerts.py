"""What a person sees of the documents about alerts (contract I.2, I.3); see manager.render.

rich is imported where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from manager.render import facts, grid, plain, shown, word
from spritemesh.jsontext import JSON
from spritemesh.values import get

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_CATALOG_FACTS = {
    "catalog": ("sourceFile",),
    "least severity": ("defaultMinSeverity",),
    "default sinks": ("routing.defaultSinks",),
    "severities": ("routing.categorySeverity",),
}
_ROUTE_FACTS = {
    "catalog": ("sourceFile",),
    "category": ("category",),
    "severity": ("eventSeverity", "at least minSeverity"),
    "route": ("route",),
    "sent": ("shouldDispatch",),
}
_DISPATCH_FACTS = {
    "dispatch": ("status", "updatedAt", "trace traceId"),
    "lines": ("passed escalationsLineOffset", "of escalationsLineCount"),
    "new": (
        "lines processedCount",
        "dispatched dispatchedCount",
        "skipped skippedCount",
        "failed failedCount",
    ),
    "reasons": ("failureReasonCodes",),
    "telemetry": ("dispatchTelemetryFile",),
}


def sinks(document: JSON) -> RenderableType:
    """The catalog: its sinks, and whether the variables that they need are set."""
    from rich.console import Group

    return Group(facts(document, _CATALOG_FACTS), _sinks(document, get(document, "sinks")))


def route(document: JSON) -> RenderableType:
    """Who is told of one category."""
    from rich.console import Group

    told = {get(sink, "id") for sink in _elements(get(document, "dispatchableSinks"))}
    return Group(
        facts(document, _ROUTE_FACTS),
        _sinks(document, get(document, "selectedSinks")),
        plain(f"told: {', '.join(shown(name) for name in told) or 'nobody'}"),
    )


def dispatch(document: JSON, retries: str) -> RenderableType:
    """A pass of dispatch. retries: path of the queue, "" when nothing waits for another try."""
    from rich.console import Group

    parts: list[RenderableType] = [facts(document, _DISPATCH_FACTS)]
    if retries:
        parts.append(plain(f"some alerts wait for another try: {shown(retries)}", "yellow"))
    return Group(*parts)


def _sinks(document: JSON, listed: JSON) -> Table:
    rows = grid("sink", "type", "enabled", ">seconds", "variables")
    for sink in _elements(listed):
        names = get(sink, "secretRefs")
        words = [
            word(name).append("" if get(document, "envStatus", name, "present") else " (not set)")
            for name in (names.values() if isinstance(names, dict) else ())
            if name is not None
        ]
        rows.add_row(
            plain(shown(get(sink, "id")), "bold"),
            word(get(sink, "type")),
            word(get(sink, "enabled")),
            shown(get(sink, "timeoutSeconds")),
            plain("  ").join(words),
            style=None if get(sink, "enabled") is True else "dim",
        )
    return rows


def _elements(value: JSON) -> list[JSON]:
    return value if isinstance(value, list) else []
