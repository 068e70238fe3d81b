"""LoopReader.snapshot: derived from real files; the recorded cases of the contract tests say the rest."""

from collections.abc import Iterator

import pytest

from sprite_agent.runtime.loop import LoopReader
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from tests.harness.loops import LoopFiles, Repo, event, events
from tests.harness.streams import place


@pytest.fixture
def reader(loop: LoopFiles) -> Iterator[LoopReader]:
    found = LoopReader(str(loop.repo), loop.loop_id)
    yield found
    found.close()


def refusal(reader: LoopReader) -> OpsError:
    with pytest.raises(OpsError) as caught:
        reader.snapshot()
    return caught.value


def test_snapshot_names_its_place_in_the_log(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(events(1, 3) + b"torn")
    snapshot = reader.snapshot(trace_id="t")
    assert snapshot.position == place(events(1, 3))
    assert snapshot.sequence_value == snapshot.health.event_count == 3
    assert snapshot.cursor.event_line_offset == snapshot.cursor.event_line_count == 3
    assert snapshot.artifacts.events.size_bytes == loop.log.stat().st_size
    assert snapshot.trace_id == "t"
    assert not reader.snapshot().HasField("trace_id")


def test_asking_again_costs_no_reading_until_something_changes(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(event(1))
    assert reader.snapshot_if_unchanged() is None
    first = reader.snapshot()
    again = reader.snapshot_if_unchanged()
    assert again is not None
    first.emitted_at = again.emitted_at = ""
    assert again == first
    loop.append(event(2))
    assert reader.snapshot_if_unchanged() is None
    reader.snapshot()
    loop.put("approval.json", {"status": "pending"})
    assert reader.snapshot_if_unchanged() is None


def test_run_id_of_the_caller_is_not_remembered(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(event(1, run_id="own"))
    assert reader.snapshot(run_id="other").run.run_id == "other"
    assert reader.snapshot().run.run_id == "own"


def test_current_run_is_that_of_the_log_while_the_summary_is_of_the_run_before(
    reader: LoopReader, loop: LoopFiles
) -> None:
    loop.append(event(1, run_id="new"))
    loop.put("run-summary.json", {"entries": [{"run_id": "old", "completion_ok": True}]})
    snapshot = reader.snapshot()
    assert (snapshot.run.run_id, snapshot.current_run_id) == ("old", "new")  # v1 tells the first (B.2)
    loop.append(event(2, run_id=None))
    assert reader.snapshot().current_run_id == "old"


def test_a_pending_approval_is_named_by_what_its_file_holds(reader: LoopReader, loop: LoopFiles) -> None:
    loop.append(event(1))
    assert reader.snapshot().pending_approval_id == ""
    loop.put("approval.json", {"status": "pending", "run_id": "one"})
    snapshot = reader.snapshot()
    assert len(snapshot.pending_approval_id) == 64
    assert snapshot.pending_approval_id == snapshot.artifacts.approval.sha256
    loop.put("approval.json", {"status": "pending", "run_id": "two"})
    assert reader.snapshot().pending_approval_id not in {"", snapshot.pending_approval_id}
    loop.put("approval.json", {"status": "approved", "run_id": "two"})
    assert reader.snapshot().pending_approval_id == ""


@pytest.mark.parametrize(
    ("value", "run_id"),
    [
        (None, "of-the-event"),
        (False, "of-the-event"),
        (0, "of-the-event"),
        (0.0, "of-the-event"),
        ("", "of-the-event"),
        ([], "[]"),
        ({}, "{}"),
        ("0", "0"),
        (7, "7"),
    ],
)
def test_run_id_is_the_first_that_is_not_empty(
    reader: LoopReader, loop: LoopFiles, value: JSON, run_id: str
) -> None:
    loop.append(event(1, run_id="of-the-event"))
    loop.put("run-summary.json", {"entries": [{"run_id": value}]})
    assert reader.snapshot().run.run_id == run_id


@pytest.mark.parametrize(
    ("state", "approval", "entry", "last", "status"),
    [
        ({"active": True, "current_loop_id": "alpha"}, {"status": "pending"}, {}, {}, "awaiting_approval"),
        ({"active": True, "current_loop_id": "alpha"}, None, {"completion_ok": True}, {}, "complete"),
        ({"active": True, "current_loop_id": "alpha"}, None, {}, {"event": "loop_stop"}, "running"),
        ({"active": True, "current_loop_id": "other"}, None, {}, {"event": "loop_stop"}, "stopped"),
        (None, None, None, {"status": "timeout"}, "failed"),
        ({"active": False}, None, {"iteration": 1}, {}, "idle"),
        ({"active": False}, None, None, {}, "unknown"),
        (None, None, {"iteration": 1}, {}, "unknown"),
    ],
)
def test_status_is_the_first_row_that_holds(
    reader: LoopReader,
    repo: Repo,
    loop: LoopFiles,
    state: JSON,
    approval: JSON,
    entry: JSON,
    last: dict[str, JSON],
    status: str,
) -> None:
    loop.append(event(1, **{"name": "role_end", **{k: v for k, v in last.items() if k != "event"}}))
    if "event" in last:
        loop.append(event(2, str(last["event"])))
    if state is not None:
        repo.put("state.json", state)
    if approval is not None:
        loop.put("approval.json", approval)
    if entry is not None:
        loop.put("run-summary.json", {"entries": [{"iteration": 0}, entry]})
    assert reader.snapshot().run.status == status


def test_missing_loop_and_missing_log_are_told_apart(repo: Repo) -> None:
    assert refusal(LoopReader(str(repo.root), "alpha")).reason == "loop_not_found"
    repo.loop("alpha", None)
    assert refusal(LoopReader(str(repo.root), "alpha")).reason == "events_missing"


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("state.json", "text"),
        ("state.json", {"active": 1}),
        ("approval.json", []),
        ("run-summary.json", 3),
        ("run-summary.json", {"entries": {}}),
        ("run-summary.json", {"entries": ["text"]}),
        ("run-summary.json", {"entries": [{"completion_ok": "yes"}]}),
        ("run-summary.json", {"entries": [{"run_id": True}]}),
    ],
)
def test_document_of_a_wrong_kind_is_refused_by_name(
    reader: LoopReader, repo: Repo, loop: LoopFiles, name: str, document: JSON
) -> None:
    if name == "state.json":
        repo.put(name, document)
    else:
        loop.put(name, document)
    error = refusal(reader)
    assert error.reason == "artifact_invalid"
    assert name in error.message


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{half", "invalid_json_line"),
        (b"[1]", "line_not_object"),
        (b'{"x":' + b"[" * 300 + b"]" * 300 + b"}", "invalid_json_line"),
        (b"{" + b" " * (1 << 20) + b"}", "line_too_long"),
        (b'{"message":' + b"[" * 200 + b"1," * 100_000 + b"1" + b"]" * 200 + b"}", "line_too_long"),
    ],
    ids=["no json", "no object", "too deep", "too long", "too long as text"],
)
def test_last_line_that_is_no_event_is_refused_by_number(
    reader: LoopReader, loop: LoopFiles, line: bytes, reason: str
) -> None:
    loop.append(event(1) + line + b"\n\n")
    error = refusal(reader)
    assert error.reason == reason
    assert "line 2" in error.message


def test_snapshot_that_no_reader_would_accept_is_refused_by_name(reader: LoopReader, loop: LoopFiles) -> None:
    loop.put("run-summary.json", {"entries": [{"iteration": 1, "notes": "x" * (4 << 20)}]})
    error = refusal(reader)
    assert error.reason == "artifact_too_large"
    assert "run-summary.json" in error.message


def test_long_history_of_a_summary_does_not_travel(reader: LoopReader, loop: LoopFiles) -> None:
    entries = [{"iteration": n, "notes": "x" * 50_000} for n in range(120)]
    loop.put("run-summary.json", {"entries": entries})
    snapshot = reader.snapshot()
    assert snapshot.run.iteration == 119
    assert snapshot.ByteSize() < 200_000
