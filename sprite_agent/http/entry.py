"""What is looked at before anything else: that a request is one, and that no web page sent it."""

from urllib.parse import urlsplit

from sprite_agent.admission import FIELD_BYTES, Admission, headers_bytes
from sprite_agent.http.calls import Call
from sprite_agent.security import is_loopback
from spritemesh.errors import OpsError
from spritemesh.ids import printable


def head_refusal(call: Call, most_bytes: int) -> OpsError | None:
    """`invalid_request` for a head that is too large, or tells of two lengths; None for others.

    most_bytes: of the request line and all headers, each counted as `sprite_agent.admission` does.

    A proxy may take the length that we do not, and what follows for another request (RFC 9112, 6.1).
    """
    size = len(call.method) + call.target_bytes + FIELD_BYTES + headers_bytes(call.headers)
    if size > most_bytes:
        return OpsError("invalid_request", f"the head is larger than {most_bytes} bytes")
    if call.values("transfer-encoding") and call.values("content-length"):
        return OpsError("invalid_request", "Content-Length and Transfer-Encoding exclude each other")
    return None


def origin_refusal(call: Call, admission: Admission) -> OpsError | None:
    """`foreign_origin` when a web page of another host may have sent the request; None otherwise.

    For a server that wants no secret of callers: a browser reaches loopback, too, and shows its owner's
    certificate to whatever a page asks. To an open server even a name of a stranger may be made to lead.
    """
    if admission.wants_secret:
        return None
    for origin in call.values("origin"):
        if not is_loopback(_host(origin)):
            problem = f"a page of {printable(origin)} may not call a server without a token"
            return OpsError("foreign_origin", problem)
    for host in call.values("host") if admission.is_open else ():
        if not is_loopback(_host(f"//{host}")):
            return OpsError("foreign_origin", f"an open agent is not called {printable(host)}")
    return None


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
