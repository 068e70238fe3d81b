"""`spritemesh explain` and `ops-manager explain`: the one table of reason codes, for people and programs."""

import argparse
import sys

from spritemesh import jsontext
from spritemesh.errors import OpsError
from spritemesh.ids import printable
from spritemesh.reasons import REASONS, Reason


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("code", nargs="?", metavar="REASON", help="one code (default: all of them)")
    parser.add_argument("--reason", metavar="REASON", help="same as the word alone")
    parser.add_argument(
        "--output",
        choices=("json", "pretty", "table"),
        metavar="FORM",
        help="json (one line a code), pretty (indented JSON) or table (for people);"
        " default: table on a terminal, json elsewhere",
    )


def run(args: argparse.Namespace) -> int:
    """Print the rows asked for."""
    code = args.code or args.reason
    rows = [_row(code)] if code else sorted(REASONS.values())
    form = args.output or ("table" if sys.stdout.isatty() else "json")
    for row in rows:
        sys.stdout.write(_text(row) if form == "table" else _json(row, pretty=form == "pretty"))
    return 0


def _row(code: str) -> Reason:
    row = REASONS.get(code)
    if row is None:
        from difflib import get_close_matches

        near = get_close_matches(code.lower(), REASONS, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "without a word, all of them are printed"
        raise OpsError("invalid_request", f"REASON: no such code: {printable(code)} ({hint})", field="REASON")
    return row


def _text(row: Reason) -> str:
    return f"{row.code} ({row.severity})\n  {row.meaning}\n  Next: {row.next_step}\n"


def _json(row: Reason, *, pretty: bool) -> str:
    document = {
        "code": row.code,
        "severity": row.severity.value,
        "fault": row.fault.value,
        "meaning": row.meaning,
        "nextStep": row.next_step,
    }
    return (jsontext.pretty if pretty else jsontext.encode)(document).decode() + "\n"
