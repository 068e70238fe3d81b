"""`health`: judge a loop's health from files, and write nothing (contract G.6, K)."""

import argparse
import time

from manager import render
from manager.cli.output import add_output_flags, emit
from manager.core.health import evaluate_health
from manager.core.thresholds import DEFAULTS, FLAGS, Thresholds, check_thresholds
from spritemesh import files, jsontext
from spritemesh.commandline import choice, digits, keep_empty, refused
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.times import parse_strict


def configure(parser: argparse.ArgumentParser) -> None:
    for document in ("state", "heartbeat-state", "sequence-state", "transport-health"):
        parser.add_argument(f"--{document}-file", metavar="FILE", help=f"{document} document; absent: none")
    parser.add_argument("--intents-file", metavar="FILE", help="log of intents, of which the last row counts")
    parser.add_argument("--trace-id", metavar="ID", help="trace id of the document; absent: null")
    parser.add_argument(
        "--transport",
        type=choice("local", "sprite_service"),
        default="local",
        metavar="KIND",
        help="how the loop is read: local (default) or sprite_service",
    )
    parser.add_argument("--threshold-profile", metavar="NAME", help="name to show; sets no threshold")
    parser.add_argument(
        "--ingest-status",
        type=choice("success", "failed"),
        default="success",
        metavar="STATUS",
        help="how the last pass ended: success (default) or failed",
    )
    parser.add_argument(
        "--failure-code", type=keep_empty, default="", metavar="CODE", help="why the last pass failed"
    )
    for field, flag in FLAGS.items():
        default = getattr(DEFAULTS, field)
        parser.add_argument(
            flag, dest=field, type=digits, default=default, metavar="N", help=f"threshold (default {default})"
        )
    parser.add_argument(
        "--now", metavar="TIME", help="time to judge at, YYYY-MM-DDTHH:MM:SSZ; absent: the clock"
    )
    add_output_flags(parser)


def run(args: argparse.Namespace) -> int:
    thresholds = Thresholds(**{field: getattr(args, field) for field in Thresholds._fields})
    check_thresholds(thresholds)
    now: float = time.time() if args.now is None else _moment(args.now)
    document = evaluate_health(
        state=_document(args.state_file, "state"),
        heartbeat=_document(args.heartbeat_state_file, "heartbeat state"),
        sequence=_document(args.sequence_state_file, "sequence state"),
        transport_health=_document(args.transport_health_file, "transport health"),
        last_intent=_last_row(args.intents_file),
        now=now,
        now_text=args.now,
        trace_id=args.trace_id,
        mode=args.transport,
        profile=args.threshold_profile,
        ingest_status=args.ingest_status,
        failure_code=args.failure_code,
        thresholds=thresholds,
    )
    emit(document, pretty=args.pretty, output=args.output, table=render.health)
    return 0


def _moment(text: str) -> int:
    moment = parse_strict(text)
    if moment is None:
        raise refused("--now", f"must be a time of the form YYYY-MM-DDTHH:MM:SSZ, not {text!r}")
    return moment


def _document(path: str | None, what: str) -> JSON:
    return None if path is None else files.read_object(path, what=what)


def _last_row(path: str | None) -> JSON:
    """The last line of the log; None when there is none, or it does not parse."""
    if path is None:
        return None
    try:
        lines = files.tail_lines(path, 1)
    except OSError as error:
        raise OpsError("document_invalid", f"intents log {path} cannot be read: {error.strerror}") from error
    try:
        return jsontext.parse(lines[-1]) if lines else None
    except jsontext.JSONError:
        return None
