"""`ops-manager top`: watch a fleet, live, through the manager that runs it."""

import argparse
import asyncio
from contextlib import suppress

from manager.cli.fleet import print_fleet
from manager.cli.manager_source import add_manager_flags, manager_endpoint
from manager.cli.output import can_draw
from spritemesh.commandline import choice
from spritemesh.errors import OpsError
from spritemesh.program import long_lived

_INTERVALS = (0.1, 60.0)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_manager_flags(parser)
    parser.add_argument(
        "--interval",
        type=_interval,
        default=1.0,
        metavar="SECONDS",
        help="how often the table is drawn, 0.1 to 60 (default 1)",
    )
    parser.add_argument("--once", action="store_true", help="print one table and end, as without a terminal")
    parser.add_argument(
        "--output",
        type=choice("table", "json"),
        metavar="FORM",
        help="table (default), or json: one document and end",
    )


def run(args: argparse.Namespace) -> int:
    """Draw until `q` or Ctrl-C; once where nobody would see more of it."""
    if args.once or args.output == "json" or not can_draw():
        endpoint = manager_endpoint(args)
        from manager.fleet.client import read_fleet

        print_fleet(asyncio.run(read_fleet(endpoint)), pretty=False, output=args.output or "table")
        return 0
    long_lived()
    asyncio.run(_live(args))
    return 0


async def _live(args: argparse.Namespace) -> None:
    """Raises OpsError when the manager cannot be followed at first, or for good."""
    import signal

    from manager.fleet.follower import Follower
    from manager.fleet.live_table import LiveTable

    follower = Follower(lambda: manager_endpoint(args), interval=args.interval)
    ready = asyncio.Event()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    following = asyncio.create_task(follower.run(ready))
    try:
        await _first(following, ready, ended)
        if not ended.is_set():
            async with LiveTable(
                follower.board,
                interval=args.interval,
                clock=follower.clock,
                note=lambda: follower.note,
            ) as table:
                await _first(following, table.quit, ended)
    finally:
        following.cancel()
        # Its failure, if any, has been told by now.
        with suppress(asyncio.CancelledError, OpsError):
            await following


async def _first(following: asyncio.Task[None], *events: asyncio.Event) -> None:
    """Wait for one of the events. Raises OpsError when following fails before."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait((following, *waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    if following.done():
        await following


def _interval(text: str) -> float:
    least, most = _INTERVALS
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError("takes seconds") from None
    if not least <= seconds <= most:
        raise ValueError(f"must be between {least:g} and {most:g}")
    return seconds
