"""Flags that say which running manager is asked."""

import argparse
import os

from manager.cli.signing import add_signing_flag, read_signer
from manager.cli.tls import add_tls_flags, read_trust
from manager.transport.base import Endpoint
from spritemesh.commandline import not_empty, refused
from spritemesh.names import LISTEN_TOKEN_VARIABLE


def add_manager_flags(parser: argparse.ArgumentParser) -> None:
    """`--repo`, `--manager`, and what a manager may want of callers."""
    parser.add_argument("--repo", metavar="DIR", help="repository whose fleet a manager runs on this host")
    parser.add_argument(
        "--manager",
        metavar="HOST:PORT",
        help="address of the manager instead; grpcs://HOST:PORT with TLS; or unix:///path",
    )
    parser.add_argument(
        "--token-file",
        type=not_empty,
        metavar="FILE",
        help=f"file with the token of the manager (default: ${LISTEN_TOKEN_VARIABLE})",
    )
    add_signing_flag(parser)
    add_tls_flags(parser)


def manager_endpoint(args: argparse.Namespace) -> Endpoint:
    """Where the manager answers, and what it wants of callers.

    Raises OpsError `invalid_request`, `signing_key_invalid`, `repo_not_found`, and `fleet_not_running` when
    no manager runs the fleet of the repository.
    """
    # Late: `--help` needs none of these.
    from manager.fleet.presence import endpoint_at, find
    from sprite_agent.runtime.layout import resolve_repo
    from sprite_agent.security import read_token

    token = read_token(None, args.token_file, os.environ.get(LISTEN_TOKEN_VARIABLE), LISTEN_TOKEN_VARIABLE)
    signer = read_signer(args)
    if not (args.manager or args.repo):
        raise refused("--repo", "is required without --manager")
    address = args.manager or find(resolve_repo(args.repo))
    field = "--manager" if args.manager else "--repo"
    return endpoint_at(address, token, field=field, trust=read_trust(args), signer=signer)
