"""What `metadata` becomes in a line: JSON, of bounded size, whatever the program put in.

Members that JSON has a kind for are kept as they are, down to some depth; anything else becomes its `repr`,
cut.
"""

from collections.abc import ItemsView, Iterable, Mapping
from itertools import islice
from math import isfinite
from typing import Any

from spritemesh.tracing.summaries import ELLIPSIS, cut, summary, told

# Longest text of a member, longest name of one, and members and items altogether.
TEXT_CHARS = 2_000
NAME_CHARS = 100
ITEMS = 500
# Containers in containers.
_DEPTH = 8
# What 64 bits hold, signed or not.
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1


def is_simple(metadata: Mapping[str, object]) -> bool:
    """Whether all of it is short and plain, as nearly always, so that it can be written without `bounded`."""
    value: Any
    for value in metadata.values():
        kind = type(value)
        if kind is str:
            if len(value) > TEXT_CHARS:
                return False
        elif kind is int:
            if not _SMALLEST <= value <= _LARGEST:
                return False
        elif kind is float:
            if not isfinite(value):
                return False
        elif kind is not bool and value is not None:
            return False
    return True


def bounded(
    metadata: Mapping[object, object], *, texts: int = TEXT_CHARS, items: int = ITEMS
) -> dict[str, object]:
    """A copy that JSON can hold. texts: characters that a text may have. items: members and items altogether;
    of too many members the first and the last stay, since what is known at the end is told last."""
    members = list(metadata.items())
    if len(members) > items:
        members = members[: items // 2] + members[-(items // 2) :]
    plain = _Plain(texts=texts, items=items - len(members))
    return {name_of(name): plain.value(value, _DEPTH) for name, value in members}


def name_of(value: object) -> str:
    """`value` as the name of a member."""
    return summary(value, NAME_CHARS) if value is not None else "None"


class _Plain:
    """Makes values plain; texts and items are as `bounded` has them."""

    def __init__(self, *, texts: int, items: int) -> None:
        self._texts = texts
        self._items = items

    def value(self, value: Any, depth: int) -> object:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if issubclass(kind, str):
            return _text(str.__str__(value), self._texts)
        if kind is int and _SMALLEST <= value <= _LARGEST:
            return value
        if kind is float and isfinite(value):
            return value
        try:
            if kind is dict:
                pairs = self._some(value.items(), len(value), depth)
                return {name_of(name): self.value(item, depth - 1) for name, item in pairs}
            if kind is list or kind is tuple:
                return [self.value(item, depth - 1) for item in self._some(value, len(value), depth)]
        except RuntimeError:
            return f"<{kind.__name__} that changed meanwhile>"
        return _text(told(value, self._texts), self._texts)

    def _some(self, items: Iterable[Any], count: int, depth: int) -> list[Any]:
        """Of a container the items that there is room for; "…" tells of others."""
        taken = list(islice(items, self._items if depth > 0 else 0))
        self._items -= len(taken)
        if len(taken) < count:
            # As an item, and as name and value of a member.
            taken.append((ELLIPSIS, count) if isinstance(items, ItemsView) else ELLIPSIS)
        return taken


def _text(text: str, limit: int) -> str:
    """`text` without halves of characters, cut after `limit`."""
    text = cut(text, limit)
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
