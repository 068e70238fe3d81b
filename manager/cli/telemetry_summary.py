"""`telemetry-summary`: sum up the last passes, and recommend a profile (contract H.2, K)."""

import argparse
import os
import time

from manager.cli.args import add_loop_flags
from manager.cli.output import add_output_flags, emit
from manager.core.summary import summarize
from manager.store import LoopFiles, LoopStore, loop_files
from sprite_agent.runtime.layout import resolve_repo
from spritemesh.commandline import positive
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON

DEFAULT_WINDOW = 200


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
    document = summary(paths, repo=repo, loop_id=args.loop, window=args.window, now=time.time())
    emit(document, pretty=args.pretty, output=args.output)
    return 0


def summary(paths: LoopFiles, *, repo: str, loop_id: str, window: int, now: float) -> dict[str, JSON]:
    """The document of contract H.2 over the last `window` rows of the telemetry files.

    Raises OpsError, naming the file: `document_missing` without reconcile telemetry, `document_invalid`
    when a file cannot be read.
    """
    if not os.path.isfile(paths.reconcile_telemetry):
        raise OpsError("document_missing", f"reconcile telemetry {paths.reconcile_telemetry} does not exist")
    reconcile_rows, bad_rows = _rows(paths.reconcile_telemetry, window)
    control_rows, bad_controls = _rows(paths.control_telemetry, window)
    return summarize(
        reconcile_rows,
        control_rows,
        now=now,
        repo_path=repo,
        loop_id=loop_id,
        reconcile_file=paths.reconcile_telemetry,
        control_file=paths.control_telemetry,
        window=window,
        damaged=bad_rows + bad_controls,
    )


def _rows(path: str, window: int) -> tuple[list[JSON], int]:
    rows, damaged = LoopStore.tail_rows(path, window)
    if rows is None:
        raise OpsError("document_invalid", f"telemetry {path} cannot be read")
    return rows, damaged
