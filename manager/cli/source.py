"""Flags that say which way to a loop is taken."""

import argparse
import os
from collections.abc import Callable

from manager.cli.signing import add_signing_flag, read_signer
from manager.cli.tls import add_tls_flags, read_trust
from manager.transport import LOCAL, SPRITE_SERVICE, Retry, Runtime, Transport, open_transport
from spritemesh.commandline import choice, digits, refused
from spritemesh.endpoints import check_token
from spritemesh.errors import OpsError
from spritemesh.names import SERVICE_TOKEN_VARIABLE


def add_source_flags(parser: argparse.ArgumentParser) -> None:
    """`--service-base-url` and `--service-token`."""
    parser.add_argument(
        "--service-base-url",
        metavar="URL",
        help="read through an agent at grpc://HOST:PORT or unix:///path, or a service at http://HOST:PORT,"
        " instead of local files; with TLS grpcs:// or https://",
    )
    parser.add_argument(
        "--service-token", metavar="TOKEN", help=f"the agent's token (default: ${SERVICE_TOKEN_VARIABLE})"
    )
    add_signing_flag(parser)
    add_tls_flags(parser)


def add_transport_flags(
    parser: argparse.ArgumentParser, *, local: str, attempts: Callable[[str], int], attempts_help: str
) -> None:
    """v1's flags of commands that take either way. local: what the local transport does."""
    parser.add_argument(
        "--transport",
        type=choice(LOCAL, SPRITE_SERVICE),
        default=LOCAL,
        metavar="KIND",
        help=f"local (default): {local}; sprite_service: ask an agent",
    )
    parser.add_argument("--service-base-url", metavar="URL", help="address of the agent")
    parser.add_argument(
        "--service-token", metavar="TOKEN", help=f"token of the agent; better: {SERVICE_TOKEN_VARIABLE}"
    )
    add_signing_flag(parser)
    add_tls_flags(parser)
    parser.add_argument(
        "--retry-attempts", type=attempts, default=3, metavar="N", help=f"{attempts_help} (default 3)"
    )
    parser.add_argument(
        "--retry-backoff-seconds",
        type=digits,
        default=1,
        metavar="N",
        help="pause between tries (default 1)",
    )


def check_transport(args: argparse.Namespace) -> None:
    """Refuse a service without an address with OpsError `invalid_request`."""
    if args.transport == SPRITE_SERVICE and not args.service_base_url:
        raise refused("--service-base-url", "is required with --transport sprite_service")


def open_chosen(args: argparse.Namespace, repo: str, runtime: Runtime | None = None) -> Transport:
    """The transport that the flags of `add_transport_flags` choose."""
    check_transport(args)
    return open_transport(
        args.transport,
        repo=repo,
        base_url=args.service_base_url or "",
        token=read_token(args.service_token) if args.transport == SPRITE_SERVICE else "",
        retry=chosen_retry(args),
        runtime=runtime,
        signer=read_signer(args) if args.transport == SPRITE_SERVICE else None,
        trust=read_trust(args),
    )


def chosen_retry(args: argparse.Namespace) -> Retry:
    """The retry policy of the flags."""
    return Retry(attempts=args.retry_attempts, backoff_seconds=args.retry_backoff_seconds)


def open_source(args: argparse.Namespace, repo: str, retry: Retry | None = None) -> Transport:
    """The transport that the flags name."""
    if not args.service_base_url:
        return open_transport(LOCAL, repo=repo)
    token = read_token(args.service_token)
    return open_transport(
        SPRITE_SERVICE,
        repo=repo,
        base_url=args.service_base_url,
        token=token,
        retry=retry,
        signer=read_signer(args),
        trust=read_trust(args),
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
