"""Steps of a check: each has a result, a reason of the one table, what was found, and what to do about it.

No step can hold up the others: each runs in a thread of its own for so long and no longer, so that a name
server, a disk or a peer that never answers costs its time limit and nothing else.
"""

import threading
import time
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple, TypeVar

from spritemesh.errors import OpsError, one_line
from spritemesh.jsontext import JSON
from spritemesh.reasons import REASONS
from spritemesh.secrets import Scrubber

_T = TypeVar("_T")
_DETAIL_CHARS = 500


class Result(StrEnum):
    """How a step ended. SKIPPED: it does not apply, or a step that it needs failed."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Found(NamedTuple):
    """What a step found, unless it raises. next "": that of the reason."""

    result: Result
    detail: str
    reason: str = ""
    next: str = ""


class Step(NamedTuple):
    """One line of a report. subject: what was looked at, such as the address of an agent."""

    subject: str
    name: str
    result: Result
    reason: str
    detail: str
    next: str

    def document(self) -> dict[str, JSON]:
        """As commands print it; without a reason its code is null."""
        return {
            "subject": self.subject,
            "step": self.name,
            "result": str(self.result),
            "reasonCode": self.reason or None,
            "detail": self.detail,
            "next": self.next,
        }


def well(detail: str) -> Found:
    """All is as it should be."""
    return Found(Result.OK, detail)


def warn(reason: str, detail: str, then: str = "") -> Found:
    """It works, and somebody should know something. then: what to do, instead of what the reason says."""
    return Found(Result.WARNING, detail, reason, then)


def lost(reason: str, detail: str, then: str) -> Found:
    """It failed, and what to do is known better than the reason's own row knows it."""
    return Found(Result.FAILED, detail, reason, then)


def skip(detail: str) -> Found:
    """There is nothing to look at."""
    return Found(Result.SKIPPED, detail)


class Steps:
    """The steps of one subject, in order.

    seconds: of one step. whole: of all of them, seconds. secrets: what nobody may read in a report.
    """

    def __init__(self, subject: str, *, seconds: float, whole: float, secrets: Iterable[str] = ()) -> None:
        self.subject = subject
        self.seconds = seconds
        self.found: list[Step] = []
        self._deadline = time.monotonic() + whole
        self._scrubber = Scrubber(filter(None, secrets))
        # Failed, or skipped since one that they need failed.
        self._lost: set[str] = set()

    @property
    def patience(self) -> float:
        """Seconds that a peer is given within a step: it ends with what is known of the peer's silence."""
        return 0.8 * self.seconds

    def left_of(self, begun: float) -> float:
        """Seconds that a step has left which began then, by time.monotonic, to end before it is given up."""
        return 0.95 * self.seconds - (time.monotonic() - begun)

    def is_lost(self, name: str) -> bool:
        """Whether a step of this name failed, or was skipped for one that did."""
        return name in self._lost

    def take(self, name: str, work: Callable[[], Found], *, needs: Iterable[str] = ()) -> None:
        """Take a step, unless one that it needs was lost. `work` fails by raising OpsError, or by `lost`."""
        missing = next((need for need in needs if need in self._lost), None)
        if missing is not None:
            self._lost.add(name)
            self._add(name, skip(f"needs {missing}"))
            return
        left = self._deadline - time.monotonic()
        if left <= 0:
            self._lost.add(name)
            self._add(name, skip("no time was left for it"))
            return
        try:
            found = within(min(self.seconds, left), work)
        except OpsError as error:
            found = Found(Result.FAILED, error.message, error.reason)
        except Exception as error:
            # One defect must not hide what the other steps found.
            found = Found(Result.FAILED, f"{type(error).__name__}: {error}", "internal_error")
        if found.result is Result.FAILED:
            self._lost.add(name)
        self._add(name, found)

    def _add(self, name: str, found: Found) -> None:
        detail = one_line(self._scrubber.scrub(found.detail))
        if len(detail) > _DETAIL_CHARS:
            detail = detail[: _DETAIL_CHARS - 1] + "…"
        then = found.next or (REASONS[found.reason].next_step if found.reason else "")
        self.found.append(
            Step(one_line(self.subject), one_line(name), found.result, found.reason, detail, then)
        )


def within(seconds: float, work: Callable[[], _T]) -> _T:
    """The result of `work`, or what it raises. Raises OpsError `deadline_exceeded` after so many seconds;
    its thread is left behind then, and ends with the process."""
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise OpsError("deadline_exceeded", f"there was no answer within {seconds:.3g} s")
    return results[0]


def milliseconds(since: float) -> str:
    """The time since a moment of time.monotonic, for people."""
    return f"{(time.monotonic() - since) * 1000:.0f} ms"
