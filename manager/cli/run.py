"""`ops-manager run`: watch a whole fleet, live, until stopped."""

import argparse
import asyncio
import logging
import os

from manager.cli.catalog import alert_catalog_path
from manager.cli.judgement import alerts_enabled, configure_alerts, configure_judgement, read_judgement
from manager.cli.output import can_draw
from sprite_agent.guard import add_guard_flags, check_exposure, read_guard
from sprite_agent.limits import Limits
from sprite_agent.runtime.layout import resolve_repo
from spritemesh.commandline import choice, not_empty, refused
from spritemesh.names import LISTEN_TOKEN_VARIABLE
from spritemesh.program import log_to_stderr, long_lived

# Of streams: people and dashboards, each with one.
_LIMITS = Limits(streams=256)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--repo", required=True, metavar="DIR", help="repository with the manager's files (required)"
    )
    parser.add_argument(
        "--registry",
        metavar="FILE",
        help="loops of the fleet (default: .superloop/ops-manager/fleet/registry.v1.json); read again when it"
        " changes, or at SIGHUP",
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help="where to answer over gRPC; port 0 means any; or unix:///path (default: a socket in the fleet's"
        " directory, for this user)",
    )
    parser.add_argument(
        "--metrics", metavar="HOST:PORT", help="where to serve Prometheus metrics (default: nowhere)"
    )
    parser.add_argument(
        "--token-file",
        type=not_empty,
        metavar="FILE",
        help=f"file with the token that callers need (default: ${LISTEN_TOKEN_VARIABLE})",
    )
    parser.add_argument(
        "--metrics-token-file",
        type=not_empty,
        metavar="FILE",
        help="file with another token, for those who scrape",
    )
    parser.add_argument(
        "--allow-unauthenticated", action="store_true", help="answer without a token, on loopback only"
    )
    add_guard_flags(parser, _LIMITS)
    parser.add_argument(
        "--output",
        type=choice("table", "json"),
        metavar="FORM",
        help="table: draw the fleet, live (default on a terminal); json: one line once calls are taken",
    )
    configure_judgement(parser)
    configure_alerts(parser)


def run(args: argparse.Namespace) -> int:
    """Watch until SIGTERM or SIGINT; 0 after an ordered end."""
    from sprite_agent.security import parse_address, read_metrics_token, read_token

    repo = resolve_repo(args.repo)
    judgement = read_judgement(args)
    listen = parse_address(args.listen, field="--listen") if args.listen else None
    metrics = parse_address(args.metrics, field="--metrics", unix=False) if args.metrics else None
    token = read_token(None, args.token_file, os.environ.get(LISTEN_TOKEN_VARIABLE), LISTEN_TOKEN_VARIABLE)
    metrics_token = read_metrics_token(args.metrics_token_file, token)
    guard = read_guard(args, token, _LIMITS)
    if guard.tls is not None and listen is None and metrics is None:
        raise refused("--tls-cert", "needs --listen or --metrics: the socket of this user has no TLS")
    scrapes = guard.scrapes(metrics_token)
    for place, guarded, field in ((listen, guard, "--listen"), (metrics, scrapes, "--metrics")):
        if place is not None:
            check_exposure(
                place,
                guarded,
                allow_unauthenticated=args.allow_unauthenticated,
                field=field,
                variable=LISTEN_TOKEN_VARIABLE,
            )
    is_drawn = args.output != "json" and can_draw()
    if args.output == "table" and not is_drawn:
        raise refused("--output", "table needs a terminal that can be drawn on")
    if is_drawn:
        # A log would disturb the picture, which has a line for the last warning (manager.fleet.lastword).
        logging.getLogger().addHandler(logging.NullHandler())
    else:
        log_to_stderr()
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log addresses of sinks
    # Late: a refused command line should not wait for gRPC.
    from manager.fleet.manager import ManagerSettings, manage

    settings = ManagerSettings(
        repo=repo,
        registry=args.registry,
        judgement=judgement,
        alert_catalog=alert_catalog_path(args.alert_config_file)
        if alerts_enabled(args.alerts_enabled)
        else None,
        listen=listen,
        guard=guard,
        metrics=metrics,
        metrics_token=metrics_token,
        table=is_drawn,
    )
    long_lived()
    asyncio.run(manage(settings))
    return 0
