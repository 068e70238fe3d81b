"""Metrics as a scraper reads them, the rules that they keep, and docs/metrics.md."""

import re
from typing import NamedTuple

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from tests.harness.agents import ROOT

_ROW = re.compile(r"\| `(?P<name>[a-z_]+)` \| (?P<type>gauge|counter) \|(?P<labels>[^|]*)\| [^|]+ \|")
# Units that are no base units, and words that a suffix of the format would claim.
_NEVER = re.compile(
    r"_(ms|milliseconds|minutes|kb|kilobytes|megabytes|percent|count|sum|bucket|created)(_|\Z)"
)


class Documented(NamedTuple):
    """A row of docs/metrics.md."""

    type: str
    labels: frozenset[str]


class Scrape:
    """What one scrape brought."""

    def __init__(self, text: str) -> None:
        self.families: dict[str, Metric] = {}
        for family in text_string_to_metric_families(text):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            assert name not in self.families, f"{name} is told twice"
            self.families[name] = family

    @property
    def own(self) -> dict[str, Metric]:
        """Families that are not the library's."""
        return {name: family for name, family in self.families.items() if not name.startswith("process_")}

    def value(self, name: str, **labels: str) -> float:
        """The value of the one series with these labels."""
        [found] = [sample.value for sample in self.families[name].samples if sample.labels == labels]
        return found

    def values(self, name: str, label: str) -> dict[str, float]:
        """Sums of values by one label."""
        sums: dict[str, float] = {}
        for sample in self.families[name].samples:
            sums[sample.labels[label]] = sums.get(sample.labels[label], 0) + sample.value
        return sums

    def series(self) -> int:
        return sum(len(family.samples) for family in self.families.values())

    def check(self, prefix: str, section: str) -> None:
        """All of it keeps Prometheus' conventions, and is what a section of docs/metrics.md tells."""
        rows = documented(section)
        assert list(self.own) == list(rows), "docs/metrics.md has other metrics, or another order"
        for name, family in self.own.items():
            assert name.startswith(f"{prefix}_")
            assert family.documentation
            assert (family.type == "counter") == name.endswith("_total"), name
            assert not _NEVER.search(name), name
            assert family.type == rows[name].type, name
            for sample in family.samples:
                assert set(sample.labels) == rows[name].labels, name
                assert all(sample.labels.values()), f"{name} has an empty label"
        told = documented_process_metrics()
        assert {name: family.type for name, family in self.families.items() if name not in self.own} == told


def scrape_of(collector: Collector) -> Scrape:
    """What a scraper would read of a collector."""
    return Scrape(generate_latest(collector).decode())


def documented(section: str) -> dict[str, Documented]:
    """The table of a section: rows by metric."""
    rows = {}
    for match in map(_ROW.fullmatch, _section(section).splitlines()):
        if match is not None:
            rows[match["name"]] = Documented(
                match["type"], frozenset(re.findall(r"`([a-z_]+)`", match["labels"]))
            )
    return rows


def documented_process_metrics() -> dict[str, str]:
    """Types of the metrics of both programs that the library makes."""
    names = re.findall(r"`(process_[a-z_]+)`", _section("Both"))
    return {name: "counter" if name.endswith("_total") else "gauge" for name in names}


def _section(title: str) -> str:
    text = (ROOT / "docs" / "metrics.md").read_text()
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
