"""Flags of commands that ask a server over TLS."""

import argparse

from spritemesh.commandline import not_empty
from spritemesh.endpoints import Trust


def add_tls_flags(parser: argparse.ArgumentParser) -> None:
    """`--tls-ca`, `--tls-cert`, `--tls-key` and `--tls-server-name`."""
    parser.add_argument(
        "--tls-ca",
        type=not_empty,
        metavar="FILE",
        help="authorities that the server's certificate must be of, PEM (default: those of the system)",
    )
    parser.add_argument(
        "--tls-cert",
        type=not_empty,
        metavar="FILE",
        help="certificate of this side, PEM, for a server that wants one",
    )
    parser.add_argument("--tls-key", type=not_empty, metavar="FILE", help="private key of it, PEM")
    parser.add_argument(
        "--tls-server-name",
        type=not_empty,
        metavar="NAME",
        help="name that the server's certificate must have (default: the host of its address)",
    )


def read_trust(args: argparse.Namespace) -> Trust | None:
    """What the flags say; None when they say nothing."""
    trust = Trust(args.tls_ca or "", args.tls_cert or "", args.tls_key or "", args.tls_server_name or "")
    return None if trust == Trust() else trust
