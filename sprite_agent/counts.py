"""What an agent counts as it goes: calls that ended, and control requests that were answered.

Everything else that metrics tell is read when they are scraped. One event loop uses it.
"""

from collections import Counter
from typing import NamedTuple

from spritemesh.control import INTENTS
from superloop.ops.v1 import control_pb2 as pb

# Words beside the reason codes of the table, for a call that ended well, whose caller went away, or that was
# ended with a bare status.
OK = "ok"
CANCELLED = "cancelled"
# Stands for whatever strangers may name: labels have few values.
UNKNOWN = "_unknown"

# How control requests end beside the statuses of an outcome.
REFUSED = "refused"
REPLAYED = "replayed"


class EndedCall(NamedTuple):
    """A kind of call. edge: "grpc" or "http". method: of those served, or UNKNOWN. reason: a code of the
    table, OK, CANCELLED or UNKNOWN."""

    edge: str
    method: str
    reason: str


class AnsweredControl(NamedTuple):
    """A kind of control request. intent: of INTENTS, or UNKNOWN. status: a status_word, REPLAYED or
    REFUSED."""

    intent: str
    status: str


class Counts:
    """Counts since the start."""

    def __init__(self) -> None:
        self.calls: Counter[EndedCall] = Counter()
        # From 0 on: a count that begins with 1 did not grow, for those who look how much it grew.
        words = (*(status_word(status) for status in pb.ControlStatus.values() if status), REPLAYED, REFUSED)
        self.controls: Counter[AnsweredControl] = Counter(
            {AnsweredControl(intent, word): 0 for intent in INTENTS for word in words}
        )

    def call_ended(self, edge: str, method: str, reason: str) -> None:
        """Count a call."""
        self.calls[EndedCall(edge, method, reason)] += 1

    def control_answered(self, intent: str, status: str) -> None:
        """Count a control request; an intent that is none is counted as UNKNOWN."""
        self.controls[AnsweredControl(intent if intent in INTENTS else UNKNOWN, status)] += 1


def status_word(status: "pb.ControlStatus.ValueType") -> str:
    """A status in lower case."""
    return pb.ControlStatus.Name(status).removeprefix("CONTROL_STATUS_").lower()
