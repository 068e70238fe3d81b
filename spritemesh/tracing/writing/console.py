"""The tree of spans as it happens, one line each, for people who watch a program (`--trace`).

    [alt] plan: ship it
    └─ [mem] write: facts/color → success (5ms) [saved 45 tokens]
    [alt] plan: ship it → success (12ms)

A span is told when it ends. One under which something happens first is told before that, too, so that what
is under it has something to hang from. This is about text only; `show` takes it from here.
"""

from collections.abc import Callable, Mapping

from spritemesh.tracing.catalog import POINTS
from spritemesh.tracing.layers import Layer
from spritemesh.tracing.summaries import cut, summary

_FIELD_CHARS = 60
_TOLD_CHARS = 100
# What stands between members in `Point.told`, and is left over where one is not known yet.
_BETWEEN = " →/"

_RESET, _BOLD = "\x1b[0m", "\x1b[1m"
_GREEN, _RED, _YELLOW, _GREY = "\x1b[32m", "\x1b[1;31m", "\x1b[1;33m", "\x1b[90m"
_OF_LAYER = {
    "alt": "\x1b[35m",
    "foc": "\x1b[36m",
    "rsn": "\x1b[34m",
    "lrn": "\x1b[33m",
    "mem": "\x1b[32m",
    "sys": _GREY,
}


class Console:
    """Tells of spans, whoever runs them; depth: of spans that one hangs from. show: takes each line, without
    its newline."""

    def __init__(self, show: Callable[[str], None], *, has_colours: bool) -> None:
        self._show = show
        self._has_colours = has_colours

    def began(
        self, layer: Layer, operation: str, input_summary: str, metadata: Mapping[str, object], depth: int
    ) -> None:
        """Something is about to happen under a span that is still open."""
        self._show(indented(self._opening(layer, operation, input_summary, metadata), depth))

    def ended(
        self,
        layer: Layer,
        operation: str,
        input_summary: str,
        status: str,
        duration_ms: float,
        metadata: Mapping[str, object],
        depth: int,
    ) -> None:
        """A span ended, or an event happened, whose duration is 0."""
        text = self._opening(layer, operation, input_summary, metadata)
        text += self._outcome(status, metadata)
        if duration_ms:
            text += self._in(_GREY, f" ({duration(duration_ms)})")
        if note := note_of(layer, operation, metadata):
            text += self._in(_BOLD, f" [{note}]")
        self._show(indented(text, depth))

    def _opening(
        self, layer: Layer, operation: str, input_summary: str, metadata: Mapping[str, object]
    ) -> str:
        subject = subject_of(layer, operation, input_summary, metadata)
        prefix = self._in(_OF_LAYER.get(layer.prefix, _GREY), f"[{layer.prefix}]")
        return f"{prefix} {operation}: {subject}" if subject else f"{prefix} {operation}"

    def _outcome(self, status: str, metadata: Mapping[str, object]) -> str:
        if status == "error":
            words = _known(metadata, "error_class"), _known(metadata, "error_message")
            return self._in(_RED, f" ✗ error {': '.join(word for word in words if word)}".rstrip())
        if status == "blocked":
            reason = _known(metadata, "reason")
            return self._in(_YELLOW, f" ■ blocked: {reason}" if reason else " ■ blocked")
        return self._in(_GREEN, f" → {status}")

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._has_colours else text


def indented(text: str, depth: int) -> str:
    """`text` under as many spans as `depth` says."""
    return f"{'   ' * (depth - 1)}└─ {text}" if depth else text


def subject_of(layer: Layer, operation: str, input_summary: str, metadata: Mapping[str, object]) -> str:
    """What an operation is about: as the catalog tells it, as far as it is known; else what went in."""
    point = POINTS.get(layer.name, {}).get(operation)
    if point is None:
        return input_summary
    told = point.told.format_map({name: _known(metadata, name) for name in point.fields})
    return cut(told.strip(_BETWEEN), _TOLD_CHARS) or input_summary


def note_of(layer: Layer, operation: str, metadata: Mapping[str, object]) -> str:
    """What the catalog tells behind the outcome; "" when one of its members is missing or nothing."""
    point = POINTS.get(layer.name, {}).get(operation)
    if point is None or not point.note:
        return ""
    known = {name: _known(metadata, name) for name in point.fields if metadata.get(name)}
    try:
        return point.note.format_map(known)
    except KeyError:
        return ""


def duration(milliseconds: float) -> str:
    """`5ms`, `0.35ms`, `1.2s`: as many digits as tell something."""
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.3g}s" if milliseconds < 100_000 else f"{milliseconds / 1000:.0f}s"
    return f"{milliseconds:.0f}ms" if milliseconds >= 10 else f"{milliseconds:.2g}ms"


def _known(metadata: Mapping[str, object], name: str) -> str:
    value = metadata.get(name)
    if isinstance(value, list | tuple):
        value = ", ".join(summary(item, _FIELD_CHARS) for item in value[:_FIELD_CHARS])
    return summary(value, _TOLD_CHARS if name == "error_message" else _FIELD_CHARS)
