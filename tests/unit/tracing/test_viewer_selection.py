"""Which events are found, and which of them are the last."""

from pathlib import Path

import pytest

from spritemesh.tracing.reading import order, reader
from spritemesh.tracing.reading.reader import opened
from spritemesh.tracing.reading.records import Damage
from spritemesh.tracing.reading.selection import Selection, events, moment, regions_of
from tests.harness.tracefiles import START, event, line, write


def found(selection: Selection, *paths: Path, last: int | None = None) -> tuple[list[str], int]:
    """Ids of the events, and the number of malformed lines between them."""
    damage = Damage()
    with opened(map(str, paths)) as files:
        regions = regions_of(files, selection)
        chosen = [each.facts.trace_id for each in events(files, regions, selection, damage, last=last)]
    return chosen, damage.count


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Ten events a second apart; the old half has moved aside."""
    made = [
        event(
            str(number),
            at=START + number,
            hrm_layer=("alt", "altitude", "memory", "odd")[number % 4],
            status=("success", "error")[number % 2],
            operation=f"op{number % 5}",
        )
        for number in range(10)
    ]
    write(tmp_path / "t.1", made[:5])
    return write(tmp_path / "t", made[5:])


@pytest.mark.parametrize(
    ("selection", "ids"),
    [
        (Selection(), "0123456789"),
        (Selection(layer="altitude"), "014589"),
        (Selection(status="error"), "13579"),
        (Selection(operation="op2"), "27"),
        (Selection(component="store.py"), "0123456789"),
        (Selection(component="x"), ""),
        (Selection(since=START + 3), "3456789"),
        (Selection(until=START + 3), "0123"),
        (Selection(layer="altitude", status="error", since=START + 2), "59"),
    ],
)
def test_selections_combine(path: Path, selection: Selection, ids: str) -> None:
    assert found(selection, path) == (list(ids), 0)
    assert found(selection, path, last=2) == (list(ids[-2:]), 0)
    assert found(selection, path, last=100) == (list(ids), 0)


def test_several_files_are_one_row_by_the_time_of_their_ends(tmp_path: Path) -> None:
    even = write(tmp_path / "even", [event(str(number), at=START + number) for number in range(0, 10, 2)])
    odd = write(tmp_path / "odd", [event(str(number), at=START + number) for number in range(1, 10, 2)])
    assert found(Selection(), odd, even) == (list("0123456789"), 0)
    assert found(Selection(), odd, even, last=3) == (list("789"), 0)


def test_malformed_lines_between_the_chosen_ones_are_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"bad\n" + b"".join(b"worse\n" + line(event(str(number))) for number in range(5)))
    assert found(Selection(), path) == (list("01234"), 6)
    assert found(Selection(), path, last=2) == (["3", "4"], 1)


def test_line_that_is_too_long_is_malformed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "BLOCK_BYTES", 1024)
    path = write(tmp_path / "t", [event("1"), event("2", output_summary="x" * 2000), event("3")])
    assert found(Selection(), path) == (["1", "3"], 1)


def test_time_is_found_in_a_file_with_an_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "_SMALLEST_BYTES", 1)
    monkeypatch.setattr(order, "SLACK_SECONDS", 1.0)
    path.with_name("t.1").write_bytes(b"bad\n" + path.with_name("t.1").read_bytes())
    # What lies before is not even read.
    assert found(Selection(since=START + 6), path) == (list("6789"), 0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 400.0),
        ("2h ago", -6200.0),
        ("1.5s", 998.5),
        ("1d", -85400.0),
        ("1970-01-01T00:00:05Z", 5.0),
        ("1970-01-01", 0.0),
    ],
)
def test_moments(text: str, seconds: float) -> None:
    assert moment(text, 1000.0) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "10 weeks", "-5m", "yesterday", "9999999999h"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ISO 8601"):
        moment(text, 0.0)
