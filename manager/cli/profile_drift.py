"""`profile-drift`: compare the applied with the recommended threshold profile (contract H.3, K)."""

import argparse
import sys
import time

from manager.cli.args import add_loop_flags
from manager.cli.catalog import VARIABLE, read_catalog
from manager.cli.output import add_output_flags, emit
from manager.core.drift import CONFIDENCE_RANKS, evaluate_drift, history_row
from manager.core.thresholds import has_profile
from manager.store import LoopStore, loop_files
from sprite_agent.runtime.layout import resolve_repo
from spritemesh import files, jsontext
from spritemesh.commandline import choice, positive
from spritemesh.errors import OpsError


def configure(parser: argparse.ArgumentParser) -> None:
    add_loop_flags(parser)
    ranks = ", ".join(CONFIDENCE_RANKS)
    parser.add_argument("--applied-profile", default="", metavar="NAME", help="profile in use")
    parser.add_argument("--recommended-profile", default="", metavar="NAME", help="profile to compare with")
    parser.add_argument(
        "--thresholds-file",
        metavar="FILE",
        help=f"catalog; absent: the one that {VARIABLE} names, else the built-in one",
    )
    for flag, default, text in (
        ("--recommendation-confidence", "low", "how sure the recommendation is"),
        ("--min-confidence", "medium", "how sure it must be to count"),
    ):
        parser.add_argument(
            flag,
            type=choice(*CONFIDENCE_RANKS),
            default=default,
            metavar="RANK",
            help=f"{text}: {ranks} (default {default})",
        )
    parser.add_argument(
        "--required-streak",
        type=positive,
        default=3,
        metavar="N",
        help="evaluations in a row that make drift (default 3)",
    )
    parser.add_argument(
        "--summary-window",
        type=positive,
        default=200,
        metavar="N",
        help="rows that the recommendation rests on, to be shown (default 200)",
    )
    parser.add_argument("--rationale", default="", metavar="TEXT", help="why the profile is recommended")
    parser.add_argument("--drift-state-file", metavar="FILE", help="document to replace")
    parser.add_argument("--drift-history-file", metavar="FILE", help="log to append to")
    add_output_flags(parser)


def run(args: argparse.Namespace) -> int:
    repo = resolve_repo(args.repo)
    overrides = {"drift_state": args.drift_state_file, "drift_history": args.drift_history_file}
    paths = loop_files(repo, args.loop, overrides)
    catalog, catalog_path = read_catalog(args.thresholds_file)
    for name in (args.applied_profile, args.recommended_profile):
        known = has_profile(catalog, catalog_path, name)  # checks the catalog even without a name
        if name and not known:
            raise OpsError("unknown_profile", f"profile {name} is not in {catalog_path}", field="profile")
    store = LoopStore(paths)
    with store.lock():
        document = evaluate_drift(
            files.read_object(paths.drift_state, what="drift state"),
            now=time.time(),
            loop_id=args.loop,
            applied=args.applied_profile,
            recommended=args.recommended_profile,
            confidence=args.recommendation_confidence,
            min_confidence=args.min_confidence,
            required_streak=args.required_streak,
            window=args.summary_window,
            rationale=args.rationale,
        )
        files.write_atomic(paths.drift_state, jsontext.encode(document) + b"\n")
        # Telemetry fails open: the evaluation stands, and the missing row is not passed over in silence.
        if not store.append_telemetry(paths.drift_history, history_row(document)):
            sys.stderr.write(f"warning: telemetry_unwritable: cannot append to {paths.drift_history}\n")
    emit(document, pretty=args.pretty, output=args.output)
    return 0
