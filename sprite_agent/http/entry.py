"""What is looked at before anything else: that a request is one, and that no web page sent it."""

from urllib.parse import urlsplit

from sprite_agent.http.calls import Call
from sprite_agent.security import is_loopback
from spritemesh.errors import OpsError
from spritemesh.ids import printable

# Of request line and headers.
MAX_HEAD_BYTES = 32 * 1024
# What stands between and after the words of each line.
_LINE_BYTES = 4


def head_refusal(call: Call) -> OpsError | None:
    """`invalid_request` for a head that is too large, or tells of two lengths; None for others.

    A proxy may take the length that we do not, and what follows for another request (RFC 9112, 6.1).
    """
    size = len(call.method) + call.target_bytes + _LINE_BYTES
    size += sum(len(name) + len(value) + _LINE_BYTES for name, value in call.headers)
    if size > MAX_HEAD_BYTES:
        return OpsError("invalid_request", f"the head is larger than {MAX_HEAD_BYTES} bytes")
    if call.values("transfer-encoding") and call.values("content-length"):
        return OpsError("invalid_request", "Content-Length and Transfer-Encoding exclude each other")
    return None


def origin_refusal(call: Call) -> OpsError | None:
    """`foreign_origin` when a web page of another host may have sent the request; None otherwise.

    For an agent without a token: a browser reaches loopback, too, and a name of a stranger may be made to
    lead there.
    """
    for origin in call.values("origin"):
        if not is_loopback(_host(origin)):
            return OpsError("foreign_origin", f"a page of {printable(origin)} may not call an open agent")
    for host in call.values("host"):
        if not is_loopback(_host(f"//{host}")):
            return OpsError("foreign_origin", f"an open agent is not called {printable(host)}")
    return None


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
