"""What several targets ask of an answer."""

import json

from spritemesh.errors import OpsError
from spritemesh.reasons import REASONS, Fault


def check_json(data: bytes) -> None:
    """That it is one JSON document by the standard library's rules, too, in UTF-8."""
    json.loads(data.decode(), parse_int=str, parse_constant=_no_constant)


def check_refusal(error: OpsError, *names: str) -> str:
    """That an error is one for people, and names one of these; its reason."""
    assert error.row.fault is not Fault.INTERNAL, error
    check_reason(error.reason)
    assert error.message.isprintable()
    assert not names or any(name in error.message for name in names), f"it names no file: {error.message}"
    return error.reason


def check_reason(reason: str) -> None:
    """That a code is of the one table."""
    assert reason in REASONS, f"{reason!r} is no reason of the table"


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
