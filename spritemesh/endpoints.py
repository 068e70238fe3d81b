"""What both ends of a connection hold to be an address and a token: what one offers, the other must take."""

from typing import NamedTuple

from spritemesh.errors import OpsError

_UNIX = "unix:///"
# What the kernel takes as the path of a socket, in bytes (unix(7): 108 with the closing zero).
SOCKET_PATH_BYTES = 107


class Trust(NamedTuple):
    """Whom a client believes to be the server, and how it proves who it is itself. Paths of PEM files.

    ca: authorities, "": those of the system. cert, key: the client's own, both or neither. server_name: that
    the server's certificate must have, "": the host of the address. member: the member of the registry that
    holds them; "": flags do.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""
    member: str = ""

    @property
    def half(self) -> tuple[str, str] | None:
        """Of "cert" and "key" the one that is given and the one that is missing; None for both or neither."""
        if bool(self.cert) == bool(self.key):
            return None
        return ("cert", "key") if self.cert else ("key", "cert")

    def named(self, part: str) -> str:
        """What gives a part: "ca", "cert", "key" or "server-name"."""
        if not self.member:
            return f"--tls-{part}"
        return f"{self.member}.{'serverName' if part == 'server-name' else part}"


def is_unix_address(text: str) -> bool:
    """Whether the text is unix:///path, as gRPC takes it."""
    return text.startswith(_UNIX) and text != _UNIX


def is_port(text: str) -> bool:
    """Whether the text is the number of a TCP port; 0 is one, of which the system chooses."""
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535


def check_token(token: str, origin: str) -> None:
    """Refuse with `invalid_request` what no header can carry: all but printable ASCII without spaces.

    origin: the flag or variable that the token came from, for whoever has to mend it.
    """
    if any(not "!" <= char <= "~" for char in token):
        raise OpsError(
            "invalid_request", f"{origin}: a token holds printable ASCII without spaces only", field=origin
        )
