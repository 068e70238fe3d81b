"""`ops-manager loop-run-snapshot` (contract B)."""

import argparse
from typing import TYPE_CHECKING

from manager import render
from manager.cli.args import add_loop_flags
from manager.cli.output import add_output_flags, chosen_form, emit, write
from manager.cli.source import add_source_flags, open_source
from sprite_agent.runtime.layout import resolve_repo
from spritemesh.bridge import snapshot_to_json
from spritemesh.ids import validate_loop_id, validate_trace_id

if TYPE_CHECKING:
    from superloop.ops.v1 import envelope_pb2 as pb


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_loop_flags(parser)
    parser.add_argument(
        "--run-id", default="", metavar="ID", help="say this run id instead of the derived one"
    )
    parser.add_argument("--trace-id", metavar="ID", help="becomes traceId (default: null)")
    add_source_flags(parser)
    add_output_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Print the snapshot."""
    repo = resolve_repo(args.repo)
    loop_id = validate_loop_id(args.loop, field="--loop")
    trace_id = validate_trace_id(args.trace_id, field="--trace-id") if args.trace_id else None
    transport = open_source(args, repo)
    try:
        snapshot = transport.snapshot(loop_id, run_id=args.run_id, trace_id=trace_id)
    finally:
        transport.close()
    form = chosen_form(pretty=args.pretty, output=args.output)
    emit(snapshot_to_json(snapshot), output=form, table=render.snapshot)
    if form == "table":
        _tell_targets(snapshot)
    return 0


def _tell_targets(snapshot: "pb.LoopRunSnapshot") -> None:
    """What `control --expect-run-id` and `--expect-approval` take. Not wrapped, to be copied."""
    run_id = snapshot.current_run_id or snapshot.run.run_id
    write(f"current run       {render.shown(run_id)}\n".encode())
    if snapshot.health.has_pending_approval:
        write(f"pending approval  {render.shown(snapshot.artifacts.approval.sha256)}\n".encode())
