"""`sprite-agent serve`."""

import argparse
import asyncio
import logging
import os
import sys

from sprite_agent.security import check_exposure, parse_address, read_token
from spritemesh import jsontext
from spritemesh.names import SERVICE_TOKEN_VARIABLE

DEFAULT_GRPC = "127.0.0.1:50551"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--repo", required=True, metavar="DIR", help="repository to serve (required)")
    parser.add_argument(
        "--grpc",
        default=DEFAULT_GRPC,
        metavar="HOST:PORT",
        help=f"where to listen; port 0 means any; or unix:///path (default {DEFAULT_GRPC})",
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"file with the token that callers need (default: ${SERVICE_TOKEN_VARIABLE})",
    )
    parser.add_argument("--token", metavar="TOKEN", help="the token itself; other users may see it")
    parser.add_argument(
        "--allow-unauthenticated", action="store_true", help="serve without a token, on loopback only"
    )
    parser.add_argument(
        "--heartbeat-interval",
        type=_interval,
        default=5.0,
        metavar="SECONDS",
        help="how often heartbeat.v1.json of a running loop is written, at least 0.25 (default 5)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop; 0 after a drain."""
    address = parse_address(args.grpc, field="--grpc")
    token = read_token(args.token, args.token_file, os.environ.get(SERVICE_TOKEN_VARIABLE))
    check_exposure(address, token, allow_unauthenticated=args.allow_unauthenticated, field="--grpc")
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    # Imported late: a refused command line should not wait for gRPC.
    from sprite_agent.server import ServeSettings, serve

    settings = ServeSettings(args.repo, address, token, args.heartbeat_interval)
    try:
        asyncio.run(serve(settings, _announce))
    except ExceptionGroup as group:
        raise group.exceptions[0] from group
    return 0


def _announce(bound: str) -> None:
    """The first line on standard output, once calls are taken."""
    sys.stdout.write(jsontext.encode({"ready": True, "grpc": bound, "http": None}).decode() + "\n")
    sys.stdout.flush()


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError("takes seconds") from None
    if not 0.25 <= seconds <= 3600:
        raise ValueError("must be between 0.25 and 3600")
    return seconds
