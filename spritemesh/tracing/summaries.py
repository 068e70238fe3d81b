"""Values told in few characters, whatever they are and however large: at most 100, in one line.

Nothing here raises but KeyboardInterrupt, and nothing takes longer because a value is larger.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Any

SUMMARY_CHARS = 100
ELLIPSIS = "…"
# Items of a container that are looked at, and containers in containers.
_ITEMS = 8
_DEPTH = 3
# Longer numbers take long to be told.
_LARGE_BITS = 300
_JOINER = "\u200d"
_CONTAINERS: dict[type, tuple[str, str]] = {
    dict: ("{", "}"),
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("{", "}"),
}


def summary(value: object, limit: int = SUMMARY_CHARS) -> str:
    """`value` in at most `limit` characters; "" for None. Text is told as it is, others as `repr` tells
    them."""
    if value is None:
        return ""
    if type(value) is str:
        text = value
    elif issubclass(type(value), str):
        # Without what a class of its own may make of it.
        text = str.__str__(value)
    else:
        text = told(value, limit)
    if len(text) <= limit and text.isprintable():
        return text
    return cut(one_line(text, limit), limit)


def told(value: object, limit: int, depth: int = _DEPTH) -> str:
    """What `repr` would say, of large values only the beginning, and something even if it raises."""
    try:
        return str.__str__(_told(value, limit, depth))
    except KeyboardInterrupt:
        raise
    except BaseException:  # an exit, a cancellation: what a `repr` raises is not the program's end
        return f"<{type(value).__name__} that cannot be told>"


def one_line(text: str, limit: int) -> str:
    """The beginning of `text` without line ends, control characters and halves of characters, a few more than
    `limit`."""
    text = text[: 4 * limit]
    if text.isprintable():
        return text
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return " ".join("".join(" " if _is_control(char) else char for char in text).split())


def cut(text: str, limit: int) -> str:
    """`text`, or its beginning and an ellipsis, in at most `limit` characters; what a reader takes for one
    character is not taken apart, unless it is longer than that by itself."""
    if len(text) <= limit:
        return text
    end = limit - 1
    while end > 0 and _continues(text, end):
        end -= 1
    return text[: end or limit - 1].rstrip() + ELLIPSIS


def _told(value: Any, limit: int, depth: int) -> str:
    # Never what a value says its class is: it may pretend.
    kind: Any = type(value)
    if issubclass(kind, str):
        text = str.__str__(value)
        return repr(text[:limit]) + (ELLIPSIS if len(text) > limit else "")
    if kind is bytes or kind is bytearray:
        return repr(value[:limit]) + (ELLIPSIS if len(value) > limit else "")
    if kind is int and value.bit_length() > _LARGE_BITS:
        return f"<int of {value.bit_length()} bits>"
    for ours, (left, right) in _CONTAINERS.items():
        # What tells itself in its own way does so.
        if issubclass(kind, ours) and kind.__repr__ is ours.__repr__:
            return f"{left}{_items(value, limit, depth - 1) if depth else ELLIPSIS}{right}"
    fields = getattr(kind, "__dataclass_fields__", None) or getattr(kind, "_fields", None)
    if isinstance(fields, dict | tuple):
        parts = (f"{name}={told(getattr(value, name), limit, depth - 1)}" for name in fields)
        return f"{kind.__name__}({_joined(parts, limit) if depth else ELLIPSIS})"
    return repr(value)


def _items(value: Any, limit: int, depth: int) -> str:
    if isinstance(value, dict):
        pairs = islice(value.items(), _ITEMS)
        parts = (f"{told(name, limit, depth)}: {told(item, limit, depth)}" for name, item in pairs)
    else:
        parts = (told(item, limit, depth) for item in islice(value, _ITEMS))
    return _joined(parts, limit) + (f", {ELLIPSIS}" if len(value) > _ITEMS else "")


def _joined(parts: Iterable[str], limit: int) -> str:
    """The parts, until they are more than fits."""
    taken: list[str] = []
    room = limit
    for part in parts:
        taken.append(part)
        room -= len(part)
        if room < 0:
            break
    return ", ".join(taken)


def _is_control(char: str) -> bool:
    return char < " " or "\x7f" <= char <= "\x9f" or char in "\u2028\u2029"


def _continues(text: str, at: int) -> bool:
    """Whether the character at `at` belongs to what a reader takes for one character with that before it.

    The rules of Unicode's annex 29 for what text is likely to hold: marks, joiners, modifiers, tags, flags
    and Hangul syllables.
    """
    from unicodedata import category  # only for long text

    char = text[at]
    code = ord(char)
    if category(char) in {"Mn", "Mc", "Me"} or char == _JOINER or text[at - 1] == _JOINER:
        return True
    if 0x1F3FB <= code <= 0x1F3FF or 0xE0020 <= code <= 0xE007F:
        return True
    if 0x1160 <= code <= 0x11FF or 0xD7B0 <= code <= 0xD7FB:
        return True
    if _is_regional(char):
        # Two make a flag: an odd number before it leaves one that waits for this.
        start = at
        while start > 0 and _is_regional(text[start - 1]):
            start -= 1
        return (at - start) % 2 == 1
    return False


def _is_regional(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"
