"""The hash chain of the invocation audit: what its rows say, and how they hold on to each other.

`control-invocations.jsonl` keeps v1's shape, so the chain is a file beside it, with one row for each of its
lines. A row ends in a member `chain`: SHA-256 over LABEL and all bytes of the row before `,"chain":`. What
that covers holds the line's digest, who connected, and `previous`, the `chain` of the row before: so nothing
can be changed, removed or moved but at the end. For the end there is a third file, the head: which row was
the last.

Nothing in it is secret: who may write all three files can make them anew. Only a head that is kept elsewhere
tells of that (`ops-manager audit verify --expect`).
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

from spritemesh import jsontext
from spritemesh.jsontext import JSON

LABEL = b"spritemesh-audit-chain\n"
# `previous` of the first row, and what a head says before there is one.
NOTHING = "0" * 64

# Where a line came from: we wrote it; it was there before the chain began; or somebody without a chain wrote
# it, a v1 tool or one of us who was killed before its row.
RECORDED, BEFORE_CHAIN, UNCHAINED = "recorded", "before_chain", "unchained"
ORIGINS = frozenset({RECORDED, BEFORE_CHAIN, UNCHAINED})

_CHAIN_MEMBER = b',"chain":"'
_ROW_END = b'"}\n'
# Bytes from the comma on.
_SEAL_BYTES = len(_CHAIN_MEMBER) + len(NOTHING) + len(_ROW_END)
_MAX_HEAD_DIGITS = 18


class Head(NamedTuple):
    """The last row of a chain. line: number of its line, from 1; 0: there is none. chain: hexadecimal."""

    line: int = 0
    chain: str = NOTHING

    def text(self) -> str:
        """As the head's file and `--expect` spell it."""
        return f"{self.line}:{self.chain}"


class ChainRow(NamedTuple):
    """A row that holds what it seals. line: number of the line it tells of, from 1. offset, size: where the
    line begins in its file and how long it is with its newline, bytes. segment: why the chain was broken off
    before this row, "" as a rule. torn: SHA-256 of the torn piece before it, "" without one. members: all."""

    line: int
    offset: int
    size: int
    digest: str
    origin: str
    previous: str
    chain: str
    segment: str
    torn: str
    members: dict[str, JSON]

    @property
    def end(self) -> int:
        """Where the next line begins."""
        return self.offset + self.size

    @property
    def head(self) -> Head:
        """The head of a chain that ends here."""
        return Head(self.line, self.chain)


def sealed(members: Mapping[str, JSON]) -> tuple[bytes, str]:
    """The row of `members`, newline included, and its `chain`."""
    covered = jsontext.encode(members)[:-1]
    chain = sha256(LABEL + covered).hexdigest()
    return covered + _CHAIN_MEMBER + chain.encode() + _ROW_END, chain


def read_row(line: bytes) -> ChainRow | None:
    """The row of a line, newline included; None when it is none, or not as it was sealed."""
    covered, seal = line[:-_SEAL_BYTES], line[-_SEAL_BYTES:]
    chain = sha256(LABEL + covered).hexdigest()
    if seal != _CHAIN_MEMBER + chain.encode() + _ROW_END:
        return None
    try:
        members = jsontext.parse(line)
    except jsontext.JSONError:
        return None
    texts = [members.get(name, "") for name in ("sha256", "origin", "previous", "segment", "torn")]
    numbers = [members.get(name) for name in ("line", "offset", "bytes")]
    if not all(isinstance(text, str) for text in texts) or texts[1] not in ORIGINS:
        return None
    if not all(type(number) is int and number >= 0 for number in numbers):
        return None
    digest, origin, previous, segment, torn = texts
    line_number, offset, size = numbers
    return ChainRow(line_number, offset, size, digest, origin, previous, chain, segment, torn, members)


def read_head(data: bytes | str) -> Head | None:
    """The head that a file or a flag spells, with or without a newline; None when it is none."""
    text = data.decode("ascii", "replace") if isinstance(data, bytes) else data
    number, _, chain = text.removesuffix("\n").partition(":")
    plain = number.isascii() and number.isdigit() and len(number) <= _MAX_HEAD_DIGITS
    if not plain or len(chain) != len(NOTHING) or chain.strip("0123456789abcdef"):
        return None
    # One spelling, so that a changed byte shows.
    head = Head(int(number), chain)
    return head if head.text() == text.removesuffix("\n") else None
