"""What several services read from their requests in the same way: pages of ids, and wanted times."""

import base64
import binascii
from collections.abc import Iterable
from typing import Any, NamedTuple

from google.protobuf.duration_pb2 import Duration

from spritemesh.errors import OpsError

_DEFAULT_SIZE = 100
_MAX_SIZE = 1000


class Page(NamedTuple):
    """A page that was asked for. after: last id of the page before, "" for the first. size: ids at most."""

    after: str
    size: int


def asked_page(request: Any, most: int = _MAX_SIZE) -> Page:
    """The page of a request with `page_size` and `page_token`; most: ids that a page may hold.

    Raises OpsError `invalid_request` for a negative size and `invalid_page_token`.
    """
    if request.page_size < 0:
        raise OpsError("invalid_request", "page_size must not be negative", field="page_size")
    return Page(_decode(request.page_token), min(request.page_size or _DEFAULT_SIZE, most))


def page_of(ids: Iterable[str], page: Page) -> tuple[list[str], str]:
    """The ids of a page, and the token of the next; "" when there is none. ids: in order."""
    rest = [found for found in ids if found > page.after]
    shown = rest[: page.size]
    return shown, _encode(shown[-1]) if len(rest) > len(shown) else ""


def wanted_seconds(request: Any, field: str) -> float | None:
    """A wanted Duration in seconds; None when absent. Refuses a negative one with `invalid_request`."""
    if not request.HasField(field):
        return None
    value: Duration = getattr(request, field)
    seconds = value.seconds + value.nanos / 1e9
    if seconds < 0:
        raise OpsError("invalid_request", f"{field} must not be negative", field=field)
    return seconds


def _encode(last_id: str) -> str:
    return base64.urlsafe_b64encode(last_id.encode()).decode()


def _decode(token: str) -> str:
    try:
        return base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as error:
        raise OpsError(
            "invalid_page_token", "page_token was not made by this service", field="page_token"
        ) from error
