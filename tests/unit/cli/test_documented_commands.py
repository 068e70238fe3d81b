"""The command lines that README.md and docs/ show are such that the programs take."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import manager.cli
import sprite_agent.cli
import spritemesh.cli
from sprite_agent.demo.cli import _COMMANDS as DEMO_COMMANDS
from spritemesh.commandline import Parser, Stop
from spritemesh.errors import OpsError
from spritemesh.program import Program, add_tracing_flag
from tests.harness.agents import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PROGRAMS: dict[str, Program] = {
    module.PROGRAM.name: module.PROGRAM for module in (manager.cli, sprite_agent.cli, spritemesh.cli)
}
# Blocks of another language are programs, settings or diagrams; of TEXT only what is behind a prompt counts.
SHELL, TEXT, OTHER = "shell", "text", "other"
KINDS = {"sh": SHELL, "bash": SHELL, "console": TEXT, "text": TEXT}
OPERATORS = frozenset("|;&<>")
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*|.*[$…].*")


def documented(text: str) -> Iterator[list[str]]:
    """The command lines of our programs in the code blocks of a page, as words from the program's name on."""
    for line in _lines(text):
        for words in _simple_commands(line):
            while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0]):
                del words[0]
            if words and Path(words[0]).name in PROGRAMS:
                yield [Path(words[0]).name, *words[1:]]


def _lines(text: str) -> Iterator[str]:
    """Shell lines of all code blocks, those with a backslash at the end joined."""
    fence = ""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        bare = line.strip()
        if bare.startswith("```"):
            fence = "" if fence else KINDS.get(bare.strip("`"), OTHER)
        elif bare.startswith("$ ") and fence != OTHER:
            yield bare[2:]
        elif fence == SHELL or (not fence and line.startswith("    ")):
            yield bare


def _simple_commands(line: str) -> Iterator[list[str]]:
    """What stands between pipes and the like, without comments."""
    lexer = shlex.shlex(re.sub(r"\$\([^()]*\)", "$SHELL", line), posix=True, punctuation_chars="|;&<>")
    lexer.whitespace_split = True
    words: list[str] = []
    try:
        for word in lexer:
            if set(word) <= OPERATORS:
                yield words
                words = []
            else:
                words.append(word)
    except ValueError:  # prose of a list, with an apostrophe
        return
    yield words


@cache
def _parser(program: str, command: str) -> Parser | None:
    """The parser of a command; None where there is no such command."""
    parser = Parser(f"{program} {command}", "")
    add_tracing_flag(parser)
    if (program, command) == ("sprite-agent", "demo-loop"):
        DEMO_COMMANDS["run"].configure(parser)
    elif command in PROGRAMS[program].commands:
        import_module(PROGRAMS[program].commands[command].module).configure(parser)
    else:
        return None
    return parser


def problem(words: list[str]) -> str:
    """What is wrong with a command line; "" for nothing."""
    is_cut = "…" in words
    program, *rest = (word for word in words if word not in {"…", "--trace"})
    if not rest or rest[0] == "--help" or PLACEHOLDER.fullmatch(rest[0]):
        return ""
    parser = _parser(program, rest[0])
    if parser is None:
        return f"unknown command: {rest[0]}"
    try:
        args = parser.read(rest[1:])
    except Stop as stop:
        return (stop.error or "a value is missing") if stop.code else ""
    except OpsError as error:
        is_open = is_cut or any(PLACEHOLDER.fullmatch(word) for word in _values(rest, str(error.field)))
        return "" if is_open else error.message
    for action in parser._actions:
        if action.dest == "what" and args.what not in str(action.metavar).split("|"):
            return f"takes the word {action.metavar}, not {args.what!r}"
    return ""


def _values(words: list[str], flag: str) -> Iterator[str]:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.partition("=")[0] == flag:
            yield word.partition("=")[2] or following


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_command_lines_of_a_page_are_taken(page: Path) -> None:
    told = [(shlex.join(words), problem(words)) for words in documented(page.read_text("utf-8"))]
    assert [wrong for wrong in told if wrong[1]] == []


def test_command_lines_are_found() -> None:
    found = [words for page in PAGES for words in documented(page.read_text("utf-8"))]
    assert len(found) > 50
    assert {words[0] for words in found} == set(PROGRAMS)


def test_what_is_no_command_line_is_left_out() -> None:
    page = "    A=1 bin/ops-manager top --repo . | sort  # it's\n\n```\nops-manager -> files\n```\n"
    assert list(documented(page)) == [["ops-manager", "top", "--repo", "."]]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("ops-manager status --loop a \\\n    --service-base-url grpcs://sprite:50551", "--service-base-url"),
        ("ops-manager statos --loop a", "statos"),
        ("ops-manager reconcile --repo .", "--loop is required"),
        ("ops-manager audit prove --repo .", "verify"),
        ("sprite-agent serve --repo . --grcp unix:///a", "--grcp"),
        ("spritemesh trace view --last many", "--last"),
        ("spritemesh trace view --last", "value"),
    ],
)
def test_wrong_command_lines_are_told(line: str, told: str) -> None:
    (words,) = documented(f"```sh\n{line}\n```\n")
    assert told in problem(words)
    assert list(documented(f"    {line}\n")) == [words]


def test_what_is_left_open_is_not_judged() -> None:
    assert problem(["ops-manager", "reconcile", "…", "--on-invalid-line", "quarantine"]) == ""
    assert problem(["spritemesh", "trace", "view", "--last", "N"]) == ""
