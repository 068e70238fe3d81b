"""What a person sees of a fleet: one row a loop, the worst first. Rules as in `manager.render`.

The three livenesses stand apart: the way to the sprite, its agent, and the runtime's process. Where there is
little room they shrink to a mark each, then the columns go that matter least; a row never takes two lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import nsmallest
from typing import TYPE_CHECKING, NamedTuple

from manager.fleet.document import (
    Fleet,
    agent_word,
    connection_word,
    heartbeat_age,
    lag_lines,
    runtime_word,
    summarize,
)
from manager.render import plain, shown, word
from spritemesh.times import format_utc
from superloop.ops.v1 import manager_pb2 as pb

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table
    from rich.text import Text


class Row(NamedTuple):
    """One loop in words for a terminal, harmless and in one line each; `-` is not known, or none."""

    loop: str
    connection: str
    agent: str
    runtime: str
    state: str
    iteration: str
    lag: str
    heartbeat: str
    sequence: str
    health: str
    reason: str
    trace: str


class Column(NamedTuple):
    """A column. title: of its full form. least: cells that it needs to be of use."""

    field: str
    title: str
    least: int


class Shape(NamedTuple):
    """How a table fits a width. cells: field -> width, in order. marks: the livenesses are one mark each."""

    cells: dict[str, int]
    marks: bool


_COLUMNS = (
    Column("loop", "loop", 14),
    Column("connection", "conn", 7),
    Column("agent", "agent", 6),
    Column("runtime", "run", 5),
    Column("state", "state", 9),
    Column("iteration", "iter", 4),
    Column("lag", "lag", 4),
    Column("heartbeat", "beat", 4),
    Column("sequence", "order", 5),
    Column("health", "health", 8),
    Column("reason", "reason", 20),
    Column("trace", "trace", 8),
)
_LIVENESSES = ("connection", "agent", "runtime")
# The first goes first; loop, livenesses and health stay.
_DISPENSABLE = ("trace", "iteration", "sequence", "lag", "heartbeat", "state", "reason")
# Which columns get room that is left, up to what their words need.
_GROWING = ("loop", "reason", "state", "lag", "iteration")
_NUMBERS = {"iteration", "lag", "heartbeat"}
_GAP = 2
# Words of rows that are shorter than those of documents.
_SHORT = {
    "awaiting_approval": "awaiting",
    "connecting": "connect",
    "disabled": "off",
    "draining": "drain",
    "unknown": "?",
    "unspecified": "?",
    "ordering_drift_detected": "drift",
}
_MARKS = {
    **dict.fromkeys(("up", "alive"), "●"),
    **dict.fromkeys(("down", "silent", "dead"), "✗"),
    **dict.fromkeys(("connect", "waiting", "drain"), "◐"),
    **dict.fromkeys(("off", "idle"), "-"),
}
_STYLES = {
    **dict.fromkeys(("up", "alive"), "green"),
    **dict.fromkeys(("down", "silent", "dead", "drift"), "bold red"),
    **dict.fromkeys(("connect", "waiting", "drain"), "yellow"),
    **dict.fromkeys(("off", "idle", "?"), "dim"),
}
# Counts that the summary line has only when there are any.
_WHEN_ANY = ("connecting", "waiting", "disabled", "awaiting_approval", "frozen")


def urgency(view: pb.LoopView) -> int:
    """How much a loop needs a person; 0 is the worst."""
    connection = view.connection.state
    if connection == pb.ConnectionView.STATE_DISABLED:
        return 6
    if view.health_status == "critical" or view.control_frozen:
        return 0
    if (
        connection == pb.ConnectionView.STATE_DOWN
        or view.agent.state == pb.AgentView.STATE_SILENT
        or view.runtime.state == pb.RuntimeView.STATE_DEAD
    ):
        return 1
    if view.health_status == "degraded":
        return 2
    if view.awaits_approval:
        return 3
    return 5 if connection == pb.ConnectionView.STATE_UP else 4


def worst_first(views: Iterable[pb.LoopView], most: int | None = None) -> list[pb.LoopView]:
    """The loops by urgency, then by id; `most` of them, all when it is None."""

    def key(view: pb.LoopView) -> tuple[int, str]:
        return urgency(view), view.loop_id

    return sorted(views, key=key) if most is None else nsmallest(most, views, key=key)


def row_of(view: pb.LoopView, at: float) -> Row:
    """The words of a loop. at: now on the manager's clock, epoch seconds."""
    # Why nobody is reached says more than that nobody is.
    down = view.connection.reason if view.connection.state != pb.ConnectionView.STATE_UP else ""
    vague = "transport_unreachable" if down else ""
    codes = (view.control_frozen, down, *view.reason_codes)
    reasons = [code for code in dict.fromkeys(codes) if code and code != vague]
    more = f" +{len(reasons) - 1}" if len(reasons) > 1 else ""
    return Row(
        loop=_word(view.loop_id),
        connection=_word(connection_word(view)),
        agent=_word(agent_word(view)),
        runtime=_word(runtime_word(view)),
        state=_word(view.state),
        iteration=_word(view.iteration),
        lag=count_text(lag_lines(view)),
        heartbeat=age_text(heartbeat_age(view, at)),
        sequence=_word(view.sequence_status),
        health=_word(view.health_status),
        reason=f"{_word(reasons[0] if reasons else '')}{more}",
        trace=_word(view.last_trace_id),
    )


def age_text(seconds: float | None) -> str:
    """An age in at most four characters: `59s`, `59m`, `47h`, `300d`."""
    if seconds is None:
        return "-"
    for unit, length, below in (("s", 1, 60), ("m", 60, 3600), ("h", 3600, 48 * 3600)):
        if seconds < below:
            return f"{int(seconds / length)}{unit}"
    return f"{int(seconds / 86400)}d"


def count_text(count: int) -> str:
    """A count in at most five characters: `9999`, `12k`, `3M`."""
    for unit, size in (("", 1), ("k", 1000), ("M", 1000_000)):
        if count < 10_000 * size:
            return f"{count // size}{unit}"
    return f"{count // 1000_000_000}G"


def shape_of(rows: Sequence[Row], width: int) -> Shape:
    """The columns that fit into `width` cells, and how wide each is."""
    from rich.cells import cell_len

    needs = {
        column.field: max([len(column.title), *(cell_len(getattr(row, column.field)) for row in rows)])
        for column in _COLUMNS
    }
    cells = {column.field: min(column.least, needs[column.field]) for column in _COLUMNS}
    marks = _total(cells) > width
    if marks:
        cells.update(dict.fromkeys(_LIVENESSES, 1))
    for field in _DISPENSABLE:
        if _total(cells) <= width:
            break
        del cells[field]
    spare = width - _total(cells)
    if spare < 0:
        cells["loop"] = max(1, cells["loop"] + spare)
    for field in _GROWING:
        if field in cells and spare > 0:
            more = min(spare, needs[field] - cells[field])
            cells[field] += more
            spare -= more
    # A part of a trace id is to be recognised, the whole to be copied; nothing between is of use.
    if "trace" in cells and spare >= needs["trace"] - cells["trace"]:
        cells["trace"] = needs["trace"]
    return Shape(cells, marks)


class FleetTable:
    """A fleet as rich prints it. note: a line of its own, "" for none. height: lines at most; None: as many
    as there are loops."""

    def __init__(self, fleet: Fleet, *, note: str = "", height: int | None = None) -> None:
        self._fleet = fleet
        self._note = note
        self._height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """The summary, the rows that fit, and how many do not."""
        yield _one_line(_summary(self._fleet))
        if self._note:
            yield _one_line(plain(shown(self._note), "yellow"))
        most = self._room()
        views = worst_first(self._fleet.views, most)
        if not views:
            return
        rows = [row_of(view, self._fleet.at) for view in views]
        yield _table(rows, shape_of(rows, options.max_width))
        hidden = len(self._fleet.views) - len(rows)
        if hidden:
            yield _one_line(plain(f"… and {hidden:,} more", "dim"))

    def _room(self) -> int | None:
        """How many rows fit; None: all do."""
        if self._height is None:
            return None
        room = self._height - 2 - bool(self._note)  # the summary, and titles
        if len(self._fleet.views) <= room:
            return None
        return max(1, room - 1)  # the line that tells how many more


def _total(cells: dict[str, int]) -> int:
    return sum(cells.values()) + _GAP * (len(cells) - 1)


def _word(text: str) -> str:
    return _SHORT.get(text) or shown(text) or "-"


def _summary(fleet: Fleet) -> Text:
    counts = summarize(fleet.views)
    text = plain("fleet ").append(shown(fleet.fleet_id or "-"), "bold")
    text.append(f"  {counts.loops:,} loop{'' if counts.loops == 1 else 's'}: ")
    parts = [(counts.up, "up", "green"), (counts.down, "down", "bold red")]
    parts += [(counts.degraded, "degraded", "yellow"), (counts.critical, "critical", "bold red")]
    numbers = counts._asdict()
    parts += [(numbers[name], name.replace("_", " "), "") for name in _WHEN_ANY if numbers[name]]
    for number, (count, name, style) in enumerate(parts):
        text.append(", " if number else "").append(f"{count:,} {name}", style if count else "dim")
    return text.append(f"  {format_utc(fleet.at)}", "dim")


def _table(rows: Sequence[Row], shape: Shape) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        if column.field not in shape.cells:
            continue
        marked = shape.marks and column.field in _LIVENESSES
        table.add_column(
            column.title[0].upper() if marked else column.title,
            justify="right" if column.field in _NUMBERS else "left",
            no_wrap=True,
            overflow="crop" if column.field == "trace" else "ellipsis",
            width=shape.cells[column.field],
        )
    for row in rows:
        table.add_row(*(_cell(field, getattr(row, field), marks=shape.marks) for field in shape.cells))
    return table


def _cell(field: str, text: str, *, marks: bool) -> Text:
    if field in {"loop", "reason", "trace"}:  # names, whatever they are called
        return plain(text, "dim" if text == "-" or field == "trace" else "")
    style = _STYLES.get(text)
    if marks and field in _LIVENESSES:
        return plain(_MARKS.get(text, "?"), style or "")
    return plain(text, style) if style else word(text)


def _one_line(text: Text) -> Text:
    text.no_wrap = True
    text.overflow = "ellipsis"
    return text
