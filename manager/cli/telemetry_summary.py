"""`telemetry-summary`: sum up the last passes, and recommend a profile (contract H.2, K)."""

import argparse
import time

from manager.cli.args import add_loop_flags
from manager.cli.output import add_output_flags, emit
from manager.reports import DEFAULT_WINDOW, passes_summary
from manager.store import loop_files
from sprite_agent.runtime.layout import resolve_repo
from spritemesh.commandline import positive


def configure(parser: argparse.ArgumentParser) -> None:
    add_loop_flags(parser)
    parser.add_argument("--reconcile-telemetry-file", metavar="FILE", help="rows of passes")
    parser.add_argument("--control-telemetry-file", metavar="FILE", help="rows of control intents")
    parser.add_argument(
        "--window",
        type=positive,
        default=DEFAULT_WINDOW,
        metavar="N",
        help=f"rows to look at, the last ones (default {DEFAULT_WINDOW})",
    )
    add_output_flags(parser)


def run(args: argparse.Namespace) -> int:
    repo = resolve_repo(args.repo)
    overrides = {
        "reconcile_telemetry": args.reconcile_telemetry_file,
        "control_telemetry": args.control_telemetry_file,
    }
    paths = loop_files(repo, args.loop, overrides)
    document = passes_summary(paths, repo=repo, loop_id=args.loop, window=args.window, now=time.time())
    emit(document, pretty=args.pretty, output=args.output)
    return 0
