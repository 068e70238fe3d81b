"""The command line behind `make run`."""

import argparse
import sys
from collections.abc import Sequence

from sprite_agent.runtime.layout import resolve_repo
from spritemesh.commandline import Parser, Stop
from spritemesh.program import fail, guarded

_MAX_SECONDS = 86400.0 * 365


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns the exit code.

    0 after Ctrl-C. With --duration 0 only if the healthy loop, or the given one, was seen over gRPC and is
    healthy; the last line on standard output is its status document.
    """
    parser = Parser("make run", "Watch a small fleet of demo loops, live, until Ctrl-C.")
    parser.add_argument("--repo", metavar="DIR", help="a real repository instead of the demo loops")
    parser.add_argument(
        "--loop", metavar="ID", help="the loop in it (default: the only one); or a name for the healthy one"
    )
    parser.add_argument("--duration", type=_seconds, metavar="SECONDS", help="end after so long")

    def work() -> int:
        try:
            args = parser.read(sys.argv[1:] if argv is None else argv)
        except Stop as stop:
            sys.stdout.write(stop.out)
            return fail(stop.error) if stop.error else stop.code
        return _run(args)

    return guarded(work)


def _run(args: argparse.Namespace) -> int:
    # Late: `--help` and refusals need none of it.
    from manager.demo.demonstration import demonstrate
    from manager.demo.loops import demo_loops, given_loop

    given = resolve_repo(args.repo) if args.repo else ""
    loops = [given_loop(given, args.loop)] if given else demo_loops(args.loop)
    return demonstrate(loops, args.duration)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError("takes seconds") from None
    if not 1 <= seconds <= _MAX_SECONDS:
        raise ValueError("must be at least 1")
    return seconds
