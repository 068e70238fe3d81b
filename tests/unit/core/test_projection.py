"""Projection (contract F)."""

from typing import Any

import pytest

from manager.core.projection import project, seen_in_document, seen_in_message
from spritemesh.bridge import snapshot_to_json
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from superloop.ops.v1 import envelope_pb2 as pb
from tests.fakes.streams import LOOP, FakeLog


def projected(
    snapshot: pb.LoopRunSnapshot, event: JSON = None, previous: JSON = None, *, new_lineage: bool = False
) -> JSON:
    return project(
        seen_in_message(snapshot),
        event,
        previous,
        now=0,
        repo_path="/manager/repo",
        loop_id=LOOP,
        snapshot_file="/s",
        events_file=None,
        new_lineage=new_lineage,
    )


def event(name: str, loop_id: str = LOOP) -> JSON:
    return {"source": {"loopId": loop_id}, "event": {"name": name}}


def test_first_projection_has_no_previous_state() -> None:
    document = projected(FakeLog(4).snapshot())
    assert document["transition"] == {
        "previousState": "none",
        "triggeringSignal": "snapshot_status:running",
        "currentState": "running",
        "confidence": "medium",
    }
    assert document["source"]["repoPath"] == "/manager/repo"


def test_event_makes_the_projection_sure() -> None:
    transition = projected(FakeLog(4).snapshot(), event("role_end"))["transition"]
    assert (transition["triggeringSignal"], transition["confidence"]) == ("event:role_end", "high")


def test_activity_without_an_active_loop_diverges() -> None:
    snapshot = FakeLog(4).snapshot()
    snapshot.runtime.superloop_state.json = '{"active":false}'
    document = projected(snapshot, event("tests_start"))
    assert document["divergence"]["flags"]["activeMismatch"]
    assert document["transition"]["confidence"] == "low"
    assert document["projection"]["active"] is None


def test_missing_superloop_state_counts_as_inactive() -> None:
    snapshot = FakeLog(4).snapshot()
    snapshot.runtime.ClearField("superloop_state")
    assert projected(snapshot, event("role_start"))["divergence"]["any"]


def test_pending_approval_of_a_completed_run_diverges() -> None:
    snapshot = FakeLog(4).snapshot()
    snapshot.health.has_pending_approval = True
    snapshot.run.summary.json = '{"completion_ok":true}'
    assert projected(snapshot)["divergence"]["flags"]["approvalCompletionConflict"]


def test_smaller_offset_is_a_regression_within_one_lineage_only() -> None:
    previous = {"cursor": {"eventLineOffset": 9}}
    assert projected(FakeLog(4).snapshot(), None, previous)["divergence"]["flags"]["cursorRegression"]
    assert not projected(FakeLog(4).snapshot(), None, previous, new_lineage=True)["divergence"]["any"]


@pytest.mark.parametrize("offset", [4.5, "9", None, -1, False])
def test_previous_offset_that_is_no_whole_number_is_not_compared(offset: JSON) -> None:
    assert not projected(FakeLog(4).snapshot(), None, {"cursor": {"eventLineOffset": offset}})["divergence"][
        "any"
    ]


def test_empty_snapshot_gets_the_defaults_of_the_contract() -> None:
    document = projected(pb.LoopRunSnapshot(source=pb.Source(loop_id=LOOP)))
    assert document["run"] == {"runId": "unknown", "iteration": 0}
    assert document["cursor"] == {"eventLineOffset": 0, "eventLineCount": 0}
    assert document["projection"]["completionOk"] is False
    assert document["projection"]["hasPendingApproval"] is None


def test_foreign_snapshot_is_refused() -> None:
    with pytest.raises(OpsError) as caught:
        projected(FakeLog(4).snapshot(loop_id="beta"))
    assert caught.value.reason == "projection_failed"


def test_foreign_event_is_refused() -> None:
    with pytest.raises(OpsError) as caught:
        projected(FakeLog(4).snapshot(), event("role_end", "beta"))
    assert caught.value.reason == "projection_failed"


BARE: dict[str, Any] = {
    "schemaVersion": "v1",
    "envelopeType": "loop_run_snapshot",
    "source": {"loopId": LOOP},
}


def projected_document(document: JSON, previous: JSON = None) -> JSON:
    return project(
        seen_in_document(document, what="snapshot s"),
        None,
        previous,
        now=0,
        repo_path="/manager/repo",
        loop_id=LOOP,
        snapshot_file="/s",
        events_file=None,
    )


def test_document_and_message_of_one_snapshot_project_alike() -> None:
    snapshot = FakeLog(4).snapshot()
    assert projected_document(snapshot_to_json(snapshot)) == projected(snapshot)


def test_bare_document_gets_the_defaults_of_the_contract() -> None:
    document = projected_document(BARE)
    assert document == projected(pb.LoopRunSnapshot(source=pb.Source(loop_id=LOOP)))


@pytest.mark.parametrize("offset", ["5", 5.5, -1, [5]])
def test_offset_of_another_kind_is_shown_as_it_is_and_not_compared(offset: JSON) -> None:
    document = projected_document(
        BARE | {"cursor": {"eventLineOffset": offset}}, {"cursor": {"eventLineOffset": 9}}
    )
    assert document["cursor"]["eventLineOffset"] == offset
    assert document["divergence"]["any"] is False


@pytest.mark.parametrize(
    ("status", "shown", "signal"),
    [("", "", ""), (5, 5, "5"), (None, "unknown", "unknown"), (False, "unknown", "unknown")],
)
def test_status_of_a_document_is_taken_as_it_is(status: JSON, shown: JSON, signal: str) -> None:
    transition = projected_document(BARE | {"run": {"status": status}})["transition"]
    assert transition["currentState"] == shown
    assert transition["triggeringSignal"] == f"snapshot_status:{signal}"


@pytest.mark.parametrize("member", ["run", "runtime", "cursor", "health", "artifacts", "sequence"])
def test_part_of_a_document_that_is_no_object_says_nothing(member: str) -> None:
    for value in ("x", 5, ["x"], True):
        assert projected_document(BARE | {member: value}) == projected_document(BARE)


@pytest.mark.parametrize(
    "damage",
    [
        {"schemaVersion": "v2"},
        {"envelopeType": ["loop_run_snapshot"]},
        {"source": "x"},
        {"source": {"loopId": 5}},
    ],
)
def test_document_of_another_version_type_or_loop_is_refused(damage: JSON) -> None:
    with pytest.raises(OpsError) as caught:
        projected_document(BARE | damage)
    assert caught.value.reason == "projection_failed"
