"""Runs a program of several commands: finds the command, and turns every ending into an exit code.

A command is a module with `configure(parser)`, which declares its flags, and `run(args)`, which returns
the exit code. It is imported only when it is called, so that `--help` costs next to nothing.
"""

import atexit
import gc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from spritemesh import __version__
from spritemesh.errors import OpsError, one_line
from spritemesh.modes import keep_private

if TYPE_CHECKING:
    import argparse
    from types import ModuleType

# What a shell reports for a process that SIGPIPE or SIGINT ended.
EXIT_BROKEN_PIPE = 128 + 13
EXIT_INTERRUPTED = 128 + 2


# Before the command's name, too.
TRACE_FLAG = "--trace"


class Command(NamedTuple):
    """One command: the module that holds it, and what it does in one line.

    stays: until it is told to end. shows_traces: so that it would add to what it shows, if it traced itself
    because the environment says so. traces_in_repo: it writes its trace file into the repository that it is
    given, where an agent serves it, unless somebody says otherwise.
    """

    module: str
    summary: str
    stays: bool = False
    shows_traces: bool = False
    traces_in_repo: bool = False


class Program(NamedTuple):
    """A program: its name, what it is for in one sentence, and its commands by name."""

    name: str
    purpose: str
    commands: Mapping[str, Command]

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run one command line (without the program's name) and return its exit code.

        argv: None takes the process's own, whose one command this then is. Never raises but for defects
        of the interpreter: a failure is `error: <message> [<reason code>]` as the last line of standard
        error and exit code 1 (contract 0.5).
        """
        if argv is None:
            # A tenth of a short command is the collector looking through what imports have made.
            # A command that stays turns it on again (`long_lived`).
            gc.disable()
            atexit.register(gc.freeze)
            keep_private()
        words = sys.argv[1:] if argv is None else argv
        return guarded(lambda: self._dispatch(words))

    def _dispatch(self, words: Sequence[str], *, trace: bool = False) -> int:
        if not words:
            sys.stdout.write(self._usage())
            return fail("a command is missing")
        name = words[0]
        if name in {"-h", "--help"}:
            sys.stdout.write(self._usage())
            return 0
        if name == "--version":
            sys.stdout.write(f"{self.name} {__version__}\n")
            return 0
        if name == TRACE_FLAG:
            return self._dispatch(words[1:], trace=True)
        command = self.commands.get(name)
        if command is None:
            return fail(self._unknown(name))
        return self._run(name, command, words[1:], trace=trace)

    def _run(self, name: str, command: Command, words: Sequence[str], *, trace: bool) -> int:
        from importlib import import_module

        from spritemesh.commandline import Parser, Stop

        _import_msgspec()
        module = import_module(command.module)
        summary = command.summary
        parser = Parser(f"{self.name} {name}", f"{summary[0].upper()}{summary[1:]}.")
        add_tracing_flag(parser)
        module.configure(parser)
        try:
            args = parser.read(words)
        except Stop as stop:
            sys.stdout.write(stop.out)
            if stop.error:
                fail(stop.error)
            elif stop.code and sys.stderr.isatty():
                # v1 says nothing here, and scripts get just that (contract 0.5).
                fail(f"{words[-1]} takes a value")
            return stop.code
        return self._traced(name, command, module, args, flag=trace or args.trace)

    def _traced(
        self, name: str, command: Command, module: "ModuleType", args: "argparse.Namespace", *, flag: bool
    ) -> int:
        """Run the command. flag: `--trace` was given."""
        from spritemesh import traced

        directory = (args.repo or ".") if command.traces_in_repo else None
        traced.start(flag=flag, heed=not command.shows_traces, directory=directory)
        code: int
        if command.stays:
            # What it does meanwhile belongs to whoever asked for it.
            traced.event("start", self.name, name)
            code = module.run(args)
            traced.event("stop", self.name, name, exit_code=code)
            return code
        with traced.step("command", self.name, name, loop_id=getattr(args, "loop", None)) as step:
            code = module.run(args)
            step.tell(f"exit code {code}")
            if code:
                step.fail(f"exit code {code}")
        return code

    def _usage(self) -> str:
        width = max(map(len, self.commands))
        lines = (f"  {name:<{width}}  {command.summary}\n" for name, command in self.commands.items())
        return (
            f"usage: {self.name} COMMAND [flags]\n"
            f"       {self.name} --help | --version\n\n"
            f"{self.purpose}\n\n"
            f"commands:\n{''.join(lines)}\n"
            f"`{self.name} COMMAND --help` tells the flags of a command; each takes {TRACE_FLAG}.\n"
        )

    def _unknown(self, name: str) -> str:
        from difflib import get_close_matches

        from spritemesh.commandline import nameable

        near = get_close_matches(name, self.commands, n=1)
        hint = f"did you mean {near[0]}?" if near else f"`{self.name} --help` lists them"
        return f"unknown command: {nameable(name)} ({hint})"


def add_tracing_flag(parser: "argparse.ArgumentParser") -> None:
    """`--trace`, which all commands have."""
    parser.add_argument(
        TRACE_FLAG,
        action="store_true",
        help="tell on standard error, as a tree, what is done, and write it to trace.jsonl",
    )


def _import_msgspec() -> None:
    """Import msgspec without typing_extensions, which grpcio brings and which takes 8 ms to load.

    msgspec only prefers it: from Python 3.11 on it finds the same in `typing`.
    """
    if "msgspec" in sys.modules or "typing_extensions" in sys.modules:
        return
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]
    modules["typing_extensions"] = None
    try:
        import msgspec  # noqa: F401
    finally:
        del modules["typing_extensions"]


def guarded(work: Callable[[], int]) -> int:
    """The exit code of `work`; every failure of it becomes an error line and a code."""
    _open_closed_streams()
    code = _outcome(work)
    if traced := sys.modules.get("spritemesh.traced"):
        traced.finish()
    return code


def _outcome(work: Callable[[], int]) -> int:
    try:
        code = work()
        sys.stdout.flush()
    except OpsError as error:
        return fail(error.message, error.reason)
    except BrokenPipeError:
        _abandon_output()
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as error:
        told = f"{error.strerror or type(error).__name__}: {error.filename or 'standard output'}"
        return fail(told, "state_unwritable")
    except Exception as error:
        if os.environ.get("SPRITEMESH_DEBUG") == "1":
            import traceback

            traceback.print_exc()
        told = " ".join(f"{type(error).__name__}: {error}".split())
        return fail(f"{told}; SPRITEMESH_DEBUG=1 tells where", "internal_error")
    return code


def _open_closed_streams() -> None:
    """Let a program that was started without standard output or error write into nothing."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - lives as long as we


def long_lived() -> None:
    """Say that this command stays: garbage is collected from now on."""
    gc.freeze()
    gc.enable()


def log_to_stderr() -> None:
    """What happens while a program serves, from INFO on, in lines of one form."""
    import logging  # most commands serve nothing

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )


def fail(message: str, reason: str = "invalid_request") -> int:
    """Print what was written so far, then the error as the last line of standard error: where that shows what
    is traced, at the end of `guarded`."""
    try:
        sys.stdout.flush()
    except OSError:
        _abandon_output()
    # One harmless line, whatever a word of the command line held.
    line = f"error: {one_line(' '.join(message.splitlines()))} [{reason}]\n"
    traced = sys.modules.get("spritemesh.traced")
    if traced is None or not traced.hold(line):
        sys.stderr.write(line)
    return 1


def _abandon_output() -> None:
    """Let the interpreter flush into nothing at its end, instead of failing once more."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass
