"""What the demonstration shows of the fleet: a live table on a terminal, else a line a loop."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from manager.cli.output import can_draw
from manager.render import shown
from manager.render_fleet import FleetTable, Row, row_of

if TYPE_CHECKING:
    from rich.live import Live

    from manager.fleet.document import Fleet


class Screen:
    """Standard output. interval: how often to show the fleet, seconds."""

    def __init__(self) -> None:
        self._is_terminal = can_draw()
        self.interval = 1.0 if self._is_terminal else 2.0
        self._live: Live | None = None

    def show(self, fleet: "Fleet") -> None:
        """Show the fleet as it is now."""
        if self._live is not None:
            self._live.update(FleetTable(fleet), refresh=True)
        else:
            for view in fleet.views:
                print(_line(row_of(view, fleet.at), shown(view.state), view.applied_line), flush=True)

    @contextmanager
    def open(self) -> Iterator[None]:
        """On a terminal, keep the table in one place for the length of the block; it stays there after it."""
        if not self._is_terminal:
            yield
            return
        from rich.console import Console
        from rich.live import Live

        console = Console(force_terminal=True, highlight=False, markup=False, emoji=False)
        with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None


def _line(row: Row, state: str, applied: int) -> str:
    """A loop in one line, for a pipe. state: in full. applied: lines of its log."""
    reason = f" ({row.reason})" if row.reason.strip("-") else ""
    return (
        f"{row.loop:<14} {row.connection}/{row.agent}/{row.runtime}  {state}, iteration {row.iteration},"
        f" line {applied}, lag {row.lag}, heartbeat {row.heartbeat}, order {row.sequence},"
        f" {row.health}{reason}"
    )
