"""What a sink did not take is tried again on later passes, and nothing else is (contract L17)."""

import json
import threading
from pathlib import Path

import pytest

from manager.core import alert_retries
from manager.core.alert_retries import MAX_TRIES
from spritemesh.errors import OpsError
from tests.harness.receiver import Answer
from tests.integration.alerts.conftest import Desk, categories


def test_failed_alert_is_sent_on_a_later_pass(desk: Desk) -> None:
    hook = desk.sink("hook", Answer(503), Answer(200))
    desk.escalate("one")
    assert desk.dispatch()["failedCount"] == 1
    assert desk.later(59)["status"] == "no_new_escalations"
    assert len(hook.requests) == 1
    state = desk.later(1)
    assert (state["status"], state["processedCount"], state["escalationsLineOffset"]) == (
        "no_new_escalations",
        0,
        1,
    )
    assert categories(hook.requests) == ["one", "one"]
    assert desk.results == [("failed", "dispatch_failed", None), ("dispatched", None, 1)]
    assert not Path(desk.paths.alert_retries).exists()


def test_sink_that_took_it_is_not_told_again(desk: Desk) -> None:
    good = desk.sink("good")
    bad = desk.sink("bad", *[Answer(500)] * 3, Answer(200))
    desk.escalate("one")
    desk.dispatch()
    for seconds in (60, 120, 240):
        desk.later(seconds)
    assert (len(good.requests), len(bad.requests)) == (1, 4)
    assert desk.results[-1] == ("dispatched", None, 3)
    assert [row["sinkCount"] for row in desk.rows] == [2, 1, 1, 1]


def test_pauses_grow_and_the_alert_is_given_up_at_last(desk: Desk) -> None:
    hook = desk.sink("hook", Answer(400, "no"))
    desk.escalate("one")
    desk.dispatch()
    for seconds in (60, 120, 240, 480, 960, 1920, 3600):
        desk.later(seconds - 1)
        before = len(hook.requests)
        desk.later(1)
        assert len(hook.requests) == before + 1
    assert len(hook.requests) == MAX_TRIES
    last = desk.rows[-1]
    assert (last["status"], last["reasonCode"]) == ("failed", "alert_retries_exhausted")
    assert last["message"] == "given up after 8 tries (hook: sink_rejected)"
    assert last["escalation"]["category"] == "one"
    assert desk.waiting == []
    desk.later(86_400)
    assert len(hook.requests) == MAX_TRIES


def test_new_alerts_go_out_while_old_ones_wait(desk: Desk) -> None:
    hook = desk.sink("hook", Answer(503), Answer(200))
    desk.escalate("one")
    desk.dispatch()
    desk.escalate("two")
    assert desk.later(10)["status"] == "success"
    assert categories(hook.requests) == ["one", "two"]
    assert desk.waiting == [{"hook": "sink_failed"}]


def test_sink_without_an_answer_is_asked_once_a_pass(desk: Desk) -> None:
    hook = desk.sink("hook", Answer(delay_seconds=30), timeoutSeconds=1)
    other = desk.sink("other")
    desk.escalate("one", "two", "three")
    assert desk.dispatch()["status"] == "partial"
    assert (len(hook.requests), len(other.requests)) == (1, 3)
    assert desk.waiting == [{"hook": "sink_timeout"}] * 3
    assert "not asked again" in desk.rows[1]["sinks"][0]["message"]


def test_mended_secret_is_used_by_the_next_try(desk: Desk) -> None:
    hook = desk.sink("hook")
    address = desk.environment.pop("HOOK_SECRET")
    desk.escalate("one")
    desk.dispatch()
    assert desk.waiting == [{"hook": "missing_secret"}]
    desk.environment["HOOK_SECRET"] = address
    desk.later(60)
    assert len(hook.requests) == 1
    assert desk.results[-1] == ("dispatched", None, 1)


@pytest.mark.parametrize("broken", ["{", '{"schemaVersion":"v2"}', None])
def test_alert_outlives_a_broken_catalog(desk: Desk, broken: str | None) -> None:
    hook = desk.sink("hook")
    if broken is None:
        desk.catalog.unlink()
    else:
        desk.catalog.write_text(broken)
    desk.escalate("one")
    state = desk.dispatch()
    assert (state["failedCount"], state["failureReasonCodes"]) == (1, ["route_resolution_failed"])
    assert str(desk.catalog) in desk.rows[0]["message"]
    desk.later(60)
    desk.write_catalog()
    desk.later(120)
    assert desk.results[1:] == [("failed", "route_resolution_failed", 1), ("dispatched", None, 2)]
    assert categories(hook.requests) == ["one"]


def test_escalation_that_says_nonsense_is_not_tried_again(desk: Desk) -> None:
    desk.sink("hook")
    desk.escalate("one", severity="loud")
    assert desk.dispatch()["failureReasonCodes"] == ["route_resolution_failed"]
    assert desk.waiting == []


def test_sink_that_was_switched_off_is_not_told_any_more(desk: Desk) -> None:
    hook = desk.sink("hook", Answer(503))
    desk.escalate("one")
    desk.dispatch()
    desk.put_sink("hook", {"enabled": False, "type": "webhook", "urlEnv": "HOOK_SECRET"})
    desk.later(60)
    assert desk.results[-1] == ("skipped", "no_dispatchable_sinks", 1)
    assert (desk.waiting, len(hook.requests)) == ([], 1)


def test_sink_that_came_later_is_not_told_of_old_alerts(desk: Desk) -> None:
    desk.sink("hook", Answer(503), Answer(200))
    desk.escalate("one")
    desk.dispatch()
    late = desk.sink("late")
    desk.later(60)
    assert desk.results[-1] == ("dispatched", None, 1)
    assert late.requests == []


def test_queue_gives_up_its_oldest_when_it_is_full(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manager.alerts.queue.MAX_ENTRIES", 2)
    desk.sink("hook", Answer(503))
    desk.escalate("one", "two", "three")
    desk.dispatch()
    assert len(desk.waiting) == 2
    (given_up,) = [row for row in desk.rows if row.get("reasonCode") == "alert_retries_exhausted"]
    assert given_up["escalationCategory"] == "one"


def test_many_due_alerts_are_spread_over_passes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manager.alerts.work.MAX_RETRIES_PER_PASS", 2)
    hook = desk.sink("hook", *[Answer(503)] * 3, Answer(200))
    desk.escalate("one", "two", "three")
    desk.dispatch()
    desk.later(60)
    assert len(hook.requests) == 5
    desk.later(0)
    assert categories(hook.requests)[3:] == ["one", "two", "three"]


def test_queue_belongs_to_the_state_beside_which_it_lies(desk: Desk, tmp_path: Path) -> None:
    desk.sink("hook", Answer(503))
    desk.escalate("one")
    state = str(tmp_path / "state.json")
    desk.paths = desk.paths._replace(alert_state=state, alert_retries=f"{state}.retries.json")
    desk.dispatch()
    assert Path(f"{state}.retries.json").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"entries":[{}]}'])
def test_damaged_queue_is_named_and_nothing_is_sent(desk: Desk, content: str) -> None:
    hook = desk.sink("hook")
    desk.escalate("one")
    Path(desk.paths.alert_retries).write_text(content)
    with pytest.raises(OpsError, match=r"alert-retries\.json") as caught:
        desk.dispatch()
    assert caught.value.reason == "document_invalid"
    assert hook.requests == []


def test_dispatchers_at_once_deliver_once(desk: Desk) -> None:
    hook = desk.sink("hook", Answer(200, delay_seconds=0.05))
    desk.escalate("one", "two")
    states: list[str] = []
    threads = [threading.Thread(target=lambda: states.append(desk.dispatch()["status"])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(states) == ["no_new_escalations"] * 3 + ["success"]
    assert categories(hook.requests) == ["one", "two"]


def test_queue_holds_what_an_operator_wants_to_know(desk: Desk) -> None:
    desk.sink("good")
    desk.sink("bad", Answer(500))
    desk.escalate("one")
    desk.dispatch()
    (entry,) = json.loads(Path(desk.paths.alert_retries).read_text())["entries"]
    assert entry["line"] == 1
    assert entry["tries"] == 1
    assert entry["nextTryAt"] == "2023-11-14T22:14:20Z"
    assert [sink["id"] for sink in entry["delivered"]] == ["good"]
    assert entry["waiting"] == {"bad": "sink_failed"}
    assert alert_retries.MAX_ENTRIES >= 100
