"""`reconcile`: read what is new of a loop, and bring the manager's files up to date (contract G, K)."""

import argparse
import sys
from contextlib import closing

from manager import render
from manager.alerts.dispatch import after_pass
from manager.alerts.progress import Order
from manager.cli.args import add_loop_flags, add_trace_flag, trace_id_of_environment
from manager.cli.catalog import alert_catalog_path
from manager.cli.judgement import alerts_enabled, configure_alerts, configure_judgement, read_judgement
from manager.cli.output import add_output_flags, emit
from manager.cli.source import add_transport_flags, check_transport, open_chosen
from manager.core.facts import Outcome, Settings
from manager.reconcile import Request, reconcile
from manager.runtime_traces import drain
from manager.store import LoopFiles, LoopStore, loop_files
from sprite_agent.runtime.layout import resolve_repo
from spritemesh import modes
from spritemesh.commandline import choice, digits
from spritemesh.errors import OpsError

# Flag -> file that it moves.
_FILE_FLAGS = {
    "--cursor-file": "cursor",
    "--state-file": "state",
    "--heartbeat-state-file": "heartbeat",
    "--heartbeat-telemetry-file": "heartbeat_telemetry",
    "--sequence-state-file": "sequence_state",
    "--sequence-telemetry-file": "sequence_telemetry",
    "--drift-state-file": "drift_state",
    "--drift-history-file": "drift_history",
    "--alert-dispatch-state-file": "alert_state",
    "--alert-dispatch-telemetry-file": "alert_telemetry",
}


def configure(parser: argparse.ArgumentParser) -> None:
    add_loop_flags(parser)
    add_transport_flags(
        parser, local="read the repository", attempts=digits, attempts_help="tries of a request"
    )
    _configure_reading(parser)
    configure_judgement(parser)
    configure_alerts(parser)
    for flag, field in _FILE_FLAGS.items():
        parser.add_argument(
            flag, dest=field, metavar="FILE", help=f"keep {field.replace('_', ' ')} in another file"
        )
    add_output_flags(parser)


def run(args: argparse.Namespace) -> int:
    repo = resolve_repo(args.repo)
    paths = loop_files(repo, args.loop, {field: getattr(args, field) for field in _FILE_FLAGS.values()})
    check_transport(args)
    # v1 leaves the directory behind even when the next steps refuse (contract K).
    try:
        modes.make_directory(paths.ops)
    except OSError as error:
        raise OpsError("state_unwritable", f"cannot make {paths.ops}: {error.strerror}") from error
    settings = _settings(args, repo, paths)

    request = Request(settings, quarantine=args.on_invalid_line == "quarantine")
    with closing(open_chosen(args, repo)) as transport:
        outcome = reconcile(LoopStore(paths), transport, request)
        broken = _tell(args, repo, paths, settings, outcome)
        if not outcome.failure_code:
            trouble = drain(paths, transport, args.loop)
            if trouble is not None:
                sys.stderr.write(f"warning: traces_unavailable: {trouble.reason}: {trouble.message}\n")
    if broken is not None:
        raise broken
    return 1 if outcome.failure_code else 0


def _tell(
    args: argparse.Namespace, repo: str, paths: LoopFiles, settings: Settings, outcome: Outcome
) -> Exception | None:
    """Print what came of a pass, and send its alerts; what kept it from being printed."""
    failed = bool(outcome.failure_code)
    broken: Exception | None = None
    # Before the alerts, which take their time: whoever ends that must not lose the document.
    try:
        emit(
            outcome.document,
            pretty=args.pretty,
            output=args.output,
            table=render.health if failed else render.state,
        )
    except Exception as error:
        broken = error
    if alerts_enabled(args.alerts_enabled):
        catalog = alert_catalog_path(args.alert_config_file)
        after_pass(paths, Order(repo, args.loop, settings.trace_id or "", catalog))
    return broken


# --- flags ------------------------------------------------------------------------------------------


def _configure_reading(parser: argparse.ArgumentParser) -> None:
    add_trace_flag(parser)
    parser.add_argument(
        "--max-events", type=digits, default=0, metavar="N", help="stop after N events; 0: no limit (default)"
    )
    parser.add_argument("--from-start", action="store_true", help="read the log again from its first line")
    parser.add_argument(
        "--on-invalid-line",
        type=choice("fail", "quarantine"),
        default="fail",
        metavar="WHAT",
        help="fail (default): stop before a line that is no event;"
        " quarantine: record it in telemetry/quarantine.jsonl and go on",
    )


# --- settings ---------------------------------------------------------------------------------------


def _settings(args: argparse.Namespace, repo: str, paths: LoopFiles) -> Settings:
    return read_judgement(args).settings(
        repo,
        paths,
        args.loop,
        transport=args.transport,
        trace_id=trace_id_of_environment(args.trace_id),
        retry_attempts=args.retry_attempts,
        retry_backoff_seconds=args.retry_backoff_seconds,
        max_events=args.max_events,
        from_start=args.from_start,
    )
