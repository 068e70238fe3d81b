"""Errors that carry a reason code, and what each becomes at an edge.

One class: whoever catches it decides by `reason`, never by the sentence. The sentence is for people,
names the field and the kind of its value, and holds no secret.
"""

from spritemesh.reasons import REASONS, Fault, Reason

# gRPC status names as text, so that command lines need not import grpc.
GRPC_STATUS: dict[Fault, str] = {
    Fault.NONE: "INTERNAL",
    Fault.REQUEST: "INVALID_ARGUMENT",
    Fault.CREDENTIALS: "UNAUTHENTICATED",
    Fault.FORBIDDEN: "PERMISSION_DENIED",
    Fault.MISSING: "NOT_FOUND",
    Fault.CONFLICT: "FAILED_PRECONDITION",
    Fault.REUSED: "ALREADY_EXISTS",
    Fault.CONCURRENT: "ABORTED",
    Fault.UNKNOWN_METHOD: "UNIMPLEMENTED",
    Fault.BUSY: "UNAVAILABLE",
    Fault.LATE: "DEADLINE_EXCEEDED",
    Fault.LIMIT: "RESOURCE_EXHAUSTED",
    Fault.DATA: "FAILED_PRECONDITION",
    Fault.PEER: "UNAVAILABLE",
    Fault.INTERNAL: "INTERNAL",
}


class OpsError(Exception):
    """A refusal or failure with a reason of the one table.

    reason: code, must be in the table (KeyError otherwise, a defect).
    message: one line for people.
    field: name of the flag or request field at fault, or "".
    retry_after: seconds after which a retry may help; None when the caller decides.
    """

    def __init__(
        self, reason: str, message: str, *, field: str = "", retry_after: float | None = None
    ) -> None:
        self.row: Reason = REASONS[reason]
        self.reason = reason
        self.message = one_line(message)
        self.field = field
        self.retry_after = retry_after
        super().__init__(self.message)

    @property
    def grpc_status(self) -> str:
        """Name of the grpc.StatusCode member that this becomes on the wire."""
        return GRPC_STATUS[self.row.fault]


def one_line(text: str) -> str:
    """`text` in one line that a status, a document and a terminal can take.

    What is not printable is escaped: messages hold paths that are no text, and words of a peer that
    must not reach a terminal as control sequences.
    """
    text = text.replace("\n", " ")
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def kind_of(value: object) -> str:
    """The JSON kind of a parsed value, for messages: "null", "boolean", "number", "string", ..."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list | tuple):
        return "array"
    if isinstance(value, dict):
        return "object"
    return "number"
