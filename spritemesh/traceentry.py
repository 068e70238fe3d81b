"""One step of a trace, as the index holds it (see `spritemesh.traceindex`)."""

from collections.abc import Mapping
from typing import NamedTuple

from spritemesh.jsontext import JSON

# Kind -> members of its row that are worth a place in `detail`.
DETAIL_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "session": ("reasonCode", "cause", "line", "events", "active"),
    "reconcile": ("transport", "eventsIngested", "failureCode", "healthStatus"),
    "escalation": ("category", "reasonCode", "healthStatus", "reasonCodes", "failureCode"),
    "alert": ("eventSeverity", "reasonCode", "sinkCount", "dispatchedSinkCount", "retryAttempt"),
}


# A longer step is none: what is beyond comes of a damaged row.
_LONGEST_SECONDS = 1e15


def duration(value: JSON) -> float | None:
    """The seconds that a row tells; None for what is no duration."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LONGEST_SECONDS
    return value if usable else None


class Entry(NamedTuple):
    """One step of a trace. at: epoch seconds when it began. seconds: how long it took, None: a moment.

    kind: intent, invocation, runtime, confirmation, effect, session, reconcile, escalation or alert. status:
    how it ended, in the words of its artifact. file: artifact with the whole row, relative to the repository.
    detail: a few small members for people; no secrets. What joins steps to one tree are its members
    `idempotencyKey` (all steps of one control request) and `category` (escalations and their alerts).
    """

    trace_id: str
    at: float
    loop_id: str
    kind: str
    status: str = ""
    seconds: float | None = None
    file: str = ""
    detail: JSON = None
