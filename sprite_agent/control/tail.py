"""The end of what a command wrote, as it is kept: the last lines, and no more than a bound (contract E.4)."""

from typing import NamedTuple

TAIL_LINES = 40
TAIL_BYTES = 64 * 1024


class Kept(NamedTuple):
    """text: without carriage returns at line ends, without newlines at its end. truncated: it is not all."""

    text: str
    truncated: bool


class Tail:
    """Takes output as it comes, in bounded memory."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._cut = False

    def add(self, data: bytes) -> None:
        """Take what was written next."""
        self._data += data
        if len(self._data) > 2 * TAIL_BYTES:
            del self._data[:-TAIL_BYTES]
            self._cut = True

    def kept(self) -> Kept:
        """What is kept of it. NUL is left out, as bash does; bytes that are no UTF-8 become U+FFFD."""
        cut = self._cut or len(self._data) > TAIL_BYTES
        lines = self._data[-TAIL_BYTES:].replace(b"\0", b"").decode("utf-8", "replace").split("\n")
        if not lines[-1]:
            lines.pop()
        text = "\n".join(line.removesuffix("\r") for line in lines[-TAIL_LINES:]).rstrip("\n")
        encoded = text.encode()
        if len(encoded) > TAIL_BYTES:  # U+FFFD is longer than what it stands for
            text, cut = encoded[-TAIL_BYTES:].decode("utf-8", "ignore"), True
        return Kept(text, cut or len(lines) > TAIL_LINES)
