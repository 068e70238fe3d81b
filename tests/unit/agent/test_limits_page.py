"""The table of limits in docs/security.md tells the limits as they are."""

import re

from sprite_agent.limits import BOUNDS, Limits, value_of
from tests.harness.deploy import ROOT, documented_metrics

PAGE = (ROOT / "docs/security.md").read_text("utf-8")
_ROW = re.compile(r"\| `([a-z-]+)` \| (\d+) \| (\d+), (\d+) \| (?:`(\w+)`)? ?\| (.*?) ?\| (.+) \|")


def test_the_table_has_each_limit_with_default_range_and_reason() -> None:
    rows = [match.groups() for match in map(_ROW.fullmatch, PAGE.splitlines()) if match is not None]
    assert [
        (name, int(default), int(least), int(most), reason or "")
        for name, default, least, most, reason, *_ in rows
    ] == [(bound.name, value_of(Limits(), bound), bound.least, bound.most, bound.reason) for bound in BOUNDS]


def test_what_is_used_is_told_by_metrics_that_exist() -> None:
    told = {name for row in _ROW.finditer(PAGE) for name in re.findall(r"`(\w+)`", row[6])}
    assert "sprite_agent_streams" in told
    assert {name for name in told if not name.startswith("process_")} <= documented_metrics()
