"""Statistics beside what counting and sorting everything gives."""

import math
import random
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from spritemesh.tracing import stats
from spritemesh.tracing.reading.histogram import Histogram
from spritemesh.tracing.reading.reader import opened
from spritemesh.tracing.reading.records import Damage, facts_of
from spritemesh.tracing.reading.selection import Selection
from spritemesh.tracing.stats import OTHERS, Statistics, gathered, stats_lines
from tests.harness.tracefiles import START, Event, event, line, write

EVERYTHING = Selection()


def told(*paths: Path, selection: Selection = EVERYTHING, last: int | None = None, top: int = 3) -> Any:
    damage = Damage()
    with opened(map(str, paths)) as files:
        document = gathered(files, selection, damage, last=last, top=top).document()
    return document | {"damaged": damage.count}


def nearest_rank(values: Iterable[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_percentiles_are_at_most_one_percent_off(spread: float) -> None:
    chance = random.Random(1)
    values = [chance.lognormvariate(1, spread) for _ in range(3000)]
    found = Histogram()
    for start in range(0, len(values), 700):
        found.add(values[start : start + 700])
    for percent in (1, 25, 50, 95, 99, 100):
        assert found.percentile(percent) == pytest.approx(nearest_rank(values, percent), rel=0.0101)
    assert found.average == pytest.approx(sum(values) / len(values))
    assert (found.least, found.greatest, found.count) == (min(values), max(values), len(values))


def test_unusual_durations_do_no_harm() -> None:
    found = Histogram()
    assert (found.average, found.percentile(50)) == (None, None)
    found.add([0.0, -5.0, 1e-300, 1e300])
    assert (found.count, found.least, found.greatest) == (4, 0.0, 1e300)
    assert found.percentile(50) == 0.0
    other = Histogram()
    other.add([3.0])
    other.merge(found)
    assert other.count == 5
    assert other.percentile(70) == pytest.approx(3.0, rel=0.01)


@pytest.fixture
def documents() -> list[Event]:
    chance = random.Random(2)
    return [
        event(
            f"mem_{START}_{number:04}",
            at=START + number,
            hrm_layer=chance.choice(("altitude", "alt", "memory", "mood")),
            operation=chance.choice(("plan", "read", "dream")),
            status=chance.choice(("success", "success", "error", "blocked")),
            duration_ms=round(chance.expovariate(0.1), 3),
        )
        for number in range(400)
    ]


def test_layers_and_operations_are_counted_and_measured(tmp_path: Path, documents: list[Event]) -> None:
    path = write(tmp_path / "t", documents)
    found = told(path)
    assert found["events"] == 400
    layers = {row["layer"]: row for row in found["layers"]}
    assert {name: row["isKnown"] for name, row in layers.items()} == {
        "altitude": True,
        "memory": True,
        "mood": False,
    }
    of_layer = [document for document in documents if document["hrm_layer"].startswith("alt")]
    times = [document["duration_ms"] for document in of_layer]
    row = layers["altitude"]
    assert row["operations"] == len(of_layer)
    assert row["errors"] == sum(document["status"] == "error" for document in of_layer)
    assert row["blocked"] == sum(document["status"] == "blocked" for document in of_layer)
    assert row["averageMs"] == pytest.approx(sum(times) / len(times), abs=0.001)
    assert row["maxMs"] == max(times)
    for percent in (50, 95, 99):
        assert row[f"p{percent}Ms"] == pytest.approx(nearest_rank(times, percent), rel=0.0101)
    assert sum(row["operations"] for row in found["operations"]) == 400
    unknown = {(row["layer"], row["operation"]) for row in found["unknownOperations"]}
    assert unknown == {
        ("altitude", "read"),
        ("altitude", "dream"),
        ("memory", "plan"),
        ("memory", "dream"),
        ("mood", "plan"),
        ("mood", "read"),
        ("mood", "dream"),
    }
    slowest = sorted(documents, key=lambda document: -document["duration_ms"])[:3]
    assert [row["traceId"] for row in found["slowest"]] == [document["trace_id"] for document in slowest]
    assert {(row["inputSummary"], row["outputSummary"]) for row in found["slowest"]} == {("in", "out")}


def test_last_events_and_selections_count_alone(tmp_path: Path, documents: list[Event]) -> None:
    write(tmp_path / "t.1", documents[:150])
    path = write(tmp_path / "t", documents[150:])
    assert told(path, last=300)["events"] == 300
    assert told(path, last=1000)["events"] == 400
    memory = [document for document in documents if document["hrm_layer"] == "memory"]
    chosen = told(path, selection=Selection(layer="memory"), last=20, top=400)
    assert {row["traceId"] for row in chosen["slowest"]} == {each["trace_id"] for each in memory[-20:]}
    assert told(path, selection=Selection(since=START + 10, until=START + 19))["events"] == 10
    both = told(write(tmp_path / "u", documents[:200]), write(tmp_path / "v", documents[200:]), last=250)
    assert both["events"] == 250


def test_malformed_lines_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(line(event("1")) + b"{}\n\xff\n\0\0\n[]\n\n" + line(event("2")) + line(event("3"))[:-9])
    found = told(path)
    assert (found["events"], found["damaged"]) == (2, 5)


def test_missing_members_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b'{"trace_id":"a"}\n{"trace_id":"b","duration_ms":null,"hrm_layer":null}\n')
    found = told(path)
    assert (found["events"], found["damaged"], found["slowest"]) == (2, 0, [])
    (row,) = found["layers"]
    assert (row["layer"], row["operations"], row["averageMs"], row["p99Ms"]) == ("", 2, None, None)
    assert stats_lines(found | {"files": ["t"]})[0] == "2 events in t"


def test_endless_operations_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "MAX_OPERATIONS", 50)
    found = Statistics(top=5)
    tracemalloc.start()
    for number in range(300):
        text = line(event(f"a{number}", operation=f"{number:03}" * 5000))[:-1]
        found.add([facts_of(text)] * 2)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    rows = {row["operation"]: row["operations"] for row in found.document()["operations"]}
    assert (len(rows), rows[OTHERS]) == (51, 500)
    assert held < 1e6


def test_nothing_is_told_that_a_terminal_acts_on(tmp_path: Path) -> None:
    bad = "\x1b[31mred\x9b\u202e"
    path = write(tmp_path / "t", [event(bad, hrm_layer=bad, operation=bad, input_summary=bad, status=bad)])
    lines = stats_lines(told(path) | {"files": [bad]})
    assert all(each.isprintable() for each in lines)
