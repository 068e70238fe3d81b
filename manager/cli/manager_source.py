"""Flags that say which running manager is asked."""

import argparse
import os

from manager.transport.base import Endpoint
from spritemesh.commandline import refused
from spritemesh.names import LISTEN_TOKEN_VARIABLE


def add_manager_flags(parser: argparse.ArgumentParser) -> None:
    """`--repo`, `--manager` and `--token-file`."""
    parser.add_argument("--repo", metavar="DIR", help="repository whose fleet a manager runs on this host")
    parser.add_argument(
        "--manager", metavar="HOST:PORT", help="address of the manager instead; or unix:///path"
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"file with the token of the manager (default: ${LISTEN_TOKEN_VARIABLE})",
    )


def manager_endpoint(args: argparse.Namespace) -> Endpoint:
    """Where the manager answers, and its token.

    Raises OpsError `invalid_request`, `repo_not_found`, and `fleet_not_running` when no manager runs the
    fleet of the repository.
    """
    # Late: `--help` needs none of these.
    from manager.fleet.presence import find
    from sprite_agent.runtime.layout import resolve_repo
    from sprite_agent.security import parse_address, read_token

    token = read_token(None, args.token_file, os.environ.get(LISTEN_TOKEN_VARIABLE), LISTEN_TOKEN_VARIABLE)
    if args.manager:
        return Endpoint(parse_address(args.manager, field="--manager").target, token)
    if not args.repo:
        raise refused("--repo", "is required without --manager")
    return Endpoint(find(resolve_repo(args.repo)), token)
