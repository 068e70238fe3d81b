"""`alert-sink-config`: check the catalog of alert sinks, and tell who is told of what (contract I.2, K)."""

import argparse
import os

from manager import render_alerts
from manager.alerts.catalog import read_alert_catalog
from manager.cli.catalog import ALERT_SINKS_VARIABLE, alert_catalog_path
from manager.cli.output import add_output_flags, emit, write
from manager.core.alert_catalog import SEVERITIES, missing_variables, overview, resolve
from spritemesh.commandline import choice, refused
from spritemesh.errors import OpsError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config-file",
        metavar="FILE",
        help=f"catalog; absent: the one that {ALERT_SINKS_VARIABLE} names, else the built-in one",
    )
    parser.add_argument("--category", metavar="NAME", help="tell who is told of escalations of this category")
    parser.add_argument(
        "--severity",
        type=choice(*SEVERITIES),
        metavar="RANK",
        help="with --category: info, warning or critical, instead of the category's own",
    )
    parser.add_argument(
        "--list-sinks", action="store_true", help="print id, type and whether enabled of each sink, by tabs"
    )
    parser.add_argument(
        "--no-env-check", action="store_true", help="do not ask for the variables of enabled sinks to be set"
    )
    add_output_flags(parser)


def run(args: argparse.Namespace) -> int:
    if args.list_sinks and args.category:
        raise refused("--list-sinks", "excludes --category")
    if args.severity and not args.category:
        raise refused("--severity", "needs --category")
    catalog = read_alert_catalog(alert_catalog_path(args.config_file))
    check = not args.no_env_check
    missing = missing_variables(catalog, os.environ) if check else []
    if missing:
        raise OpsError("missing_secret", f"{catalog.source}: not set: {' '.join(missing)}")
    if args.list_sinks:
        rows = (f"{sink.id}\t{sink.type}\t{str(sink.enabled).lower()}\n" for sink in catalog.sinks.values())
        write("".join(rows).encode())
        return 0
    if args.category:
        document = resolve(catalog, args.category, args.severity or "", os.environ, env_check=check).document
        emit(document, pretty=args.pretty, output=args.output, table=render_alerts.route)
        return 0
    document = overview(catalog, os.environ, env_check=check)
    emit(document, pretty=args.pretty, output=args.output, table=render_alerts.sinks)
    return 0
