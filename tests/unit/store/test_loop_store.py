"""Typed reads and writes of one loop's files."""

import os
from pathlib import Path

import pytest

from manager.core.summary import summarize
from manager.store import LoopStore, loop_files
from manager.store import loop as loop_module
from spritemesh import files
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON


@pytest.fixture
def store(tmp_path: Path) -> LoopStore:
    store = LoopStore(loop_files(str(tmp_path), "alpha"))
    os.makedirs(os.path.dirname(store.paths.reconcile_telemetry))
    return store


@pytest.mark.parametrize("loop_id", ["", ".", "..", "a/b", "a\\b", "a\0b", "a\nb"])
def test_loop_id_that_could_leave_its_directory_is_refused(loop_id: str) -> None:
    with pytest.raises(OpsError) as caught:
        loop_files("/repo", loop_id)
    assert caught.value.reason == "invalid_loop_id"


def test_flag_moves_one_file_and_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = loop_files("/repo", "my loop", {"state": "s.json", "cursor": None, "heartbeat": ""})
    assert paths.state == str(tmp_path / "s.json")
    assert paths.cursor == "/repo/.superloop/ops-manager/my loop/cursor.json"
    assert paths.heartbeat == "/repo/.superloop/ops-manager/my loop/heartbeat.json"


def test_absent_files_are_known_as_nothing(store: LoopStore) -> None:
    known = store.read_known(200)
    assert known.state is None
    assert (known.reconcile_rows, known.control_rows, known.damaged_documents) == ([], [], ())


@pytest.mark.parametrize("content", [b"{", b'"text"', b"[]", b"\xff"])
def test_damaged_document_counts_as_none_and_is_named(store: LoopStore, content: bytes) -> None:
    Path(store.paths.state).write_bytes(content)
    known = store.read_known(200)
    assert (known.state, known.damaged_documents) == (None, ("state.json",))


def test_damaged_rows_are_skipped_and_counted(store: LoopStore) -> None:
    Path(store.paths.reconcile_telemetry).write_bytes(b'{"status":1}\n{broken\n{"status":2}\n')
    known = store.read_known(200)
    assert known.reconcile_rows == [{"status": 1}, {"status": 2}]
    assert known.damaged_lines == 1


def test_history_holds_what_a_summary_reads(store: LoopStore) -> None:
    row: dict[str, JSON] = {"traceId": "t", "status": "failed", "healthStatus": "critical"}
    more: dict[str, JSON] = {"healthReasonCodes": ["a"], "reasonCode": "b", "durationSeconds": 2.5}
    rows: list[JSON] = [row, {**row, **more}]
    Path(store.paths.reconcile_telemetry).write_bytes(files.row_lines(rows))
    known = store.read_history(200)
    assert known.reconcile_rows is not None
    assert all("traceId" not in row for row in known.reconcile_rows if isinstance(row, dict))

    def summary(rows: list[JSON]) -> JSON:
        return summarize(
            rows, rows, now=0.0, repo_path="", loop_id="", reconcile_file="", control_file="", window=2
        )

    assert summary(known.reconcile_rows) == summary(rows)


def test_last_intent_that_does_not_parse_counts_as_none(store: LoopStore) -> None:
    Path(store.paths.intents).write_bytes(b'{"status":"ambiguous"}\n{"sta')
    assert store.last_intent() is None
    Path(store.paths.intents).write_bytes(b'{"status":"ambiguous"}\n')
    assert store.last_intent() == {"status": "ambiguous"}


def test_window_reaches_into_the_rotated_files(store: LoopStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "ROTATE_BYTES", 20)
    path = store.paths.reconcile_telemetry
    for number in range(6):
        assert store.append_telemetry(path, {"number": number})
    rows, _ = store.tail_rows(path, 5)
    assert [row["number"] for row in rows or []] == [1, 2, 3, 4, 5]
    rotated = sorted(os.listdir(os.path.dirname(path)))
    assert rotated == ["reconcile.jsonl", "reconcile.jsonl.1", "reconcile.jsonl.2"]


def test_quarantined_line_is_recorded_once(store: LoopStore) -> None:
    store.append_quarantine([{"line": 2, "sha256": "ab"}])
    store.append_quarantine([{"line": 2, "sha256": "ab"}, {"line": 2, "sha256": "cd"}])
    assert len(Path(store.paths.quarantine).read_bytes().splitlines()) == 2


def test_quarantine_fails_closed(store: LoopStore) -> None:
    os.mkdir(store.paths.quarantine)
    with pytest.raises(OpsError) as caught:
        store.append_quarantine([{"line": 2, "sha256": "ab"}])
    assert caught.value.reason == "state_unwritable"


def test_telemetry_fails_open(store: LoopStore) -> None:
    os.mkdir(store.paths.heartbeat_telemetry)
    assert not store.append_telemetry(store.paths.heartbeat_telemetry, {"a": 1})
    assert store.append_telemetry(store.paths.heartbeat_telemetry, None)


def test_unreadable_cursor_names_the_file(store: LoopStore) -> None:
    Path(store.paths.cursor).write_bytes(b"{")
    with pytest.raises(OpsError, match=r"cursor\.json") as caught:
        store.read_cursor()
    assert caught.value.reason == "cursor_invalid"
