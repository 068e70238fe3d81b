"""`spritemesh explain`: the one table of reason codes, for people and programs."""

import argparse
import sys

from spritemesh import jsontext
from spritemesh.errors import OpsError
from spritemesh.ids import printable
from spritemesh.reasons import REASONS, Reason


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--reason", metavar="CODE", help="one code (default: all of them)")
    parser.add_argument(
        "--output",
        choices=("json", "text"),
        help="json (one line a code) or text; default: text on a terminal, json elsewhere",
    )


def run(args: argparse.Namespace) -> int:
    """Print the rows asked for."""
    if args.reason and args.reason not in REASONS:
        raise OpsError(
            "invalid_request", f"--reason: no such code: {printable(args.reason)}", field="--reason"
        )
    rows = [REASONS[args.reason]] if args.reason else sorted(REASONS.values())
    form = args.output or ("text" if sys.stdout.isatty() else "json")
    for row in rows:
        sys.stdout.write(_text(row) if form == "text" else _json(row))
    return 0


def _text(row: Reason) -> str:
    return f"{row.code} ({row.severity})\n  {row.meaning}\n  Next: {row.next_step}\n"


def _json(row: Reason) -> str:
    document = {
        "code": row.code,
        "severity": row.severity.value,
        "fault": row.fault.value,
        "meaning": row.meaning,
        "nextStep": row.next_step,
    }
    return jsontext.encode(document).decode() + "\n"
