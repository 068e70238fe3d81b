"""Requests that are not meant for what is there are refused."""

from collections.abc import Iterator

import pytest

from sprite_agent.control.observation import Observation, observe
from sprite_agent.control.target import check_exists, check_target
from sprite_agent.runtime.loop import LoopReader
from spritemesh.control import ControlRequest
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from tests.harness.loops import LoopFiles, Repo, event


@pytest.fixture
def reader(loop: LoopFiles) -> Iterator[LoopReader]:
    loop.append(event(1, run_id="run-1"))
    found = LoopReader(str(loop.repo), loop.loop_id)
    yield found
    found.close()


def outcome(reader: LoopReader, intent: str, **members: object) -> str:
    """The reason of the refusal, "" when there is none."""
    request = ControlRequest("alpha", intent, "key", **members)  # type: ignore[arg-type]
    seen: Observation | OpsError
    try:
        seen = observe(reader)
    except OpsError as error:
        seen = error
    try:
        check_target(reader.repo, request, seen)
    except OpsError as error:
        return error.reason
    return ""


@pytest.mark.parametrize("intent", ["cancel", "approve", "reject"])
def test_run_must_be_the_one_that_was_seen(reader: LoopReader, loop: LoopFiles, intent: str) -> None:
    loop.put("approval.json", {"status": "pending"})
    assert outcome(reader, intent, expected_run_id="run-1") == ""
    assert outcome(reader, intent, expected_run_id="run-0") == "target_changed"


def test_run_that_began_after_the_last_summary_is_another_one(reader: LoopReader, loop: LoopFiles) -> None:
    loop.put("run-summary.json", {"entries": [{"run_id": "run-0", "completion_ok": True}]})
    assert outcome(reader, "cancel", expected_run_id="run-0") == "target_changed"
    assert outcome(reader, "cancel", expected_run_id="run-1") == ""


@pytest.mark.parametrize("intent", ["approve", "reject"])
def test_approval_must_be_the_one_that_was_seen(reader: LoopReader, loop: LoopFiles, intent: str) -> None:
    loop.put("approval.json", {"status": "pending", "number": 1})
    first = observe(reader).pending_approval_id
    assert outcome(reader, intent, expected_approval_id=first) == ""
    loop.put("approval.json", {"status": "pending", "number": 2})
    assert outcome(reader, intent, expected_approval_id=first) == "target_changed"
    loop.put("approval.json", {"status": "approved"})
    anyway = {"even_if_nothing_pending": True}
    assert outcome(reader, intent, expected_approval_id=first, **anyway) == "target_changed"


@pytest.mark.parametrize("intent", ["approve", "reject"])
@pytest.mark.parametrize("approval", [None, {"status": "approved"}, {}])
def test_something_must_be_pending_unless_the_runtime_shall_decide(
    reader: LoopReader, loop: LoopFiles, intent: str, approval: JSON
) -> None:
    if approval is not None:
        loop.put("approval.json", approval)
    assert outcome(reader, intent) == "nothing_pending"
    assert outcome(reader, intent, even_if_nothing_pending=True) == ""


def test_cancel_needs_nothing_pending(reader: LoopReader) -> None:
    assert outcome(reader, "cancel") == ""


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"active": True, "current_loop_id": "beta"}, "other_loop_active"),
        ({"active": True, "current_loop_id": "alpha"}, ""),
        ({"active": True, "current_loop_id": ""}, ""),
        ({"active": True}, ""),
        ({"active": False, "current_loop_id": "beta"}, ""),
    ],
)
def test_cancel_spares_another_loop(reader: LoopReader, repo: Repo, state: JSON, reason: str) -> None:
    repo.put("state.json", state)
    assert outcome(reader, "cancel") == reason
    assert outcome(reader, "approve", even_if_nothing_pending=True) == ""


def test_loop_that_cannot_be_read_is_decided_on_only_without_expectations(
    reader: LoopReader, loop: LoopFiles, repo: Repo
) -> None:
    loop.directory.joinpath("approval.json").write_text("torn {")
    assert outcome(reader, "cancel") == ""
    assert outcome(reader, "approve", even_if_nothing_pending=True) == ""
    assert outcome(reader, "approve") == "artifact_invalid"
    assert outcome(reader, "cancel", expected_run_id="run-1") == "artifact_invalid"
    repo.root.joinpath(".superloop", "state.json").write_text("torn {")
    assert outcome(reader, "cancel") == ""


def test_loop_must_exist(repo: Repo, loop: LoopFiles) -> None:
    check_exists(str(repo.root), loop.loop_id)
    with pytest.raises(OpsError) as caught:
        check_exists(str(repo.root), "nowhere")
    assert caught.value.reason == "loop_not_found"
