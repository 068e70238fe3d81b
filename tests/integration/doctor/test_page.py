"""The example of docs/operations.md is what `ops-manager doctor` prints."""

import re

from tests.harness.agents import ROOT, StartAgent
from tests.harness.loops import Repo, events
from tests.harness.manager import run

_EXAMPLE = re.compile(r"test_page\.py [^\n]*-->\n\n```\n(.*?)```\n", re.DOTALL)


def masked(text: str) -> list[str]:
    """The lines, without what differs from run to run."""
    text = re.sub(r"(127\.0\.0\.1(?::| port ))\d+", r"\1PORT", text)
    return [line.rstrip() for line in re.sub(r"\d+ ms", "N ms", text).splitlines()]


def test_example_of_the_page_is_what_is_printed(repo: Repo, start: StartAgent) -> None:
    repo.loop("nightly", events(1, 3))
    flags = ("--service-base-url", start().url, "--loop", "nightly", "--service-token", "another-token")
    found = run("doctor", *flags, "--output", "table", COLUMNS="120")
    example = _EXAMPLE.search((ROOT / "docs" / "operations.md").read_text())
    assert example is not None
    assert masked(found.out) == masked(example[1])
