"""How loops are judged and who is told: what passes and live sessions share (contract K)."""

import argparse
import os
from collections.abc import Callable
from typing import NamedTuple

from manager.cli.catalog import read_catalog
from manager.core.drift import CONFIDENCE_RANKS
from manager.core.facts import Settings
from manager.core.thresholds import FLAGS, Thresholds, combine, list_profiles, resolve_profile
from manager.store import LoopFiles
from manager.transport import LOCAL
from spritemesh.commandline import choice, digits, positive, refused
from spritemesh.jsontext import JSON

_ALERTS_VARIABLE = "OPS_MANAGER_ALERTS_ENABLED"


class Judgement(NamedTuple):
    """What a command line says of judging; as in Settings."""

    thresholds: Thresholds
    profile: str
    profiles: frozenset[str]
    min_confidence: str
    required_streak: int
    window: int

    def settings(
        self,
        repo: str,
        paths: LoopFiles,
        loop_id: str,
        *,
        transport: str,
        trace_id: str | None,
        retry_attempts: int,
        retry_backoff_seconds: int,
        max_events: int = 0,
        from_start: bool = False,
    ) -> Settings:
        """Those of one loop."""
        loop_directory = os.path.join(repo, ".superloop", "loops", loop_id)
        local = transport == LOCAL
        return Settings(
            repo_path=repo,
            loop_id=loop_id,
            trace_id=trace_id,
            transport=transport,
            thresholds=self.thresholds,
            profile=self.profile,
            profiles=self.profiles,
            min_confidence=self.min_confidence,
            required_streak=self.required_streak,
            window=self.window,
            max_events=max_events,
            from_start=from_start,
            retry_attempts=retry_attempts,
            retry_backoff_seconds=retry_backoff_seconds,
            # What the projection rests on, as far as this host keeps it (L24).
            snapshot_file=loop_directory if local else paths.state,
            events_file=os.path.join(loop_directory, "events.jsonl") if local else paths.cursor,
            reconcile_file=paths.reconcile_telemetry,
            control_file=paths.control_telemetry,
            evidence=paths.evidence,
        )


def configure_judgement(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of judging."""
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


def configure_alerts(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of alerts."""
    parser.add_argument(
        "--alerts-enabled",
        type=choice("true", "false"),
        metavar="BOOL",
        help=f"whether to send alerts: true (default) or false; absent: {_ALERTS_VARIABLE}",
    )
    parser.add_argument("--alert-config-file", metavar="FILE", help="catalog of alert sinks")


def read_judgement(args: argparse.Namespace) -> Judgement:
    """What flags and variables say. Raises OpsError for a profile or a catalog that cannot be used."""
    catalog, source = read_catalog(args.thresholds_file)
    wanted = args.threshold_profile or os.environ.get("OPS_MANAGER_THRESHOLD_PROFILE", "")
    profile = resolve_profile(catalog, source, wanted)
    return Judgement(
        thresholds=combine(profile, {field: getattr(args, field) for field in FLAGS}),
        profile=profile["profile"],
        profiles=frozenset(list_profiles(catalog, source)),
        min_confidence=_choice_of(args, "drift_min_confidence", "medium"),
        required_streak=_count_of(args, "drift_required_streak", 3),
        window=_count_of(args, "drift_summary_window", 200),
    )


def alerts_enabled(flag: str | None) -> bool:
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
