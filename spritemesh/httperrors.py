"""The reason that an answer of a bridge names in its error body (contract D.2)."""

import re

from spritemesh import jsontext
from spritemesh.reasons import REASONS
from spritemesh.values import get

# Where v1 has a word of its own for a refusal, the bridge puts the reason behind the message.
_REASON_BEHIND = re.compile(r"(?s:(.*)) \[([a-z0-9_]+)\]\Z")


def told_reason(body: bytes) -> tuple[str, str] | None:
    """Reason code of the table, and message; None when the body names none."""
    try:
        document = jsontext.parse(body)
    except jsontext.JSONError:
        return None
    code, message = get(document, "error", "code"), get(document, "error", "message")
    if not isinstance(code, str) or not isinstance(message, str):
        return None
    found = _REASON_BEHIND.match(message)
    if found is not None and found[2] in REASONS:
        return found[2], found[1]
    return (code, message) if code in REASONS else None
