"""What a person sees of a control intent. Rules as in `manager.render`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manager.render import facts, plain, shown
from spritemesh.jsontext import JSON
from spritemesh.reasons import REASONS
from spritemesh.values import get

if TYPE_CHECKING:
    from rich.console import RenderableType

# Of a command's output; its row has the rest.
_OUTPUT_LINES = 10

_FACTS = {
    "status": ("status", "exit code exitCode", "replayed replayed"),
    "effect": ("effect",),
    "looked": (
        "confirm.reason",
        "times confirm.attempts",
        "status confirm.observedStatus",
        "last event confirm.observedLastEvent",
    ),
    "asked": ("by requestedBy", "note note", "timestamp"),
    "connected": ("connected",),
    "command": ("command",),
    "key": ("idempotencyKey", "trace traceId"),
}


def control(document: JSON) -> RenderableType:
    """A row of intents.jsonl (contract E.4) with `replayed`, `effect`, `reason` and `connected` beside it."""
    from rich.console import Group
    from rich.padding import Padding

    def indented(text: str) -> RenderableType:
        return Padding(plain(text, "dim"), (0, 0, 0, 2), expand=False)

    parts: list[RenderableType] = [
        plain(f"{shown(get(document, 'intent'))} {shown(get(document, 'loopId'))}", "bold"),
        facts(document, _FACTS),
    ]
    output = get(document, "commandOutput")
    if isinstance(output, str):
        parts += [indented(shown(line)) for line in output.splitlines()[-_OUTPUT_LINES:]]
    row = REASONS.get(shown(get(document, "reason")))
    if row:
        parts += [plain(row.code, "bold").append(f"  {row.meaning}", "not bold"), indented(row.next_step)]
    return Group(*parts)
