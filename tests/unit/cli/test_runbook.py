"""The commands in docs/runbook.md exist, and take the flags that the page gives them."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from manager.cli import COMMANDS
from sprite_agent.commands import serve
from spritemesh.commandline import Parser

PAGE = Path(__file__).parents[3] / "docs/runbook.md"


def commands() -> list[str]:
    """All command lines of ours on the page: in blocks, and in running text."""
    text = PAGE.read_text(encoding="utf-8").partition("<!-- reasons:")[0].replace("\\\n", " ")
    blocks = re.findall(r"^ {4,}((?:ops-manager|sprite-agent) .*)$", text, re.MULTILINE)
    return sorted({*blocks, *re.findall(r"`((?:ops-manager|sprite-agent) [^`]*)`", text)})


def test_page_has_commands() -> None:
    assert len(commands()) > 15


@pytest.mark.parametrize("line", commands())
def test_command_of_the_page_is_one_that_we_have(line: str) -> None:
    program, name, *words = shlex.split(line)
    parser = Parser(program, "")
    (serve if program == "sprite-agent" else import_module(COMMANDS[name].module)).configure(parser)
    whole = "…" not in words and {"--repo", "--loop"} <= set(words)
    if whole:
        parser.read(words)
    for word in words:
        if word.startswith("--"):
            assert word in parser._option_string_actions, line
