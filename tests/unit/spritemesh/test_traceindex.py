"""spritemesh.traceindex: what happened under which trace id."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spritemesh import traceindex
from spritemesh.ids import new_trace_id
from spritemesh.traceindex import Entry, append, find, index_path, lines_with, recent

AT = 1_700_000_000.25


def entry(trace_id: str = "t1", at: float = AT, **members: object) -> Entry:
    return Entry(trace_id, at, "alpha", "reconcile")._replace(**members)  # type: ignore[arg-type]


@pytest.fixture
def repo(tmp_path: Path) -> str:
    return str(tmp_path)


def test_entries_of_a_trace_are_found_in_the_order_they_were_written(repo: str) -> None:
    whole = entry(
        status="success", seconds=0.0345, file="a/b.jsonl", detail={"eventsIngested": 3, "note": 'é "\n'}
    )
    moment = entry(at=AT + 1, kind="escalation", loop_id="a loop é")
    assert append(repo, [whole, entry("t2"), moment])
    assert append(repo, [entry("t11"), entry("t")])
    assert find(repo, "t1") == ([whole, moment], 0, 0)


def test_row_starts_with_the_trace_id_and_tells_milliseconds(repo: str) -> None:
    append(repo, [entry(at=1_700_000_000.0006)])
    line = Path(index_path(repo)).read_text()
    assert line.startswith('{"traceId":"t1",')
    assert json.loads(line) == {
        "traceId": "t1",
        "at": "2023-11-14T22:13:20.001Z",
        "loopId": "alpha",
        "kind": "reconcile",
    }


@pytest.mark.parametrize("trace_id", ['with "quotes"', "back\\slash", "é", "\ud800", "a", "", '","kind":"x'])
def test_id_of_any_text_is_found_and_nothing_else(repo: str, trace_id: str) -> None:
    kept = entry(trace_id, detail={"traceId": "other"})
    append(repo, [entry("before"), kept, entry(f"{trace_id}x"), entry("after", detail={"id": trace_id})])
    assert find(repo, trace_id).entries == ([kept] if trace_id else [])


def test_id_that_stands_inside_a_row_of_another_is_not_found(repo: str) -> None:
    append(repo, [entry("other", detail=[{"traceId": "t1", "at": "2023-11-14T22:13:20Z"}])])
    assert find(repo, "t1").entries == []


def test_torn_and_foreign_lines_are_skipped_and_counted(repo: str) -> None:
    append(repo, [entry()])
    path = Path(index_path(repo))
    with path.open("ab") as file:
        file.write(b'{"traceId":"t1","at":"yesterday","loopId":"alpha","kind":"reconcile"}\n')
        file.write(b'{"traceId":"t1","at":"2023-11-14T22:13:20Z","loopId":7,"kind":"reconcile"}\n')
        file.write(b'{"traceId":"t1","at":"2023-11-14T22:1')
    append(repo, [entry(at=AT + 5)])
    assert find(repo, "t1") == ([entry(), entry(at=AT + 5)], 3, 0)
    assert recent(repo, 5) == ([entry(), entry(at=AT + 5)], 3, 0)


def test_index_that_cannot_be_written_fails_open(tmp_path: Path) -> None:
    (tmp_path / ".superloop").write_text("in the way")
    assert not append(str(tmp_path), [entry()])
    assert find(str(tmp_path), "t1") == recent(str(tmp_path), 3) == ([], 0, 0)


@pytest.mark.parametrize("bad", [entry(at=float("nan")), entry(at=float("inf")), entry(detail=object())])
def test_entry_that_cannot_be_written_fails_open(repo: str, bad: Entry) -> None:
    assert not append(repo, [bad])


def test_nothing_to_append_makes_no_file(repo: str) -> None:
    assert append(repo, [])
    assert os.listdir(repo) == []


def test_large_index_moves_aside_and_is_still_searched(repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traceindex, "ROTATE_BYTES", 500)
    for number in range(8):
        append(repo, [entry("t1" if number % 2 else "t2", at=AT + number)])
    path = Path(index_path(repo))
    sizes = [path.stat().st_size, Path(f"{path}.1").stat().st_size]
    assert max(sizes) < 700
    assert [found.at - AT for found in find(repo, "t1").entries] == [1, 3, 5, 7]
    assert [found.at - AT for found in recent(repo, 2).entries] == list(range(8))


def test_writers_at_the_same_time_lose_nothing_to_a_rotation(
    repo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traceindex, "ROTATE_BYTES", 12_000)

    def write(number: int) -> None:
        for _ in range(50):
            append(repo, [entry(f"t{number}")])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert [len(find(repo, f"t{number}").entries) for number in range(4)] == [50] * 4
    assert Path(f"{index_path(repo)}.1").exists()


def test_thousands_of_entries_of_one_trace_are_cut_to_the_last(
    repo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traceindex, "MAX_ENTRIES", 10)
    append(repo, [entry(at=AT + number) for number in range(25)])
    found = find(repo, "t1")
    assert ([row.at - AT for row in found.entries], found.left_out) == (list(range(15, 25)), 15)


def test_recent_traces_come_from_the_end(repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traceindex, "_SEARCH_BLOCK_BYTES", 100)
    append(repo, [entry(f"t{number // 3}", at=AT + number) for number in range(300)])
    assert [found.trace_id for found in recent(repo, 2).entries] == ["t98"] * 3 + ["t99"] * 3
    assert len(recent(repo, 1000).entries) == 300


@pytest.mark.parametrize("block", [7, 64, 1000, 262_144])
def test_search_is_the_same_for_every_block_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(traceindex, "_SEARCH_BLOCK_BYTES", block)
    path = tmp_path / "log"
    lines = [b"x" * (number % 40) + (b"needle" if number % 7 == 0 else b"") for number in range(500)]
    path.write_bytes(b"\n".join(lines) + b"\nneedle that is torn")
    found = list(lines_with(str(path), b"needle"))
    assert found == [(str(path), line) for line in lines if b"needle" in line]


def test_look_up_among_many_rows_takes_moments(repo: str) -> None:
    rows = [entry(new_trace_id()) for _ in range(20_000)]
    append(repo, rows)
    assert find(repo, rows[12_345].trace_id).entries == [rows[12_345]]
