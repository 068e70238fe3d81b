"""A program of several commands, as a process: every ending is an exit code and at most one error line."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spritemesh.program import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, Command, Program

Start = Callable[..., "subprocess.Popen[bytes]"]
Done = tuple[int, bytes, bytes]

_MAIN = (
    "import sys; from spritemesh.program import Command, Program\n"
    "commands = {'greet': Command('greet_command', 'greet'), 'gone': Command('no_such_module', 'fail')}\n"
    "sys.exit(Program('prog', 'Tries things.', commands).main())\n"
)
_GREET = """
import os, sys
from spritemesh.errors import OpsError

def configure(parser):
    parser.add_argument("--name", required=True)
    parser.add_argument("--code", default="0")

def run(args):
    name = args.name
    if name == "refuse":
        sys.stdout.write("so far\\n")
        raise OpsError("loop_not_found", "no loop a\\nof that name \\udcff")
    if name == "flood":
        while True:
            sys.stdout.write("x" * 1000 + "\\n")
    if name == "wait":
        sys.stdout.write("waiting\\n")
        sys.stdout.flush()
        sys.stdin.read()
    if name == "defect":
        return 1 // 0
    sys.stdout.write(f"hello {name}\\n")
    return int(args.code)
"""


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start the program with some words."""
    (tmp_path / "greet_command.py").write_text(_GREET)
    path = os.pathsep.join([str(tmp_path), *(entry for entry in sys.path if entry)])

    def start(*words: str) -> "subprocess.Popen[bytes]":
        env = {**os.environ, "PYTHONPATH": path}
        env.pop("SPRITEMESH_DEBUG", None)
        return subprocess.Popen(
            [sys.executable, "-c", _MAIN, *words],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


def finish(process: "subprocess.Popen[bytes]") -> Done:
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def error_line(err: bytes) -> str:
    """The one line of standard error."""
    lines = err.decode().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def test_command_runs_and_its_code_is_the_programs(start: Start) -> None:
    assert finish(start("greet", "--name", "you")) == (0, b"hello you\n", b"")
    assert finish(start("greet", "--name=you", "--code", "2")) == (2, b"hello you\n", b"")


def test_refusal_is_one_error_line_after_what_was_printed(start: Start) -> None:
    code, out, err = finish(start("greet", "--name", "refuse"))
    assert (code, out) == (1, b"so far\n")
    assert "no loop a of that name \\udcff" in error_line(err)
    assert "loop_not_found" in error_line(err)


def test_refused_flag_is_named(start: Start) -> None:
    code, out, err = finish(start("greet"))
    assert (code, out) == (1, b"")
    assert "--name is required" in error_line(err)


@pytest.mark.parametrize(
    "words", [("nope",), ("greet", "--nope"), ("nope\nerror: x",), ("greet", "no\npe\r")]
)
def test_unknown_word_is_told_in_one_line(start: Start, words: tuple[str, ...]) -> None:
    code, _, err = finish(start(*words))
    assert code == 1
    assert words[-1].splitlines()[0] in error_line(err)


@pytest.mark.parametrize("words", [("\x1b[31mnope",), ("greet", "--\x1b[31mnope\x9b2J")])
def test_control_sequence_in_a_word_does_not_reach_the_terminal(start: Start, words: tuple[str, ...]) -> None:
    code, _, err = finish(start(*words))
    assert code == 1
    assert "\\x1b[31mnope" in error_line(err)
    assert error_line(err).isprintable()


@pytest.mark.parametrize("words", [("greet", "--name", "defect"), ("gone",)])
def test_defect_is_told_without_a_traceback(start: Start, words: tuple[str, ...]) -> None:
    code, out, err = finish(start(*words))
    assert (code, out) == (1, b"")
    assert "internal_error" in error_line(err)


def test_reader_that_goes_away_ends_the_program_quietly(start: Start) -> None:
    process = start("greet", "--name", "flood")
    assert process.stdout is not None
    assert process.stdout.read(10) == b"x" * 10
    process.stdout.close()
    assert process.wait(20) == EXIT_BROKEN_PIPE
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.stdin is not None
    process.stdin.close()


def test_interrupt_ends_the_program_quietly(start: Start) -> None:
    process = start("greet", "--name", "wait")
    assert process.stdout is not None
    assert process.stdout.readline() == b"waiting\n"
    process.send_signal(signal.SIGINT)
    assert finish(process) == (EXIT_INTERRUPTED, b"", b"")


def test_usage_lists_the_commands_and_loads_none_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    program = Program("prog", "Tries things.", {"far": Command("no_such_module", "go far")})
    assert program.main(["--help"]) == 0
    assert "  far  go far\n" in capsys.readouterr().out
