"""`alert-dispatch`: send escalations that are new, or due again, to their sinks (contract I.3, K)."""

import argparse
import os

from manager import render_alerts
from manager.alerts.dispatch import dispatch
from manager.alerts.progress import Order
from manager.cli.args import add_loop_flags, add_trace_flag, trace_id_of_environment
from manager.cli.catalog import alert_catalog_path
from manager.cli.output import add_output_flags, emit
from manager.store import loop_files
from sprite_agent.runtime.layout import resolve_repo
from spritemesh.commandline import digits


def configure(parser: argparse.ArgumentParser) -> None:
    add_loop_flags(parser)
    parser.add_argument("--escalations-file", metavar="FILE", help="rows to send, instead of the loop's")
    parser.add_argument(
        "--dispatch-state-file", metavar="FILE", help="keep offset and counts in another file"
    )
    parser.add_argument("--dispatch-telemetry-file", metavar="FILE", help="append telemetry to another file")
    add_trace_flag(parser)
    parser.add_argument("--alert-config-file", metavar="FILE", help="catalog of alert sinks")
    parser.add_argument(
        "--max-escalations",
        type=digits,
        default=0,
        metavar="N",
        help="take N new lines at most; 0: all (default)",
    )
    add_output_flags(parser)


def run(args: argparse.Namespace) -> int:
    repo = resolve_repo(args.repo)
    paths = loop_files(
        repo,
        args.loop,
        {
            "escalations": args.escalations_file,
            "alert_state": args.dispatch_state_file,
            "alert_telemetry": args.dispatch_telemetry_file,
        },
    )
    order = Order(
        repo_path=repo,
        loop_id=args.loop,
        trace_id=trace_id_of_environment(args.trace_id),
        catalog=alert_catalog_path(args.alert_config_file),
        limit=args.max_escalations,
    )
    document = dispatch(paths, order)
    waiting = os.path.lexists(paths.alert_retries)
    emit(
        document,
        pretty=args.pretty,
        output=args.output,
        table=lambda shown: render_alerts.dispatch(shown, paths.alert_retries if waiting else ""),
    )
    return 0
