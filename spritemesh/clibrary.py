"""Calls of the C library that Python does not have."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes


@cache
def library() -> "ctypes.CDLL":
    """The C library; AttributeError for what it does not have."""
    import ctypes  # few callers need it

    # Each one is a circle, which only the collector frees.
    return ctypes.CDLL(None, use_errno=True)


def give_back_memory() -> None:
    """Return to the system what was freed; where the C library has no call for that, nothing happens.

    What comes and goes in a process that lives long leaves holes between what stays, and glibc keeps them: in
    a manager of 200 sprites a quarter of its memory. Takes some milliseconds.
    """
    try:
        library().malloc_trim(0)
    except AttributeError:
        return
