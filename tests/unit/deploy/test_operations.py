"""What docs/operations.md tells people to type is what the programs take."""

import re
import shlex

import pytest

from manager.core.registry import parse_registry
from manager.fleet.registry import check
from sprite_agent.limits import Limits
from spritemesh import jsontext
from tests.harness.deploy import ROOT, parse

PAGE = (ROOT / "docs/operations.md").read_text("utf-8")
# Indented blocks, with lines that go on joined.
TYPED = [
    line.strip()
    for line in re.sub(r" \\\n\s+", " ", PAGE).splitlines()
    if re.match(r" {4}(?:sprite-agent|ops-manager) ", line)
]


@pytest.mark.parametrize(
    "name", ["docs/operations.md", "docs/wire.md", "deploy/systemd/sprite-agent@.service"]
)
def test_the_limit_of_streams_is_told_as_it_is(name: str) -> None:
    assert re.findall(r"([0-9,]+) streams", (ROOT / name).read_text("utf-8")) == [f"{Limits().streams:,}"]


@pytest.mark.parametrize("line", TYPED)
def test_a_command_of_the_page_is_taken(line: str) -> None:
    parse(shlex.split(line))


def test_the_registry_of_the_page_can_be_used() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    registry = parse_registry(jsontext.parse(text.encode()))
    check(registry, {"SPRITE_1_TOKEN": "token"})
    assert [(entry.loop_id, entry.transport, entry.enabled) for entry in registry.loops] == [
        ("nightly", "sprite_service", True),
        ("beside-the-manager", "local", True),
        ("resting", "local", False),
    ]
