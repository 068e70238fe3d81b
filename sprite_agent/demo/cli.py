"""Command lines of the demo: `sprite-agent demo-loop`, and `superloop-demo` in the place of the runtime.

    [run]    --repo R [--loop ID] [--scenario S] [--iterations N] [--pace SECONDS]
    cancel   --repo R
    approve  --repo R --loop ID --by WHO [--note TEXT] [--reject]

Exit codes: 0 done; 1 refused or failed, with `error: <message>` as the last line of standard error; a run
that a signal ended gives 128 plus the signal's number (130 for SIGINT, 143 for SIGTERM). `cancel` with
nothing to cancel is refused. `superloop-demo` demands the first word, which the runtime's callers give.
"""

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sprite_agent.demo.script import Scenario
from sprite_agent.runtime.layout import resolve_repo
from spritemesh import traced
from spritemesh.commandline import Parser, Stop, digits, keep_empty, refused
from spritemesh.ids import validate_loop_id
from spritemesh.program import add_tracing_flag, fail, guarded

_MAX_PACE_SECONDS = 3600.0


class _Command(NamedTuple):
    """One command: what it does, the flags it takes, and the work."""

    summary: str
    configure: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str], *, trace: bool = False) -> int:
    """`sprite-agent demo-loop`; argv lacks those two words. Returns the exit code, and raises nothing.

    trace: `--trace` stood before them.
    """
    named = bool(argv) and argv[0] in _COMMANDS
    words = list(argv) if named else ["run", *argv]
    return guarded(lambda: _dispatch("sprite-agent demo-loop", words[0], words[1:], trace=trace))


def runtime_main(argv: Sequence[str] | None = None) -> int:
    """`superloop-demo`, of the runtime's form: the first word is `run`, `cancel` or `approve`.

    argv: without the program's name; None for this process's own. Returns the exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in _COMMANDS:
        return guarded(lambda: _dispatch("superloop-demo", words[0], words[1:]))
    if words and words[0] in {"-h", "--help"}:
        sys.stdout.write(f"usage: superloop-demo {{{','.join(_COMMANDS)}}} [flags]\n")
        return 0
    return fail(f"the first word must be one of {', '.join(_COMMANDS)}")


def _dispatch(program: str, name: str, words: list[str], *, trace: bool = False) -> int:
    command = _COMMANDS[name]
    parser = Parser(f"{program} {name}", command.summary)
    add_tracing_flag(parser)
    command.configure(parser)
    try:
        args = parser.read(words)
    except Stop as stop:
        sys.stdout.write(stop.out)
        return fail(stop.error or f"{words[-1]} takes a value") if stop.code else 0
    traced.start(flag=trace or args.trace)
    return command.run(args)


def _configure_run(parser: Parser) -> None:
    _add_repo(parser)
    parser.add_argument(
        "--loop", metavar="ID", type=keep_empty, default="demo", help="loop to write (default: demo)"
    )
    parser.add_argument(
        "--scenario",
        choices=[scenario.value for scenario in Scenario],
        default=Scenario.HEALTHY.value,
        help="complete; wait for an approval at the end; fail its tests and stop, or die (default: healthy)",
    )
    parser.add_argument(
        "--iterations", metavar="N", type=digits, default=3, help="iterations; 0 for no end (default: 3)"
    )
    parser.add_argument(
        "--pace", metavar="SECONDS", type=_pace, default=0.5, help="between events; 0 for none (default: 0.5)"
    )


def _run(args: argparse.Namespace) -> int:
    # Late: `--help` and refusals need none of it.
    from sprite_agent.demo.loop import Settings, run

    scenario = Scenario(args.scenario)
    if not args.iterations and scenario is not Scenario.HEALTHY:
        raise refused("--iterations", f"must be at least 1 with --scenario {scenario}")
    return run(
        Settings(
            repo=resolve_repo(args.repo),
            loop_id=validate_loop_id(args.loop),
            scenario=scenario,
            pace_seconds=args.pace,
            iterations=args.iterations,
        )
    )


def _cancel(args: argparse.Namespace) -> int:
    from sprite_agent.demo.commands import cancel

    sys.stdout.write(cancel(resolve_repo(args.repo)) + "\n")
    return 0


def _configure_approve(parser: Parser) -> None:
    _add_repo(parser)
    parser.add_argument("--loop", metavar="ID", required=True, help="loop whose approval is pending")
    parser.add_argument(
        "--by", metavar="WHO", type=keep_empty, help="who decides; may be empty (default: $USER)"
    )
    parser.add_argument("--note", metavar="TEXT", default="", help="why")
    parser.add_argument("--reject", action="store_true", help="reject instead of approve")


def _approve(args: argparse.Namespace) -> int:
    from sprite_agent.demo.commands import decide

    by = args.by if args.by is not None else os.environ.get("USER") or "unknown"
    told = decide(
        resolve_repo(args.repo),
        validate_loop_id(args.loop),
        by=by,
        note=args.note,
        status="rejected" if args.reject else "approved",
    )
    sys.stdout.write(told + "\n")
    return 0


def _add_repo(parser: Parser) -> None:
    parser.add_argument("--repo", metavar="DIR", required=True, help="repository; must exist")


def _pace(text: str) -> float:
    """Type of --pace: seconds."""
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError("takes seconds") from None
    if not math.isfinite(seconds) or not 0 <= seconds <= _MAX_PACE_SECONDS:
        raise ValueError(f"takes 0 to {_MAX_PACE_SECONDS:g} seconds")
    return seconds


_COMMANDS = {
    "run": _Command("Write a loop's artifacts as the runtime would, at a pace.", _configure_run, _run),
    "cancel": _Command("End the demo loop that runs in a repository.", _add_repo, _cancel),
    "approve": _Command("Decide a pending approval.", _configure_approve, _approve),
}
