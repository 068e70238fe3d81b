"""What a person sees of a document on a terminal.

Functions take a v1 document and return something that rich prints. They read leniently, since a
document may come from a damaged file or another version. All text of a document goes through `shown`:
it comes from a sandbox, and must not reach the terminal as control sequences or markup.

rich costs 60 ms to import, so it is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TextIO

from spritemesh import jsontext
from spritemesh.jsontext import JSON
from spritemesh.reasons import REASONS
from spritemesh.values import first, get

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text
    from rich.tree import Tree

# Words that a person should see at once; everything else is plain.
_STYLES = {
    **dict.fromkeys(("healthy", "complete", "ok", "success", "fresh", "confirmed", "high"), "green"),
    **dict.fromkeys(("running", "idle", "aligned"), "cyan"),
    **dict.fromkeys(("degraded", "awaiting_approval", "ambiguous", "medium", "warning"), "yellow"),
    **dict.fromkeys(("critical", "failed", "error", "failed_command", "blocked", "low"), "bold red"),
    **dict.fromkeys(("ordering_drift_detected", "drift_active", "timeout", "rate_limited"), "bold red"),
    **dict.fromkeys(("unknown", "none", "-", "skipped", "stopped"), "dim"),
}
_MESSAGE_CHARS = 200

# Rows of facts: name -> places in the document, each `path` or `label path`.
_STATUS_FACTS = {
    "state": ("lifecycle.state", "confidence lifecycle.confidence"),
    "run": ("lifecycle.runId", "iteration lifecycle.iteration"),
    "log": ("read cursor.eventLineOffset", "of cursor.eventLineCount"),
    "last pass": (
        "reconcile.lastStatus",
        "reconcile.lastFailureCode",
        "reconcile.lastTransport",
        "reconcile.lastTimestamp",
    ),
    "last intent": (
        "control.lastIntent",
        "control.lastStatus",
        "by control.lastRequestedBy",
        "control.lastTimestamp",
    ),
    "heartbeat": (
        "visibility.heartbeat.freshnessStatus",
        "visibility.heartbeat.reasonCode",
        "visibility.heartbeat.lastHeartbeatAt",
    ),
    "order": ("visibility.sequence.status", "visibility.sequence.violations"),
    "profile": ("tuning.appliedProfile", "recommended tuning.recommendedProfile", "drift.status"),
    "alerts": (
        "alerts.dispatch.status",
        "sent alerts.dispatch.dispatchedCount",
        "failed alerts.dispatch.failedCount",
        "alerts.dispatch.failureReasonCodes",
        "last alerts.lastDelivery.escalationCategory",
        "alerts.lastDelivery.status",
        "alerts.lastDelivery.timestamp",
    ),
    "trace of pass": ("traceLinkage.reconcileTraceId",),
    "of control": ("traceLinkage.controlTraceId",),
    "of alert": ("traceLinkage.alertTraceId",),
}
_STATE_FACTS = {
    "state": (
        "transition.currentState",
        "before transition.previousState",
        "confidence transition.confidence",
    ),
    "because of": ("transition.triggeringSignal",),
    "run": ("run.runId", "iteration run.iteration"),
    "log": ("line cursor.eventLineOffset", "projection.lastEventName", "projection.lastEventAt"),
    "gates": ("projection.gates",),
}
_SNAPSHOT_FACTS = {
    "status": ("run.status",),
    "run": ("run.runId", "iteration run.iteration"),
    "log": ("lines health.eventCount", "health.lastEventName", "health.lastEventAt"),
    "gates": ("health.gates",),
    "taken": ("emittedAt", "trace traceId"),
}


def to_text(make: Callable[[JSON], RenderableType], document: JSON, stream: TextIO) -> str:
    """`make(document)` as text for `stream`: coloured when it is a terminal."""
    from rich.console import Console

    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(make(document))
    return capture.get()


def shown(value: JSON) -> str:
    """A value in one line of harmless text: what is not printable is escaped, null is `-`."""
    if value is None:
        return "-"
    text = value if isinstance(value, str) else jsontext.encode(value).decode()
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def tree(document: JSON, title: str = "") -> RenderableType:
    """Any document as a tree of its members."""
    from rich.tree import Tree

    root = Tree(bold(title or _title(document)))
    _grow(root, document)
    return root


def status(document: JSON, failure: JSON = None) -> RenderableType:
    """The status document (contract J): how the loop is, why, and what to do next.

    failure: as in `health`.
    """
    from rich.console import Group

    told = health(get(document, "health"), failure)
    return Group(_heading(document), facts(document, _STATUS_FACTS), told)


def state(document: JSON) -> RenderableType:
    """The state document of project-state and reconcile (contract F, G.2)."""
    from rich.console import Group

    parts: list[RenderableType] = [_heading(document), facts(document, _STATE_FACTS)]
    flags = get(document, "divergence", "flags")
    if isinstance(flags, dict) and any(flags.values()):
        parts.append(tree({name: on for name, on in flags.items() if on}, "divergence"))
    if get(document, "health") is not None:
        parts.append(health(get(document, "health")))
    return Group(*parts)


def health(document: JSON, failure: JSON = None) -> RenderableType:
    """The health document (contract G.6), each reason with what to do next. failure: why the last pass
    failed, which only its row of telemetry tells; None: it did not."""
    from rich.console import Group

    parts: list[RenderableType] = [facts(document, {"health": ("status", "updatedAt")})]
    if failure is not None:
        parts.append(_indented(plain(f"the last pass failed: {shown(failure)}", "yellow"), 2))
    reasons = get(document, "reasons")
    for reason in reasons if isinstance(reasons, list) else ():
        measured = f"{shown(get(reason, 'metric'))} {shown(get(reason, 'observed'))}"
        words = (
            bold(shown(get(reason, "code"))),
            word(get(reason, "severity")),
            plain(f"{measured} (threshold {shown(get(reason, 'threshold'))})"),
        )
        parts.append(_indented(plain("  ").join(words), 2))
        row = REASONS.get(shown(get(reason, "code")))
        if row:
            parts.append(_indented(plain(row.next_step, "dim"), 4))
    return Group(*parts)


def snapshot(document: JSON) -> RenderableType:
    """The snapshot envelope (contract B.3)."""
    from rich.console import Group

    table = grid("artifact", ">bytes", ">lines", "path")
    artifacts = get(document, "artifacts")
    for name, artifact in artifacts.items() if isinstance(artifacts, dict) else ():
        there = get(artifact, "exists") is True
        sizes = [shown(get(artifact, field)) if there else "-" for field in ("sizeBytes", "lineCount")]
        table.add_row(plain(shown(name)), *sizes, word(get(artifact, "path")), style=None if there else "dim")
    return Group(_heading(document), facts(document, _SNAPSHOT_FACTS), table)


def event_line(document: JSON) -> str:
    """An event envelope (contract C.3) as one line without colour, for a stream of them."""
    event = get(document, "event")
    message = first(get(event, "message"), get(event, "payload"), None)
    words = (
        f"{shown(get(document, 'sequence', 'value')):>6}",
        f"{shown(get(event, 'timestamp')):<20}",
        f"{shown(get(event, 'name')):<24}",
        *(shown(value) for name in ("role", "status") if (value := get(event, name)) is not None),
        "" if message is None else shown(message)[:_MESSAGE_CHARS],
    )
    return "  ".join(words).rstrip()


def facts(document: JSON, rows: Mapping[str, tuple[str, ...]]) -> Table:
    """A line for each row: what stands at its places, in order, those that say nothing left out."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, places in rows.items():
        words = []
        for place in places:
            label, _, path = place.rpartition(" ")
            value = get(document, *path.split("."))
            if value is not None and value not in ([], {}):
                words.append(plain(f"{label} " if label else "").append_text(members(value)))
        table.add_row(name, plain("  ").join(words) if words else word(None))
    return table


def grid(*columns: str) -> Table:
    """An empty table; a column named with `>` in front holds numbers."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        name = column.removeprefix(">")
        table.add_column(name, justify="left" if name == column else "right", overflow="fold")
    return table


def _heading(document: JSON) -> Text:
    loop, repo = (get(document, "source", name) for name in ("loopId", "repoPath"))
    return bold(shown(loop)).append(f"  {shown(repo)}", style="not bold dim")


def members(value: JSON) -> Text:
    """A value in a row of facts: an object as `name=value` of each member."""
    if not isinstance(value, dict):
        return word(value)
    return plain("  ").join(
        plain(f"{shown(name)}=").append_text(word(member)) for name, member in value.items()
    )


def word(value: JSON) -> Text:
    text = shown(value)
    return plain(text, _STYLES.get(text, ""))


def _indented(text: Text, columns: int) -> RenderableType:
    from rich.padding import Padding

    return Padding(text, (0, 0, 0, columns), expand=False)


def plain(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style=style)


def bold(text: str) -> Text:
    return plain(text, "bold")


def _title(document: JSON) -> str:
    names = (get(document, name) for name in ("envelopeType", "loopId", "profile"))
    return shown(first(*names, "document"))


def _grow(branch: Tree, value: JSON) -> None:
    pairs = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    for name, member in pairs:
        label = plain(shown(name), "dim")
        if isinstance(member, dict | list) and member:
            _grow(branch.add(label), member)
        else:
            branch.add(label.append("  ").append_text(word(member)))
