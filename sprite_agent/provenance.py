"""Who connected, as far as an edge could prove it; what a caller says of itself is `requested_by`."""

from contextvars import ContextVar
from hashlib import sha256
from typing import NamedTuple

# Of a token's digest: enough to tell the tokens of a fleet apart, too little to guess a strong one by.
_TOKEN_ID_DIGITS = 12
_TOKEN_ID_LABEL = b"spritemesh-token-id\n"


class Provenance(NamedTuple):
    """Who connected.

    edge: where the request came in: grpc, http or local. token_id: see `token_id`; "" without a token.
    key_id: of the key that signed, "" when nothing was signed. identities: names in the client's
    certificate, the first is the one it goes by; none without. address: the peer's, such as
    "127.0.0.1:4711" or "unix"; of a local caller its user, such as "uid 1000 (ada)".
    """

    edge: str = "local"
    token_id: str = ""
    key_id: str = ""
    identities: tuple[str, ...] = ()
    address: str = ""

    @property
    def identity(self) -> str:
        """What limits count a caller by: its certificate's name, else its key, its token, its host."""
        if self.identities:
            return self.identities[0]
        return self.key_id or self.token_id or host_of(self.address)


# Of the call that a task works on.
CURRENT: ContextVar[Provenance] = ContextVar("provenance")


def token_id(token: str) -> str:
    """A name for a token that does not give it away: 12 hexadecimal digits of
    SHA-256("spritemesh-token-id\\n" + token); "" for none."""
    if not token:
        return ""
    return sha256(_TOKEN_ID_LABEL + token.encode()).hexdigest()[:_TOKEN_ID_DIGITS]


def host_of(address: str) -> str:
    """The host of "host:port", without brackets; other addresses as they are."""
    host, colon, _ = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]") if colon else address
