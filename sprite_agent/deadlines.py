"""How long a call may take that names no time itself, at each edge."""

from typing import NamedTuple

from spritemesh.control import MAX_TIMEOUT_SECONDS, Confirmation
from spritemesh.errors import OpsError

# Of a runtime command, unless an agent is told otherwise.
COMMAND_SECONDS = 60.0
# Beside a command and the look for its effect: turns that are waited for, and records that are written.
_CONTROL_MARGIN_SECONDS = 15.0
# A document of a whole log may take so many times as long as another answer.
_DOCUMENT_TIMES = 10


class Deadlines(NamedTuple):
    """Seconds. request: for a request to arrive, whatever its deadline. unary: of an answer. command: that a
    runtime command may take."""

    request: float
    unary: float
    command: float

    @property
    def document(self) -> float:
        """Of a document of events, until it begins to be sent."""
        return self.unary * _DOCUMENT_TIMES

    def control(self, confirmation: Confirmation) -> float:
        """Of a control request. confirmation: as asked for, not checked yet."""
        look = 0.0 if confirmation.skip else confirmation.timeout_seconds
        return self.command + min(max(look, 0.0), MAX_TIMEOUT_SECONDS) + _CONTROL_MARGIN_SECONDS


def late(seconds: float, *, control: bool = False) -> OpsError:
    """What a caller is told whose call took too long. A control request goes on, and is recorded."""
    rest = "; the request goes on: ask for its outcome by its key" if control else ""
    return OpsError("deadline_exceeded", f"there was no answer within {seconds:g} s{rest}")
