"""Reads deploy/ and the pages beside it."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from manager.cli import PROGRAM as MANAGER
from sprite_agent.cli import PROGRAM as AGENT
from spritemesh.commandline import Parser

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
_PROGRAMS = {program.name: program for program in (AGENT, MANAGER)}


def yaml_documents(path: Path) -> list[Any]:
    """The documents of a YAML file; fails the test where a key stands twice."""
    return list(yaml.load_all(path.read_text("utf-8"), _StrictLoader))


def parse(words: list[str]) -> Any:
    """What a program makes of a command line, `words[0]` its name; raises as the program itself would."""
    program, command, *flags = words
    parser = Parser(f"{program} {command}", "")
    import_module(_PROGRAMS[program].commands[command].module).configure(parser)
    return parser.read(flags)


def documented_metrics() -> set[str]:
    """Names of all metrics in docs/metrics.md, and those that Prometheus itself makes."""
    page = (ROOT / "docs/metrics.md").read_text("utf-8")
    return set(re.findall(r"`((?:ops_manager|sprite_agent|process)_\w+)`", page)) | {"up", "ALERTS"}


def anchors(page: str) -> set[str]:
    """What a link to a section of a page may name."""
    titles = re.findall(r"^#+ (.*)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


class _StrictLoader(yaml.SafeLoader):
    """As safe_load; but a key that stands twice is a fault, as it is to Kubernetes."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(set(keys)) == len(keys), f"{node.start_mark}: a key stands twice"
        return super().construct_mapping(node, deep)
