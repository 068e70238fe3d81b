"""A request to step in: what it holds, what is refused of it, and when two are the same (contract E)."""

import os
from hashlib import sha256
from typing import NamedTuple

from spritemesh import jsontext
from spritemesh.errors import OpsError
from spritemesh.ids import has_control, printable, validate_loop_id, validate_trace_id
from superloop.ops.v1 import control_pb2 as pb

INTENTS = ("cancel", "approve", "reject")
MAX_NOTE_BYTES = 4096
MAX_REQUESTED_BY_BYTES = 256
MAX_KEY_CHARS = 128
MAX_TARGET_CHARS = 256
# Longer confirmation is a watch, not an answer.
MAX_TIMEOUT_SECONDS = 3600.0
MAX_INTERVAL_SECONDS = 3600.0
_IN_LINES = "\n\r\t"

_INTENT_ENUM = {
    "cancel": pb.CONTROL_INTENT_CANCEL,
    "approve": pb.CONTROL_INTENT_APPROVE,
    "reject": pb.CONTROL_INTENT_REJECT,
}

RequestMessage = pb.CancelLoopRequest | pb.ApprovePendingRequest | pb.RejectPendingRequest


class Confirmation(NamedTuple):
    """Whether and how long to look for the effect, seconds. An interval of 0 means 1 (contract E.3)."""

    skip: bool = False
    timeout_seconds: float = 30.0
    interval_seconds: float = 2.0


class ControlRequest(NamedTuple):
    """One request. intent: of INTENTS. Empty texts mean: none given.

    even_if_nothing_pending: run approve or reject without a pending approval, as v1 does.
    """

    loop_id: str
    intent: str
    idempotency_key: str
    requested_by: str = ""
    note: str = ""
    trace_id: str = ""
    confirmation: Confirmation = Confirmation()
    expected_run_id: str = ""
    expected_approval_id: str = ""
    even_if_nothing_pending: bool = False

    @property
    def fingerprint(self) -> str:
        """What two requests of one key must agree in (contract L15).

        Not the trace id and times. Nor even_if_nothing_pending: not every way to an agent can tell it, and
        once the command has been run it decides nothing.
        """
        members = (
            self.loop_id,
            self.intent,
            self.requested_by,
            self.note,
            self.confirmation.skip,
            self.expected_run_id,
            self.expected_approval_id,
        )
        return sha256(jsontext.encode(list(members))).hexdigest()


def check_request(request: ControlRequest) -> ControlRequest:
    """Return `request` when nothing of it is refused. Raises OpsError, naming the field.

    Line feeds, carriage returns and tabs may stand in a note and a name, as in v1; other control characters
    nowhere.
    """
    validate_loop_id(request.loop_id, field="loop_id")
    if request.intent not in INTENTS:
        raise OpsError(
            "unknown_intent",
            f"intent must be one of {', '.join(INTENTS)}, not {printable(request.intent)}",
            field="intent",
        )
    check_key(request.idempotency_key)
    by = request.requested_by
    _check_text(by, "requested_by", MAX_REQUESTED_BY_BYTES, "requested_by_too_long", allowed=_IN_LINES)
    _check_text(request.note, "note", MAX_NOTE_BYTES, "note_too_long", allowed=_IN_LINES)
    if request.trace_id:
        validate_trace_id(request.trace_id, field="trace_id")
    for field, text in (
        ("expected_run_id", request.expected_run_id),
        ("expected_approval_id", request.expected_approval_id),
    ):
        _check_text(text, field, MAX_TARGET_CHARS, "invalid_request")
    _check_seconds(request.confirmation.timeout_seconds, "confirmation.timeout", MAX_TIMEOUT_SECONDS)
    _check_seconds(request.confirmation.interval_seconds, "confirmation.interval", MAX_INTERVAL_SECONDS)
    return request


def check_key(key: str, *, field: str = "idempotency_key") -> str:
    """Return an idempotency key. Raises OpsError `idempotency_key_missing` or `invalid_idempotency_key`."""
    if not key:
        raise OpsError("idempotency_key_missing", f"{field} is required", field=field)
    if len(key) > MAX_KEY_CHARS or not key.isprintable():
        raise OpsError(
            "invalid_idempotency_key",
            f"{field} takes 1 to {MAX_KEY_CHARS} printable characters, not {printable(key)}",
            field=field,
        )
    return key


def new_key(intent: str, now: float) -> str:
    """A fresh idempotency key of v1's form `<intent>-<epoch seconds>-<digits>` (contract E.2).

    The digits are the process id and 60 random bits: two managers in containers often have the same pid.
    """
    return f"{intent}-{int(now)}-{os.getpid()}{int.from_bytes(os.urandom(8)) >> 4:018d}"


def repeat_hint(request: ControlRequest) -> str:
    """What to do when nobody told what became of a request, for a message."""
    from spritemesh.shellquote import quote_words

    return (
        "it may have been run: repeat it with the same key to learn, --idempotency-key"
        f" {quote_words([request.idempotency_key])}"
    )


def intent_word(intent: "pb.ControlIntent.ValueType") -> str:
    """ "cancel", "approve" or "reject"; "" for an intent that is not known here."""
    return next((word for word, value in _INTENT_ENUM.items() if value == intent), "")


def intent_value(word: str) -> "pb.ControlIntent.ValueType":
    """The enum value of one of INTENTS."""
    return _INTENT_ENUM[word]


def to_message(request: ControlRequest) -> RequestMessage:
    """The message of a request: the one of its intent."""
    message: RequestMessage
    if request.intent == "cancel":
        message = pb.CancelLoopRequest()
    else:
        message = pb.ApprovePendingRequest() if request.intent == "approve" else pb.RejectPendingRequest()
        message.expected_approval_id = request.expected_approval_id
        message.even_if_nothing_pending = request.even_if_nothing_pending
    message.loop_id = request.loop_id
    message.requested_by = request.requested_by
    message.note = request.note
    message.idempotency_key = request.idempotency_key
    message.trace_id = request.trace_id
    message.expected_run_id = request.expected_run_id
    message.confirmation.skip = request.confirmation.skip
    message.confirmation.timeout.FromMilliseconds(round(request.confirmation.timeout_seconds * 1000))
    message.confirmation.interval.FromMilliseconds(round(request.confirmation.interval_seconds * 1000))
    return message


def from_message(message: RequestMessage) -> ControlRequest:
    """The request of a message, not yet checked."""
    policy, default = message.confirmation, Confirmation()
    if isinstance(message, pb.CancelLoopRequest):
        intent, approval_id, anyway = "cancel", "", False
    else:
        intent = "approve" if isinstance(message, pb.ApprovePendingRequest) else "reject"
        approval_id, anyway = message.expected_approval_id, message.even_if_nothing_pending
    return ControlRequest(
        loop_id=message.loop_id,
        intent=intent,
        idempotency_key=message.idempotency_key,
        requested_by=message.requested_by,
        note=message.note,
        trace_id=message.trace_id,
        confirmation=Confirmation(
            policy.skip,
            policy.timeout.ToMilliseconds() / 1000 if policy.HasField("timeout") else default.timeout_seconds,
            policy.interval.ToMilliseconds() / 1000
            if policy.HasField("interval")
            else default.interval_seconds,
        ),
        expected_run_id=message.expected_run_id,
        expected_approval_id=approval_id,
        even_if_nothing_pending=anyway,
    )


def _check_text(text: str, field: str, limit: int, reason: str, *, allowed: str = "") -> None:
    if has_control(text.translate({ord(char): None for char in allowed})):
        raise OpsError("control_characters", f"{field} contains a control character", field=field)
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise OpsError("invalid_request", f"{field} is not valid UTF-8", field=field) from error
    if size > limit:
        raise OpsError(reason, f"{field} is {size} bytes long; at most {limit} are taken", field=field)


def _check_seconds(seconds: float, field: str, limit: float) -> None:
    if not 0 <= seconds <= limit:
        raise OpsError(
            "invalid_request",
            f"{field} must be between 0 and {limit:g} seconds, not {seconds:g}",
            field=field,
        )
