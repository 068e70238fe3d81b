"""What the bridge answers: JSON in ASCII, and the one table from reasons to HTTP statuses (contract D.2)."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from starlette.responses import Response

from spritemesh import jsontext
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.reasons import Fault

CONTENT_TYPE = "application/json"


class Status(NamedTuple):
    """HTTP status and the code of the error body. code "": the reason itself, where v1 has no word."""

    number: int
    code: str = ""


_INVALID = Status(400, "invalid_request")
_RUNTIME = Status(502, "runtime_error")
# Of a request that ran nothing because something that control rests on is away.
_CLOSED = Status(503)

_OF_FAULT: dict[Fault, Status] = {
    Fault.NONE: Status(500),
    Fault.REQUEST: _INVALID,
    Fault.CREDENTIALS: Status(401, "unauthorized"),
    Fault.FORBIDDEN: Status(403),
    Fault.MISSING: _RUNTIME,
    Fault.CONFLICT: Status(409),
    Fault.REUSED: _INVALID,
    Fault.CONCURRENT: Status(409),
    Fault.UNKNOWN_METHOD: Status(405),
    Fault.BUSY: _RUNTIME,
    Fault.LATE: Status(504),
    Fault.LIMIT: Status(503),
    Fault.DATA: _RUNTIME,
    Fault.PEER: _RUNTIME,
    Fault.INTERNAL: Status(500),
}
_OF_REASON: dict[str, Status] = {
    "unknown_path": Status(404, "not_found"),
    "invalid_json": Status(400, "invalid_json"),
    "body_too_large": Status(413, "invalid_request"),
    "metadata_too_large": Status(431, "invalid_request"),
    "control_rate_limited": Status(429),
    "too_many_failures": Status(429),
    "body_timeout": Status(408, "invalid_request"),
    "agent_draining": _CLOSED,
    # A command may have run, and v1's client repeats 500 and 503, with a new key each time.
    "audit_unavailable": Status(507),
    "foreign_origin": Status(403),
    "ledger_unavailable": _CLOSED,
    "ledger_corrupt": _CLOSED,
}
# A v1 client repeats what was answered 502; a control request of a loop that is not there is not worth it.
# One that is late goes on, and would be run again with a new key.
_OF_CONTROL_FAULT: dict[Fault, Status] = {Fault.MISSING: Status(404, "not_found"), Fault.LATE: Status(507)}


def json_answer(document: JSON, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A document as an answer, with its length."""
    return Response(
        jsontext.encode_ascii(document), status, headers={"content-type": CONTENT_TYPE, **(headers or {})}
    )


def error_answer(error: OpsError, *, control: bool = False) -> Response:
    """The answer to a refused request; the fine reason stands in brackets where the code is v1's.

    control: of POST /ops/control.
    """
    status = _OF_REASON.get(error.reason) or _OF_FAULT[error.row.fault]
    if control:
        status = _OF_CONTROL_FAULT.get(error.row.fault, status)
    code = status.code or error.reason
    message = error.message if code == error.reason else f"{error.message} [{error.reason}]"
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    if status.number == 401:
        headers["www-authenticate"] = "Bearer"
    if status.number == 405:
        headers["allow"] = "GET, HEAD, POST"
    document = {"ok": False, "error": {"code": code, "message": message}}
    return json_answer(document, status.number, headers)
