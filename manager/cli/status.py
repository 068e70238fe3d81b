"""`status`: tell how a loop is, from the manager's files, and write nothing (contract J, K)."""

import argparse
import time

from manager import render
from manager.cli.args import add_loop_flags
from manager.cli.output import add_output_flags, emit
from manager.reports import DEFAULT_WINDOW, PLACES, loop_status
from sprite_agent.runtime.layout import resolve_repo
from spritemesh.commandline import positive

# The last two files have no flag (contract K).
_WITH_FLAG = tuple(place.member for place in PLACES[:-2])


def configure(parser: argparse.ArgumentParser) -> None:
    add_loop_flags(parser)
    for member in _WITH_FLAG:
        flag = _flag(member)
        what = flag.removeprefix("--").removesuffix("-file").replace("-", " ")
        parser.add_argument(flag, dest=member, metavar="FILE", help=f"{what}; absent: the loop's own")
    parser.add_argument(
        "--summary-window",
        type=positive,
        default=DEFAULT_WINDOW,
        metavar="N",
        help=f"passes to sum up, the last ones (default {DEFAULT_WINDOW})",
    )
    add_output_flags(parser)


def run(args: argparse.Namespace) -> int:
    found = loop_status(
        resolve_repo(args.repo),
        args.loop,
        now=time.time(),
        window=args.summary_window,
        overrides={member: getattr(args, member) for member in _WITH_FLAG},
    )
    emit(
        found.document,
        pretty=args.pretty,
        output=args.output,
        table=lambda shown: render.status(shown, found.failure),
    )
    return 0


def _flag(member: str) -> str:
    """The flag that names another file: `stateFile` -> `--state-file`."""
    return "--" + "".join(f"-{char.lower()}" if char.isupper() else char for char in member)
