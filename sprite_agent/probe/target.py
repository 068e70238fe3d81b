"""Which agent is asked, and with what."""

from typing import TYPE_CHECKING, NamedTuple

from spritemesh.endpoints import Trust
from spritemesh.names import SIGNATURE_HEADER

if TYPE_CHECKING:
    from spritemesh.signer import Signer


class Target(NamedTuple):
    """One agent or v1 service.

    url: as people write it. host "": a Unix socket at `path`. path of a service: what stands before its own,
    without a slash at the end. trust None: not encrypted. pinned: the authorities of `trust` are the peer's
    own certificate, whose names need not be those of the address. token "", signer None: there is none.
    loop_id "": any.
    """

    url: str
    is_http: bool
    host: str
    port: int
    path: str = ""
    trust: Trust | None = None
    pinned: bool = False
    token: str = ""
    signer: "Signer | None" = None
    loop_id: str = ""

    @property
    def address(self) -> str:
        """As gRPC takes it."""
        if not self.host:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def credentials(self, method: str, loop_id: str = "", body: bytes = b"") -> tuple[tuple[str, str], ...]:
        """Metadata or headers of one try of a request: its token, and its signature.

        method: "/package.Service/Method", or "GET /path?query". loop_id: the one that the request names.
        """
        found = (("authorization", f"Bearer {self.token}"),) if self.token else ()
        if self.signer is None:
            return found
        return (*found, (SIGNATURE_HEADER, self.signer.header(method, loop_id, body)))
