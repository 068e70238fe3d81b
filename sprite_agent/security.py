"""Who may call, and where a server may listen."""

import hmac
import ipaddress
import os
from collections.abc import Iterable
from typing import NamedTuple

from sprite_agent.provenance import token_id
from spritemesh.endpoints import SOCKET_PATH_BYTES, check_token, is_port, is_unix_address
from spritemesh.errors import OpsError
from spritemesh.names import SERVICE_TOKEN_VARIABLE

# Where an agent listens unless it is told otherwise.
DEFAULT_GRPC = "127.0.0.1:50551"
_MAX_TOKEN_BYTES = 4096
# Of one call, which counts as one failure: both headers, each from client and proxy. More would be guesses.
_MAX_OFFERS = 4


class TokenCheck:
    """Compares a caller's token with the server's in constant time; open when the server has none."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        # As records name it; "" without a token.
        self.id = token_id(token)

    @property
    def is_open(self) -> bool:
        """Whether every call is let in."""
        return not self._token

    def refusal(self, metadata: Iterable[tuple[str, str | bytes]]) -> OpsError | None:
        """None when `authorization: Bearer <token>` or `x-ops-token: <token>` is right (contract D.1)."""
        if not self._token:
            return None
        offers = 0
        allowed = False
        for name, value in metadata:
            if name == "authorization":
                scheme, _, credential = _text(value).strip().partition(" ")
                if scheme.lower() != "bearer":
                    continue
            elif name == "x-ops-token":
                credential = _text(value)
            else:
                continue
            offers += 1
            if offers > _MAX_OFFERS:
                break
            allowed |= hmac.compare_digest(credential.strip().encode(), self._token)
        if allowed:
            return None
        if offers:
            return OpsError("token_wrong", "the token is not the one of this server")
        return OpsError("token_missing", "a token is needed in `authorization: Bearer` or `x-ops-token`")


def read_token(
    token: str | None,
    token_file: str | None,
    environment: str | None,
    variable: str = SERVICE_TOKEN_VARIABLE,
) -> str:
    """The server's token: from the flag, else the file, else the environment; "" when there is none.

    variable: name of that of the environment, for messages.

    Raises OpsError `invalid_request` for a file that cannot be read or holds no token, and for a token
    that cannot travel in a header.
    """
    if token is not None:
        chosen, origin = token, "--token"
    elif token_file is not None:
        chosen, origin = _read_token_file(token_file, "--token-file"), "--token-file"
    else:
        chosen, origin = environment or "", variable
    return _checked_token(chosen, origin, needed=origin != variable)


def read_metrics_token(token_file: str | None, token: str) -> str:
    """The token of those who scrape: from the file of --metrics-token-file, else the program's own.

    Raises OpsError `invalid_request` as read_token does.
    """
    if token_file is None:
        return token
    origin = "--metrics-token-file"
    return _checked_token(_read_token_file(token_file, origin), origin, needed=True)


class Address(NamedTuple):
    """Where to listen. target: as gRPC takes it. shown: with the port that was asked for."""

    target: str
    host: str
    is_loopback: bool


def parse_address(text: str, *, field: str, unix: bool = True) -> Address:
    """HOST:PORT, [V6]:PORT or, if `unix`, unix:///path. Raises OpsError `invalid_request` with the flag."""
    if unix and is_unix_address(text):
        size = len(os.fsencode(text.removeprefix("unix://")))
        if size > SOCKET_PATH_BYTES:
            raise OpsError(
                "invalid_request",
                f"{field}: a socket's path has {SOCKET_PATH_BYTES} bytes at most, this one {size}: {text}",
                field=field,
            )
        return Address(text, "", is_loopback=True)
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not is_port(port):
        forms = "HOST:PORT or unix:///path" if unix else "HOST:PORT"
        raise OpsError("invalid_request", f"{field} must be {forms}: {text}", field=field)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Address(target, host, is_loopback(host))


def is_loopback(host: str) -> bool:
    """Whether a name or an address, without brackets, is of this host alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked_token(token: str, origin: str, *, needed: bool) -> str:
    token = token.strip()
    if not token and needed:
        raise OpsError("invalid_request", f"{origin} holds no token", field=origin)
    check_token(token, origin)
    return token


def _read_token_file(path: str, origin: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise OpsError(
            "invalid_request",
            f"{origin} {path} cannot be read: {os.strerror(error.errno or 0)}",
            field=origin,
        ) from error
    if len(data) > _MAX_TOKEN_BYTES:
        raise OpsError("invalid_request", f"{origin} {path} is larger than a token", field=origin)
    return data.decode("utf-8", "replace")


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
