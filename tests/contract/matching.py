"""Comparing what a step gave with what was recorded, placeholders and all.

Where both texts are JSON, their documents are compared: the same keys in the same order, numbers as
doubles, everything else exactly. A text that is not JSON is compared exactly but for placeholders.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from spritemesh.times import format_utc, parse_strict

_UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_PATTERNS = {
    "<now>": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "<int>": r"\d+",
    "<sha256>": r"[0-9a-f]{64}",
    "<uuid>": _UUID4,
    "<key>": r"(?:cancel|approve|reject)-\d+-\d+",
    "<tmp>": r".+",
    "<text>": r"(?s:.*)",
    "<nl>": r"(?:\\n|\n)",
    "<usage>": r"(?s:usage: .+)",
}
_PLACEHOLDER = re.compile("|".join(_PATTERNS))
_RELATIVE_NOW = re.compile(r"<now([+-]\d+)>")
# Placeholders that stand for a number although they are written as a string.
_NUMBERS = ("<int>", "<mtime>")

Document = Any


class Run(NamedTuple):
    """Values of one run of a case. started: whole epoch seconds. known: placeholder -> value to fill in."""

    started: int
    known: Mapping[str, str]

    def knowing(self, more: Mapping[str, str]) -> "Run":
        """The same run, with more values known."""
        return self._replace(known={**self.known, **more})

    def fill(self, text: str) -> str:
        """`text` with every placeholder replaced whose value is known before the run."""
        text = _RELATIVE_NOW.sub(lambda match: format_utc(self.started + int(match[1])), text)
        for placeholder, value in self.known.items():
            text = text.replace(placeholder, value)
        return text


class Mismatch(AssertionError):
    """What was found is not what was recorded."""

    def __init__(self, where: str, expected: object, found: object) -> None:
        super().__init__(f"{where}\n  recorded: {expected!r}\n  found:    {found!r}")


def parse(text: str) -> list[Document] | None:
    """The documents of a JSON text or of JSON lines; None when it is neither."""
    for chunks in ([text], text.splitlines()):
        try:
            return [json.loads(chunk) for chunk in chunks]
        except ValueError:
            continue
    return None


def match_text(
    where: str,
    recorded: str,
    found: str,
    run: Run,
    adjust: Callable[[Document, Document], None] | None = None,
) -> None:
    """Raise Mismatch unless the text `found` is what was `recorded`.

    adjust: is given each pair of documents before they are compared, and may change both.
    """
    recorded = run.fill(recorded)
    wanted = parse(recorded)
    if wanted is None or not recorded:
        match_string(where, recorded, found, run)
        return
    given = parse(found)
    if given is None or len(given) != len(wanted):
        raise Mismatch(f"{where}: documents", recorded, found)
    # One line or indented, and the newline at the end, are contract too (0.1).
    if _form(recorded, len(wanted)) != _form(found, len(given)):
        raise Mismatch(f"{where}: form", recorded, found)
    for number, (want, have) in enumerate(zip(wanted, given, strict=True), 1):
        if adjust is not None:
            adjust(want, have)
        match(f"{where}[{number}]" if len(wanted) > 1 else where, want, have, run)


def _form(text: str, documents: int) -> tuple[bool, bool]:
    return text.count("\n") > documents, text.endswith("\n")


def match(where: str, recorded: Document, found: Document, run: Run) -> None:
    """Raise Mismatch unless the document `found` is what was `recorded` (placeholders filled)."""
    if isinstance(recorded, str):
        if recorded in _NUMBERS:
            if isinstance(found, bool) or not re.fullmatch(r"\d+", str(found)):
                raise Mismatch(where, recorded, found)
        elif not isinstance(found, str):
            raise Mismatch(where, recorded, found)
        else:
            match_string(where, recorded, found, run)
    elif isinstance(recorded, dict):
        if not isinstance(found, dict) or list(recorded) != list(found):
            raise Mismatch(
                f"{where}: members", list(recorded), list(found) if isinstance(found, dict) else found
            )
        for name, member in recorded.items():
            match(f"{where}.{name}", member, found[name], run)
    elif isinstance(recorded, list):
        if not isinstance(found, list) or len(recorded) != len(found):
            raise Mismatch(where, recorded, found)
        for index, (want, have) in enumerate(zip(recorded, found, strict=True)):
            match(f"{where}[{index}]", want, have, run)
    elif isinstance(recorded, bool) or recorded is None:
        if recorded is not found:
            raise Mismatch(where, recorded, found)
    elif isinstance(found, bool) or not isinstance(found, int | float) or float(recorded) != float(found):
        raise Mismatch(where, recorded, found)


def match_string(where: str, recorded: str, found: str, run: Run) -> None:
    """Raise Mismatch unless the string `found` is `recorded`, placeholders standing for what they may."""
    pattern, end = "", 0
    for placeholder in _PLACEHOLDER.finditer(recorded):
        pattern += re.escape(recorded[end : placeholder.start()]) + f"({_PATTERNS[placeholder[0]]})"
        end = placeholder.end()
    matched = re.fullmatch(pattern + re.escape(recorded[end:]), found)
    if matched is None:
        raise Mismatch(where, recorded, found)
    for placeholder, value in zip(_PLACEHOLDER.findall(recorded), matched.groups(), strict=True):
        if placeholder == "<now>" and not run.started <= (parse_strict(value) or 0) <= time.time():
            raise Mismatch(f"{where}: a time while the case ran", recorded, found)
