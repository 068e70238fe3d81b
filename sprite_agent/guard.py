"""How a server is guarded, as its flags say: token, certificates, signatures, who may do what, and limits."""

import argparse
from typing import TYPE_CHECKING, NamedTuple

from sprite_agent.admission import Admission, AllowList
from sprite_agent.limits import Limits, add_limit_flag, read_limits
from sprite_agent.security import Address, TokenCheck
from spritemesh.commandline import Repeated, not_empty, refused
from spritemesh.endpoints import is_unix_address
from spritemesh.errors import OpsError
from spritemesh.names import SERVICE_TOKEN_VARIABLE

if TYPE_CHECKING:
    from sprite_agent.certificates import Certificates


class TlsFiles(NamedTuple):
    """Paths of PEM files. ca: authorities of clients' certificates; "": clients need none."""

    cert: str
    key: str
    ca: str = ""


class Guard(NamedTuple):
    """Of one server. token "": none is needed. tls None: connections are not encrypted. signing_key_file "":
    nothing needs to be signed."""

    token: str = ""
    tls: TlsFiles | None = None
    signing_key_file: str = ""
    allowed: AllowList = AllowList()
    limits: Limits = Limits()

    @property
    def proves_peers(self) -> bool:
        """Whether all who connect prove who they are by certificates."""
        return self.tls is not None and bool(self.tls.ca)

    @property
    def is_open(self) -> bool:
        """Whether whoever reaches the address is let in."""
        return not (self.token or self.signing_key_file or self.proves_peers)

    def certificates(self) -> "Certificates | None":
        """What the files for TLS hold; None without TLS. Raises OpsError `tls_files_invalid`."""
        if self.tls is None:
            return None
        # Late: without TLS nobody should wait for it.
        from sprite_agent.certificates import Certificates

        return Certificates(self.tls)

    def admission(self) -> Admission:
        """Decides on calls to the server. Raises OpsError `signing_key_invalid`."""
        signatures = None
        if self.signing_key_file:
            from sprite_agent.signatures import Signatures

            signatures = Signatures(self.signing_key_file)
        return Admission(
            TokenCheck(self.token),
            self.limits,
            signatures=signatures,
            allowed=self.allowed,
            proves_peers=self.proves_peers,
        )

    def scrapes(self, token: str) -> "Guard":
        """For those who scrape metrics: a token of theirs, and no signatures, which they cannot make."""
        return self._replace(token=token, signing_key_file="")

    def on_own_socket(self) -> "Guard":
        """For the socket of one user: its mode says who that is, and there are no certificates on it."""
        return self._replace(tls=None, allowed=AllowList())


def add_token_flags(parser: argparse.ArgumentParser, whose: str) -> None:
    """Flags for an agent's token. whose: what it is for, after "token"."""
    parser.add_argument(
        "--token-file",
        type=not_empty,
        metavar="FILE",
        help=f"file with the token {whose} (default: ${SERVICE_TOKEN_VARIABLE})",
    )
    parser.add_argument(
        "--token", type=not_empty, metavar="TOKEN", help="the token itself; other users may see it"
    )


def add_guard_flags(parser: argparse.ArgumentParser, limits: Limits | None = None) -> None:
    """Flags for all but the token. limits: the defaults."""
    parser.add_argument(
        "--tls-cert",
        type=not_empty,
        metavar="FILE",
        help="certificate chain of this server, PEM (default: no TLS)",
    )
    parser.add_argument("--tls-key", type=not_empty, metavar="FILE", help="private key of it, PEM")
    parser.add_argument(
        "--tls-ca",
        type=not_empty,
        metavar="FILE",
        help="authorities, PEM; every client must have a certificate of theirs (mutual TLS)",
    )
    parser.add_argument(
        "--signing-key-file",
        type=not_empty,
        metavar="FILE",
        help="keys, one of which must have signed every request (docs/security.md)",
    )
    parser.add_argument(
        "--allow-control",
        action=Repeated,
        type=not_empty,
        metavar="IDENTITY",
        help="name in a client's certificate that may control, and read; may be repeated (default: all)",
    )
    parser.add_argument(
        "--allow-read",
        action=Repeated,
        type=not_empty,
        metavar="IDENTITY",
        help="name in a client's certificate that may read; may be repeated (default: all)",
    )
    add_limit_flag(parser, limits or Limits())


def read_guard(args: argparse.Namespace, token: str, limits: Limits | None = None) -> Guard:
    """The guard of the flags. limits: the defaults. Raises OpsError `invalid_request` naming the flag."""
    guard = Guard(
        token=token,
        tls=_tls_files(args),
        signing_key_file=args.signing_key_file or "",
        allowed=AllowList(_names(args.allow_control), _names(args.allow_read)),
        limits=read_limits(args.limit, limits or Limits()),
    )
    if not guard.proves_peers:
        for flag, names in (("--allow-control", args.allow_control), ("--allow-read", args.allow_read)):
            if names:
                raise refused(flag, "needs --tls-ca: without certificates nobody proves a name")
    return guard


def check_exposure(
    address: Address,
    guard: Guard,
    *,
    allow_unauthenticated: bool,
    field: str,
    variable: str = SERVICE_TOKEN_VARIABLE,
) -> None:
    """Refuse to serve openly, unless that was asked for and only this host can reach it (contract L14).

    field: the flag of the address. variable: of the environment, for the token. Raises OpsError
    `token_not_configured` or `insecure_bind_refused`; `invalid_request` for TLS on a Unix socket, where
    nobody would prove anything by it.
    """
    if guard.tls is not None and is_unix_address(address.target):
        raise refused(field, f"takes HOST:PORT with --tls-cert, not {address.target}: TLS is not for sockets")
    if not guard.is_open:
        return
    if not allow_unauthenticated:
        raise OpsError(
            "token_not_configured",
            f"no token: give --token-file or {variable}, or --tls-ca, or --allow-unauthenticated",
            field="--token",
        )
    if not address.is_loopback:
        raise OpsError(
            "insecure_bind_refused",
            f"without a token only loopback may be listened on: {address.target}",
            field=field,
        )


def _tls_files(args: argparse.Namespace) -> TlsFiles | None:
    given = {"--tls-cert": args.tls_cert, "--tls-key": args.tls_key, "--tls-ca": args.tls_ca}
    if not any(given.values()):
        return None
    for flag in ("--tls-cert", "--tls-key"):
        if not given[flag]:
            raise refused(flag, f"is required with {next(other for other in given if given[other])}")
    return TlsFiles(args.tls_cert, args.tls_key, args.tls_ca or "")


def _names(names: tuple[str, ...]) -> frozenset[str] | None:
    return frozenset(names) if names else None
