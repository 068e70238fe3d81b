"""Flags that say where a loop is read from, for commands that only look."""

import argparse
import os

from manager.transport import Retry, Transport, open_transport
from spritemesh.endpoints import check_token
from spritemesh.errors import OpsError
from spritemesh.names import SERVICE_TOKEN_VARIABLE


def add_source_flags(parser: argparse.ArgumentParser) -> None:
    """`--service-base-url` and `--service-token`."""
    parser.add_argument(
        "--service-base-url",
        metavar="URL",
        help="read through an agent at grpc://HOST:PORT or unix:///path, or a service at http://HOST:PORT,"
        " instead of local files",
    )
    parser.add_argument(
        "--service-token", metavar="TOKEN", help=f"the agent's token (default: ${SERVICE_TOKEN_VARIABLE})"
    )


def open_source(args: argparse.Namespace, repo: str, retry: Retry | None = None) -> Transport:
    """The transport that the flags name."""
    if not args.service_base_url:
        return open_transport("local", repo=repo)
    token = read_token(args.service_token)
    return open_transport(
        "sprite_service", repo=repo, base_url=args.service_base_url, token=token, retry=retry
    )


def read_token(flag: str | None) -> str:
    """The agent's token: of the flag, else of the environment; "" when neither has one.

    White space around it is no part of it, as for the agent: a file or a variable often ends in a newline.
    Raises OpsError `invalid_request` naming where the token came from.
    """
    token, origin = (flag or "").strip(), "--service-token"
    if not token:
        token, origin = os.environ.get(SERVICE_TOKEN_VARIABLE, "").strip(), SERVICE_TOKEN_VARIABLE
    check_token(token, origin)
    return token


def tell_retry(error: OpsError, seconds: float) -> None:
    """Note on standard error that a stream waits for its agent."""
    import sys

    # The message may be the peer's; OpsError has made it harmless for a terminal.
    sys.stderr.write(f"note: {error.reason}: {error.message}; trying again in {seconds:.1f} s\n")
    sys.stderr.flush()
