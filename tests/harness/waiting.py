"""Waiting for a condition with a deadline, instead of sleeping for luck."""

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def wait_for(condition: Callable[[], _T], *, seconds: float = 10.0, what: str = "") -> _T:
    """The first true value of `condition`; fails the test when none comes in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what or condition}")
        time.sleep(0.005)
    return value
