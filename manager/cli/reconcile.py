"""`reconcile`: read what is new of a loop, and bring the manager's files up to date (contract G, K)."""

import argparse
import os
from collections.abc import Callable

from manager import render
from manager.alerts.dispatch import after_pass
from manager.alerts.progress import Order
from manager.cli.args import add_loop_flags, add_trace_flag, trace_id_of_environment
from manager.cli.catalog import alert_catalog_path, read_catalog
from manager.cli.output import add_output_flags, emit
from manager.cli.source import add_transport_flags, check_transport, open_chosen
from manager.core.drift import CONFIDENCE_RANKS
from manager.core.facts import Settings
from manager.core.thresholds import FLAGS, combine, list_profiles, resolve_profile
from manager.reconcile import Request, reconcile
from manager.store import LoopFiles, LoopStore, loop_files
from manager.transport import LOCAL
from sprite_agent.runtime.layout import resolve_repo
from spritemesh.commandline import choice, digits, positive, refused
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON

_ALERTS_VARIABLE = "OPS_MANAGER_ALERTS_ENABLED"
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
    _configure_judgement(parser)
    _configure_alerts(parser)
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
        os.makedirs(paths.ops, exist_ok=True)
    except OSError as error:
        raise OpsError("state_unwritable", f"cannot make {paths.ops}: {error.strerror}") from error
    settings = _settings(args, repo, paths)

    request = Request(settings, quarantine=args.on_invalid_line == "quarantine")
    transport = open_chosen(args, repo)
    try:
        outcome = reconcile(LoopStore(paths), transport, request)
    finally:
        transport.close()
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
    if _alerts_enabled(args.alerts_enabled):
        catalog = alert_catalog_path(args.alert_config_file)
        after_pass(paths, Order(repo, args.loop, settings.trace_id or "", catalog))
    if broken is not None:
        raise broken
    return 1 if failed else 0


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


def _configure_judgement(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threshold-profile",
        metavar="NAME",
        help="profile; absent: OPS_MANAGER_THRESHOLD_PROFILE, or else the catalog's default",
    )
    parser.add_argument("--thresholds-file", metavar="FILE", help="catalog of threshold profiles")
    for field, flag in FLAGS.items():
        parser.add_argument(
            flag, dest=field, type=digits, metavar="N", help="threshold; absent: of the profile"
        )
    parser.add_argument(
        "--drift-min-confidence",
        type=choice(*CONFIDENCE_RANKS),
        metavar="RANK",
        help="low, medium (default) or high: how sure a recommendation must be to count",
    )
    parser.add_argument(
        "--drift-required-streak", type=positive, metavar="N", help="passes that make drift (default 3)"
    )
    parser.add_argument(
        "--drift-summary-window", type=positive, metavar="N", help="passes to sum up (default 200)"
    )


def _configure_alerts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--alerts-enabled",
        type=choice("true", "false"),
        metavar="BOOL",
        help=f"whether to send alerts: true (default) or false; absent: {_ALERTS_VARIABLE}",
    )
    parser.add_argument("--alert-config-file", metavar="FILE", help="catalog of alert sinks")


# --- settings ---------------------------------------------------------------------------------------


def _settings(args: argparse.Namespace, repo: str, paths: LoopFiles) -> Settings:
    catalog, source = read_catalog(args.thresholds_file)
    wanted = args.threshold_profile or os.environ.get("OPS_MANAGER_THRESHOLD_PROFILE", "")
    profile = resolve_profile(catalog, source, wanted)
    loop_directory = os.path.join(repo, ".superloop", "loops", args.loop)
    local = args.transport == LOCAL
    return Settings(
        repo_path=repo,
        loop_id=args.loop,
        trace_id=trace_id_of_environment(args.trace_id),
        transport=args.transport,
        thresholds=combine(profile, {field: getattr(args, field) for field in FLAGS}),
        profile=profile["profile"],
        profiles=frozenset(list_profiles(catalog, source)),
        min_confidence=_choice_of(args, "drift_min_confidence", "medium"),
        required_streak=_count_of(args, "drift_required_streak", 3),
        window=_count_of(args, "drift_summary_window", 200),
        max_events=args.max_events,
        from_start=args.from_start,
        retry_attempts=args.retry_attempts,
        retry_backoff_seconds=args.retry_backoff_seconds,
        # What the projection rests on, as far as this host keeps it (L24).
        snapshot_file=loop_directory if local else paths.state,
        events_file=os.path.join(loop_directory, "events.jsonl") if local else paths.cursor,
        reconcile_file=paths.reconcile_telemetry,
        control_file=paths.control_telemetry,
        evidence=paths.evidence,
    )


def _alerts_enabled(flag: str | None) -> bool:
    """Of the flag, else of the variable, which takes anything but `true` for false (contract K)."""
    return (flag or os.environ.get(_ALERTS_VARIABLE) or "true") == "true"


def _choice_of(args: argparse.Namespace, field: str, default: str) -> str:
    value: str = _given(args, field, choice(*CONFIDENCE_RANKS)) or default
    return value


def _count_of(args: argparse.Namespace, field: str, default: int) -> int:
    value: int = _given(args, field, positive) or default
    return value


def _given(args: argparse.Namespace, field: str, convert: Callable[[str], JSON]) -> JSON:
    """The value of a flag, else of the variable of the same name, checked alike; None without both."""
    value = getattr(args, field)
    variable = f"OPS_MANAGER_{field.upper()}"
    text = os.environ.get(variable, "")
    if value is not None or not text:
        return value
    try:
        return convert(text)
    except ValueError as error:
        raise refused(f"--{field.replace('_', '-')}", f"({variable}): {error}, not {text!r}") from error
