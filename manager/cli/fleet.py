"""`ops-manager fleet status`: tell how a fleet is, from the manager that runs it."""

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING

from manager.cli.manager_source import add_manager_flags, manager_endpoint
from manager.cli.output import add_output_flags, emit
from spritemesh.commandline import refused

if TYPE_CHECKING:
    from manager.fleet.document import Fleet


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare word and flags."""
    parser.add_argument("what", nargs="?", default="", metavar="status", help="what to tell: status")
    add_manager_flags(parser)
    add_output_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Print the fleet once."""
    if args.what != "status":
        raise refused("fleet", f"takes the word status, not {args.what!r}")
    endpoint = manager_endpoint(args)
    from manager.fleet.client import read_fleet

    print_fleet(asyncio.run(read_fleet(endpoint)), pretty=args.pretty, output=args.output)
    return 0


def print_fleet(fleet: "Fleet", *, pretty: bool, output: str | None) -> None:
    """Print a fleet in the form that the flags name; on a terminal no more rows than fit."""
    from manager.fleet.document import fleet_document
    from manager.render_fleet import FleetTable

    height = None
    if sys.stdout.isatty():
        import shutil

        height = shutil.get_terminal_size().lines - 1  # the prompt
    emit(
        fleet_document(fleet),
        pretty=pretty,
        output=output,
        table=lambda _document: FleetTable(fleet, height=height),
    )
