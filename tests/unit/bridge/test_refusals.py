"""What the bridge refuses, how it says so, and what it reads although it is not quite v1."""

import copy
from typing import Any

import pytest

from spritemesh.bridge import event_from_json, event_to_json, snapshot_from_json, snapshot_to_json
from spritemesh.errors import OpsError
from superloop.ops.v1 import envelope_pb2 as pb

REFERENCE = {
    "path": "p",
    "exists": True,
    "sizeBytes": 3,
    "lineCount": 1,
    "sha256": "0" * 64,
    "mtimeEpoch": 1710147600,
}
SNAPSHOT: dict[str, Any] = {
    "schemaVersion": "v1",
    "envelopeType": "loop_run_snapshot",
    "emittedAt": "2024-03-11T09:00:00Z",
    "traceId": None,
    "source": {"repoPath": "/r", "loopId": "alpha"},
    "run": {"runId": "r", "iteration": 2, "status": "running", "summary": None},
    "runtime": {"superloopState": None, "activeRun": None, "approval": None, "heartbeat": None},
    "artifacts": {"events": REFERENCE},
    "sequence": {"source": "cursor_event_line_offset", "value": 4},
    "cursor": {"eventLineOffset": 4, "eventLineCount": 4},
    "health": {
        "eventCount": 4,
        "lastEventAt": None,
        "lastEventName": None,
        "lastSummaryAt": None,
        "hasPendingApproval": False,
        "gates": None,
        "stuck": None,
    },
}
EVENT: dict[str, Any] = {
    "schemaVersion": "v1",
    "envelopeType": "loop_run_event",
    "emittedAt": "2024-03-11T09:00:00Z",
    "traceId": None,
    "source": {"repoPath": "/r", "loopId": "alpha"},
    "sequence": {"source": "cursor_event_line_offset", "value": 4},
    "cursor": {"eventLineOffset": 4, "eventLineCount": 4},
    "run": {"runId": "r", "iteration": 2},
    "event": {
        "timestamp": "t",
        "name": "n",
        "role": None,
        "status": None,
        "message": None,
        "payload": None,
        "raw": {"event": "n"},
    },
}


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(document)
    *parents, name = path.split(".")
    level = document
    for parent in parents:
        level = level[parent]
    level[name] = value
    return document


def without(document: dict[str, Any], path: str) -> dict[str, Any]:
    document = copy.deepcopy(document)
    *parents, name = path.split(".")
    level = document
    for parent in parents:
        level = level[parent]
    del level[name]
    return document


OBJECT, TEXT, BOOL, NUMBER = "an object", "a string or null", "a boolean", "a number"


@pytest.mark.parametrize(
    ("path", "value", "expected", "kind"),
    [
        ("schemaVersion", "v2", "'v1'", "'v2'"),
        ("schemaVersion", 1, "'v1'", "number"),
        ("envelopeType", "loop_run_event", "'loop_run_snapshot'", "'loop_run_event'"),
        ("emittedAt", 5, TEXT, "number"),
        ("traceId", ["t"], TEXT, "array"),
        ("source", "here", OBJECT, "string"),
        ("source.loopId", None, "a string", "null"),
        ("source.repoPath", {}, TEXT, "object"),
        ("run", [], OBJECT, "array"),
        ("run.runId", True, TEXT, "boolean"),
        ("run.iteration", "2", NUMBER, "string"),
        ("run.iteration", True, NUMBER, "boolean"),
        ("run.status", 1.5, TEXT, "number"),
        ("runtime", 0, OBJECT, "number"),
        ("artifacts", [], OBJECT, "array"),
        ("artifacts.events", True, OBJECT, "boolean"),
        ("artifacts.events.path", 1, TEXT, "number"),
        ("artifacts.events.exists", "yes", BOOL, "string"),
        ("artifacts.events.sizeBytes", -1, "a whole number", "number"),
        ("artifacts.events.lineCount", 1.5, "a whole number", "number"),
        ("artifacts.events.sha256", 1, TEXT, "number"),
        ("artifacts.events.mtimeEpoch", 2**63, "a whole number", "number"),
        ("artifacts.events.mtimeEpoch", float("inf"), "a whole number", "number"),
        ("artifacts.events.mtimeEpoch", "now", "a whole number", "string"),
        ("sequence", "4", OBJECT, "string"),
        ("cursor", 4, OBJECT, "number"),
        ("health", [], OBJECT, "array"),
        ("health.lastEventName", 1, TEXT, "number"),
        ("health.hasPendingApproval", 1, BOOL, "number"),
    ],
)
def test_snapshot_member_of_another_kind_is_refused_by_name_and_kind(
    path: str, value: Any, expected: str, kind: str
) -> None:
    with pytest.raises(OpsError) as caught:
        snapshot_from_json(changed(SNAPSHOT, path, value), what="snapshot s.json")
    error = caught.value
    assert (error.reason, error.field) == ("projection_failed", path)
    assert error.message.startswith(f"snapshot s.json: {path} must be {expected}")
    assert error.message.endswith(f"found {kind}")


@pytest.mark.parametrize(
    ("path", "value", "expected", "kind"),
    [
        ("schemaVersion", None, "'v1'", "null"),
        ("envelopeType", "loop_run_snapshot", "'loop_run_event'", "'loop_run_snapshot'"),
        ("traceId", 1, TEXT, "number"),
        ("source.loopId", 7, "a string", "number"),
        ("sequence", [], OBJECT, "array"),
        ("cursor", False, OBJECT, "boolean"),
        ("run", "r", OBJECT, "string"),
        ("run.runId", [], TEXT, "array"),
        ("run.iteration", {}, NUMBER, "object"),
        ("event", [], OBJECT, "array"),
        ("event.name", None, "a string", "null"),
        ("event.timestamp", 5, TEXT, "number"),
        ("event.role", {}, TEXT, "object"),
        ("event.status", False, TEXT, "boolean"),
        ("event.message", 0, TEXT, "number"),
    ],
)
def test_event_member_of_another_kind_is_refused_by_name_and_kind(
    path: str, value: Any, expected: str, kind: str
) -> None:
    with pytest.raises(OpsError) as caught:
        event_from_json(changed(EVENT, path, value), what="event 3", reason="service_response_invalid")
    error = caught.value
    assert (error.reason, error.field) == ("service_response_invalid", path)
    assert error.message.startswith(f"event 3: {path} must be {expected}")
    assert error.message.endswith(f"found {kind}")


def test_event_without_a_name_is_refused() -> None:
    with pytest.raises(OpsError, match="non-empty"):
        event_from_json(changed(EVENT, "event.name", ""))


@pytest.mark.parametrize("read", [snapshot_from_json, event_from_json])
@pytest.mark.parametrize("document", [None, [], "text", 1, True])
def test_document_that_is_no_object_is_refused(read: Any, document: Any) -> None:
    with pytest.raises(OpsError, match="the document must be an object"):
        read(document)


@pytest.mark.parametrize("wrong", [None, "4", -1, 1.5, True, [], 2**64, float("inf")])
def test_count_that_is_no_whole_number_reads_as_missing(wrong: Any) -> None:
    """Contract G.5 judges it: a sequence that is missing is a violation, not a broken document."""
    document = changed(SNAPSHOT, "sequence.value", wrong)
    document = changed(document, "cursor.eventLineOffset", wrong)
    document = changed(document, "health.eventCount", wrong)
    snapshot = snapshot_from_json(document)
    assert not snapshot.HasField("sequence_value")
    assert not snapshot.cursor.HasField("event_line_offset")
    assert not snapshot.health.HasField("event_count")
    batch, event = _only(event_from_json(changed(EVENT, "sequence.value", wrong)))
    assert (batch.last_line, event.line) == (0, 0)


@pytest.mark.parametrize(
    ("path", "odd"),
    [
        ("sequence.value", "4"),
        ("sequence.value", 0),
        ("sequence.source", "elsewhere"),
        ("cursor.eventLineOffset", 9),
        ("cursor.eventLineCount", None),
    ],
)
def test_event_whose_place_is_told_oddly_is_shown_as_it_came(path: str, odd: Any) -> None:
    """Another v1 service may count otherwise; what it said is evidence (contract F)."""
    document = changed(EVENT, path, odd)
    batch, event = _only(event_from_json(document))
    assert event_to_json(batch, event) == document
    batch, event = _only(event_from_json(EVENT))
    assert not event.HasField("envelope")


def _only(batch: pb.EventBatch) -> tuple[pb.EventBatch, pb.LoopRunEvent]:
    return batch, batch.events[0]


def test_whole_number_may_be_written_as_a_double() -> None:
    snapshot = snapshot_from_json(changed(SNAPSHOT, "artifacts.events.mtimeEpoch", 1710147600.0))
    assert snapshot.artifacts.events.mtime_epoch == 1710147600


@pytest.mark.parametrize(
    "path", ["run", "runtime", "artifacts", "sequence", "cursor", "health", "run.iteration", "run.summary"]
)
def test_snapshot_without_a_member_is_read(path: str) -> None:
    """Contract F gives defaults for what is missing."""
    snapshot_to_json(snapshot_from_json(without(SNAPSHOT, path)))


def test_member_that_v1_does_not_know_is_passed_over() -> None:
    assert snapshot_from_json(SNAPSHOT | {"further": 1}) == snapshot_from_json(SNAPSHOT)


def test_artifact_that_was_absent_stays_absent() -> None:
    assert list(snapshot_to_json(snapshot_from_json(SNAPSHOT))["artifacts"]) == ["events"]


@pytest.mark.parametrize(("given", "kept"), [("a\ud800b", "a\ufffdb"), ("\udc00", "\ufffd"), ("é😀", "é😀")])
def test_lone_surrogate_in_a_lifted_text_becomes_the_replacement_character(given: str, kept: str) -> None:
    event = event_from_json(changed(EVENT, "event.message", given)).events[0]
    assert event.message == kept
    snapshot = snapshot_from_json(changed(SNAPSHOT, "source.loopId", given))
    assert snapshot.source.loop_id == kept


@pytest.mark.parametrize(
    "event",
    [
        pb.LoopRunEvent(line=3, raw=""),
        pb.LoopRunEvent(line=3, raw="{"),
        pb.LoopRunEvent(line=3, raw="[" * 300 + "]" * 300),
        pb.LoopRunEvent(line=3, raw="{}", payload=pb.JsonObject(json="nul")),
        pb.LoopRunEvent(line=3, raw="{}", iteration_literal="1.2.3"),
        pb.LoopRunEvent(line=3, raw="{}", iteration_literal='"7"'),
        pb.LoopRunEvent(line=3, raw="{}", iteration_literal="true"),
    ],
    ids=["no-raw", "torn-raw", "deep-raw", "payload", "iteration", "iteration-text", "iteration-flag"],
)
def test_event_that_carries_no_valid_json_is_the_senders_fault(event: pb.LoopRunEvent) -> None:
    with pytest.raises(OpsError) as caught:
        event_to_json(pb.EventBatch(events=[event]), event)
    assert caught.value.reason == "service_response_invalid"


def test_snapshot_that_carries_no_valid_json_is_the_senders_fault() -> None:
    snapshot = pb.LoopRunSnapshot(runtime=pb.Runtime(approval=pb.JsonObject(json="{,}")))
    with pytest.raises(OpsError) as caught:
        snapshot_to_json(snapshot)
    assert caught.value.reason == "service_response_invalid"


def test_deepest_json_that_is_read_survives_the_wire() -> None:
    raw: Any = 1
    for _ in range(255):
        raw = [raw]
    document = changed(EVENT, "event.raw", {"event": "n", "data": raw})
    document["event"]["payload"] = raw
    batch = pb.EventBatch.FromString(event_from_json(document).SerializeToString())
    assert event_to_json(*_only(batch)) == document
