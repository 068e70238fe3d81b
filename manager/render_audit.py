"""What a person sees of a verified audit. Rules as in `manager.render`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manager.render import plain, shown
from spritemesh.jsontext import JSON
from spritemesh.values import get

if TYPE_CHECKING:
    from rich.console import RenderableType

_WORDS = {
    "whole": "whole",
    "tampered": "TAMPERED",
    "no_audit": "no control request was ever recorded",
    "no_chain": "no chain yet: it begins with the next control request",
}
_STYLES = {"whole": "green", "tampered": "bold red"}
_NOTES = {
    "before_chain": "written before the chain began",
    "unchained": "written by somebody without a row in the chain: a v1 tool, or one who was killed",
    "without_row": "at the end have no row yet: a v1 tool wrote them, or one who was killed",
    "torn_row": "stand behind a torn row of the chain, as a crash leaves one",
}


def audit(document: JSON) -> RenderableType:
    """The document of `ops-manager audit verify`."""
    from rich.console import Group

    loops = get(document, "loops")
    if not loops:
        return plain(f"no audit of control in {shown(get(document, 'repo'))}", "dim")
    parts: list[RenderableType] = []
    for loop in loops:
        parts += _loop(loop)
    return Group(*parts)


def _loop(loop: JSON) -> list[RenderableType]:
    status = shown(get(loop, "status"))
    heading = plain(shown(get(loop, "loopId")), "bold").append("  ")
    parts: list[RenderableType] = [heading.append_text(plain(_WORDS[status], _STYLES.get(status, "")))]
    if get(loop, "lines"):
        parts.append(plain(f"  {loop['lines']} lines, {loop['chained']} of them chained"))
    if get(loop, "chained"):
        parts.append(plain(f"  head {shown(loop['head'])}", "dim"))
    for note in loop["notes"]:
        first, last = note["firstLine"], note["lastLine"]
        where = f"line {first}" if first == last else f"{note['count']} lines, {first} to {last}"
        parts.append(plain(f"  {where}: {_NOTES.get(note['kind'], note['kind'])}"))
    fault = get(loop, "fault")
    if fault:
        parts.append(plain(f"  {shown(fault['message'])}", "bold"))
        key, at = shown(fault["idempotencyKey"]), shown(fault["at"])
        if key or at:
            parts.append(plain(f"  key {key or '-'}  time {at or '-'}"))
    return parts
