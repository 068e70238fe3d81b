"""Inputs that hold several parts: `--- name` on a line of its own begins each.

So that a corpus stays readable, and a mutation of one file does not tear the others.
"""

import re
from collections.abc import Iterable

_MARK = re.compile(rb"(?m)^--- ([^\n]*)\n?")


def split(data: bytes) -> list[tuple[str, bytes]]:
    """Names and contents in order; what stands before the first mark has the name ""."""
    pieces = _MARK.split(data)
    found = [("", pieces[0])] if pieces[0] else []
    for name, content in zip(pieces[1::2], pieces[2::2], strict=True):
        # The newline before the next mark is the mark's own.
        found.append((name.decode("utf-8", "replace"), content.removesuffix(b"\n")))
    return found


def join(parts: Iterable[tuple[str, bytes]]) -> bytes:
    """The input that `split` takes apart again."""
    return b"".join(b"--- " + name.encode() + b"\n" + content + b"\n" for name, content in parts)
