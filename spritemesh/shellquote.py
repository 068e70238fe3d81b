"""Words as bash's `printf %q` quotes them, for people to paste (contract E.4). Nothing here runs a shell."""

from collections.abc import Iterable

_SPECIAL = frozenset(" '\"\\|&;()<>!{}*[]?^$`,")
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
    if any(_is_control(char) for char in word):
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


def _is_control(char: str) -> bool:
    """Whether it has to be named: a control character, or a byte of a path that is no UTF-8."""
    return char < " " or "\x7f" <= char < "\xa0" or "\ud800" <= char <= "\udfff"


def _escaped(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    if not _is_control(char):
        return char
    return "".join(f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogateescape"))
