"""`sprite-agent serve`."""

import argparse
import asyncio
import logging
import os
import shutil
import sys
from typing import TYPE_CHECKING

from sprite_agent.guard import add_guard_flags, add_token_flags, check_exposure, read_guard
from sprite_agent.identity import validate_sprite_id
from sprite_agent.security import DEFAULT_GRPC, parse_address, read_metrics_token, read_token
from spritemesh import jsontext
from spritemesh.commandline import Repeated, not_empty, refused
from spritemesh.ids import has_control, printable
from spritemesh.names import SERVICE_TOKEN_VARIABLE
from spritemesh.program import log_to_stderr, long_lived

if TYPE_CHECKING:
    from sprite_agent.server import Bound

_log = logging.getLogger("sprite_agent")


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
        "--http",
        metavar="HOST:PORT",
        help="where to serve the JSON of v1 over HTTP, too; port 0 means any (default: nowhere)",
    )
    parser.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        help="where to serve Prometheus metrics; port 0 means any (default: nowhere)",
    )
    add_token_flags(parser, "that callers need")
    parser.add_argument(
        "--metrics-token-file",
        type=not_empty,
        metavar="FILE",
        help="file with the token that scrapers of --metrics need (default: that of all callers)",
    )
    parser.add_argument(
        "--allow-unauthenticated", action="store_true", help="serve without a token, on loopback only"
    )
    add_guard_flags(parser)
    parser.add_argument(
        "--heartbeat-interval",
        type=_interval,
        default=5.0,
        metavar="SECONDS",
        help="how often heartbeat.v1.json of a running loop is written, at least 0.25 (default 5)",
    )
    parser.add_argument(
        "--sprite-id",
        metavar="ID",
        help="id of this sprite (default: the one that the repository keeps, made at the first start)",
    )
    parser.add_argument(
        "--runtime-command",
        metavar="PROGRAM",
        help="runtime program that control runs (default: $SUPERLOOP_BIN, else superloop.sh beside this"
        " program, else on PATH)",
    )
    parser.add_argument(
        "--runtime-timeout",
        type=_runtime_timeout,
        default=60.0,
        metavar="SECONDS",
        help="how long a runtime command may take, up to 3600 (default 60)",
    )
    parser.add_argument(
        "--runtime-traces",
        action=Repeated,
        metavar="PATH",
        help="a trace file of the runtime beside trace.jsonl and .superloop/trace.jsonl of the repository and"
        " trace.jsonl of each loop; relative to the repository; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop; 0 after a drain."""
    address = parse_address(args.grpc, field="--grpc")
    http = None if args.http is None else parse_address(args.http, field="--http", unix=False)
    sprite_id = "" if args.sprite_id is None else validate_sprite_id(args.sprite_id)
    token = read_token(args.token, args.token_file, os.environ.get(SERVICE_TOKEN_VARIABLE))
    metrics = None if args.metrics is None else parse_address(args.metrics, field="--metrics", unix=False)
    metrics_token = read_metrics_token(args.metrics_token_file, token)
    runtime_traces = tuple(_trace_file(path) for path in args.runtime_traces)
    guard = read_guard(args, token)
    scrapes = guard.scrapes(metrics_token)
    for place, guarded, field in (
        (address, guard, "--grpc"),
        (http, guard, "--http"),
        (metrics, scrapes, "--metrics"),
    ):
        if place is not None:
            check_exposure(place, guarded, allow_unauthenticated=args.allow_unauthenticated, field=field)
    log_to_stderr()
    _warn(args, token)
    # Imported late: a refused command line should not wait for gRPC.
    from sprite_agent.server import ServeSettings, serve

    settings = ServeSettings(
        repo=args.repo,
        address=address,
        guard=guard,
        http=http,
        metrics=metrics,
        metrics_token=metrics_token,
        heartbeat_interval=args.heartbeat_interval,
        runtime_command=args.runtime_command,
        runtime_timeout=args.runtime_timeout,
        sprite_id=sprite_id,
        runtime_traces=runtime_traces,
    )
    long_lived()
    try:
        asyncio.run(serve(settings, _announce))
    except ExceptionGroup as group:
        raise group.exceptions[0] from group
    return 0


def _warn(args: argparse.Namespace, token: str) -> None:
    """Tell in the log what would otherwise be noticed in an emergency."""
    from sprite_agent.control.command import runtime_program

    program = runtime_program(args.runtime_command, os.environ)
    if shutil.which(program) is None:
        _log.warning("control will fail until there is a runtime program %s [runtime_not_found]", program)
    if token and args.allow_unauthenticated:
        _log.warning("--allow-unauthenticated has no effect: there is a token")


def _announce(bound: "Bound") -> None:
    """The first line on standard output, once calls are taken."""
    document = {"ready": True, "grpc": bound.grpc, "http": bound.http, "metrics": bound.metrics}
    sys.stdout.write(jsontext.encode(document).decode() + "\n")
    sys.stdout.flush()


def _interval(text: str) -> float:
    seconds = _seconds(text)
    if not 0.25 <= seconds <= 3600:
        raise ValueError("must be between 0.25 and 3600")
    return seconds


def _runtime_timeout(text: str) -> float:
    seconds = _seconds(text)
    if not 0 < seconds <= 3600:
        raise ValueError("must be more than 0 and at most 3600")
    return seconds


def _trace_file(text: str) -> str:
    """A path that a message can hold. Raises OpsError `invalid_request`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise refused("--runtime-traces", f"is not valid UTF-8: {printable(text)}") from None
    if not text or has_control(text):
        problem = "holds a control character" if text else "must not be empty"
        raise refused("--runtime-traces", f"{problem}: {printable(text)}")
    return text


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("takes seconds") from None
