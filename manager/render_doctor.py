"""What a person sees of a report of `ops-manager doctor`. Rules as in `manager.render`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from manager.render import plain
from sprite_agent.probe.report import advice_of, detail_of, subjects_of
from sprite_agent.probe.steps import Result, Step

if TYPE_CHECKING:
    from rich.console import RenderableType

_STYLES = {Result.OK: "green", Result.WARNING: "yellow", Result.FAILED: "bold red", Result.SKIPPED: "dim"}


def report(steps: Sequence[Step]) -> RenderableType:
    """Subjects, their steps, and what to do."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table

    width = max((len(step.name) for step in steps), default=0)
    parts: list[RenderableType] = []
    for subject in subjects_of(steps):
        parts.append(plain(subject.heading, "bold"))
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(min_width=max(map(len, Result)), no_wrap=True)
        table.add_column(min_width=width, no_wrap=True)
        table.add_column(overflow="fold")
        for step in subject.steps:
            style = _STYLES[step.result]
            table.add_row(plain(str(step.result), style), plain(step.name), plain(detail_of(step)))
            if advice := advice_of(step):
                table.add_row("", "", plain(advice, style))
        if subject.steps:
            parts.append(Padding(table, (0, 0, 0, 2)))
    return Group(*parts)
