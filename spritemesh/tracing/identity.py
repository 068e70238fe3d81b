"""Ids of spans, and when they began: `{prefix}_{unix seconds}_{16 hexadecimal digits}`.

The digits are a start of 64 random bits, drawn anew each second, plus a large odd step for each id: so the
ids of a process never repeat within a second, and an id costs no system call, during which other threads
would take the interpreter. Two processes that are copies of one (a fork, a sprite that was cloned) part at
the next second at the latest; after a fork, at once.
"""

import os
from itertools import count
from typing import NamedTuple, TypeGuard

from spritemesh.times import format_utc
from spritemesh.tracing.layers import BY_WORD

MASK = 2**64 - 1
# 2**64 divided by the golden ratio: neighbours share no digits.
STEP = 0x9E3779B97F4A7C15
# Readers accept ids of others, whose last part may be shorter or longer than ours.
_SHORTEST, _LONGEST = 4, 64
_LONGEST_SECONDS = 15

numbers = count()


class Second(NamedTuple):
    """What the ids and timestamps of one second share.

    number: Unix seconds. digits: as ids have them, with their underscores. start: of the last part.
    date: the timestamp up to its fraction.
    """

    number: int
    digits: str
    start: int
    date: str


latest = Second(-1, "", 0, "")


def began(number: int) -> Second:
    """The second `number`, which becomes the latest."""
    global latest  # noqa: PLW0603 - read where each nanosecond counts
    latest = Second(number, f"_{number}_", int.from_bytes(os.urandom(8)), format_utc(number)[:-1] + ".")
    return latest


def new_id(prefix: str, seconds: float) -> str:
    """A new id of a layer, given its prefix and the time in Unix seconds."""
    number = int(seconds)
    second = latest if latest.number == number else began(number)
    return f"{prefix}{second.digits}{second.start + next(numbers) * STEP & MASK:016x}"


def is_trace_id(value: object) -> TypeGuard[str]:
    """Whether `value` has the form of an id: a layer's prefix, seconds, and 4 to 64 of `[0-9a-z]`."""
    if type(value) is not str or not value.isascii():
        return False
    prefix, _, rest = value.partition("_")
    seconds, _, last = rest.partition("_")
    return (
        BY_WORD.get(prefix, ("", ""))[1] == prefix
        and seconds.isdigit()
        and len(seconds) <= _LONGEST_SECONDS
        and _SHORTEST <= len(last) <= _LONGEST
        and last.isalnum()
        and last == last.lower()
    )


def _part() -> None:
    """In the child of a fork: its ids go on from elsewhere."""
    began(latest.number)


os.register_at_fork(after_in_child=_part)
