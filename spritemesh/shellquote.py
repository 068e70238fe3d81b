"""Words as bash's `printf %q` quotes them, for people to paste (contract E.4). Nothing here runs a shell."""

from collections.abc import Iterable

_SPECIAL = frozenset(" '\"\\|&;()<>!{}*[]?^$`,")
# Categories of Unicode.
_PRINTED = frozenset({"Cf", "Co", "Zs"})
_NAMED = {
    "\a": "\\a",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\v": "\\v",
    "\f": "\\f",
    "\r": "\\r",
    "\x1b": "\\E",
    "\\": "\\\\",
    "'": "\\'",
}


def quote_words(words: Iterable[str]) -> str:
    """The words, quoted, with single spaces between."""
    return " ".join(map(quote, words))


def quote(word: str) -> str:
    """One word."""
    if not word:
        return "''"
    if not word.isprintable() and any(map(_is_named, word)):
        return "$'" + "".join(map(_escaped, word)) + "'"
    quoted = []
    before = ""
    for char in word:
        special = (
            char in _SPECIAL or (char == "#" and not before) or (char == "~" and before in {"", ":", "="})
        )
        quoted.append("\\" + char if special else char)
        before = char
    return "".join(quoted)


def _is_named(char: str) -> bool:
    """Whether it has to be named. Python's `isprintable` is stricter than bash: spaces of other kinds, marks
    of format and private characters are printed."""
    if char.isprintable():
        return False
    from unicodedata import category

    return category(char) not in _PRINTED


def _escaped(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    if not _is_named(char):
        return char
    return "".join(f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogateescape"))
