"""What a sink did not take is tried again on later passes, and nothing else is (contract L17)."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from manager.core import alert_retries
from manager.core.alert_retries import MAX_TRIES, Entry, document_of
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


# --- who was not asked ------------------------------------------------------------------------------


def queue(desk: Desk) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(Path(desk.paths.alert_retries).read_text())["entries"]
    return found


def test_alert_is_not_given_up_for_passes_that_did_not_ask_for_it(desk: Desk) -> None:
    hook = desk.sink("hook")
    address = desk.environment["HOOK_SECRET"]
    desk.environment["HOOK_SECRET"] = "http://127.0.0.1:9/nobody"
    desk.escalate("one", "two", "three")
    desk.dispatch()
    for _ in range(MAX_TRIES):
        desk.later(3700)
    assert [entry["asked"]["hook"]["times"] for entry in queue(desk)] == [3, 3, 3]
    # A pass that asked nobody for an alert has no row of it.
    assert len(desk.rows) == 3 + MAX_TRIES
    desk.environment["HOOK_SECRET"] = address
    desk.later(3700)
    assert sorted(categories(hook.requests)) == ["one", "three", "two"]
    assert "alert_retries_exhausted" not in [reason for _, reason, _ in desk.results]


def test_first_request_for_an_alert_on_a_later_pass_is_its_first_retry(desk: Desk) -> None:
    desk.sink("hook", Answer(closes=True), Answer(200))
    silent = desk.environment["HOOK_SECRET"]
    desk.environment["HOOK_SECRET"] = "http://127.0.0.1:9/nobody"
    desk.escalate("one", "two")
    desk.dispatch()
    assert [(entry["tries"], entry["asked"]) for entry in queue(desk)][1] == (0, {})
    desk.environment["HOOK_SECRET"] = silent
    desk.later(60)
    # Who was never asked comes first.
    assert [row["escalationCategory"] for row in desk.rows[2:]] == ["two", "one"]
    assert [row["retryAttempt"] for row in desk.rows[2:]] == [1, 1]


def test_sink_that_was_asked_often_enough_is_given_up_by_itself(desk: Desk) -> None:
    bad = desk.sink("bad", Answer(400))
    gone = desk.sink("gone")
    address = desk.environment["GONE_SECRET"]
    desk.environment["GONE_SECRET"] = "http://127.0.0.1:9/nobody"
    desk.escalate("one", "two")
    desk.dispatch()
    for _ in range(MAX_TRIES - 1):
        desk.later(3700)
    given_up = [row for row in desk.rows if row.get("reasonCode") == "alert_retries_exhausted"]
    assert sorted(row["escalationCategory"] for row in given_up) == ["one", "two"]
    assert [row["waitingSinks"] for row in given_up] == [["bad"]] * 2
    assert [list(waiting) for waiting in desk.waiting] == [["gone"], ["gone"]]
    desk.environment["GONE_SECRET"] = address
    desk.later(3700)
    assert (len(bad.requests), len(gone.requests), desk.waiting) == (2 * MAX_TRIES, 2, [])


def test_time_of_a_pass_is_shared_by_retries_and_new_alerts(desk: Desk) -> None:
    hook = desk.sink("hook", Answer(503, delay_seconds=0.1))
    desk.escalate("one", "two", "three", "four", "five")
    desk.dispatch()
    desk.escalate(*["new"] * 8)
    began = time.monotonic()
    desk.now += 60
    state = desk.dispatch_in(0.4)
    assert time.monotonic() - began < 0.8
    told = categories(hook.requests)[5:]
    assert "one" in told
    assert "five" not in told
    assert 1 <= told.count("new") < 8
    # The offset stays before what is left, which comes next.
    assert state["escalationsLineOffset"] == 5 + told.count("new") < state["escalationsLineCount"] == 13
    desk.dispatch()
    assert categories(hook.requests)[5:].count("new") == 8


def test_sinks_that_the_time_did_not_suffice_for_are_asked_later(desk: Desk) -> None:
    desk.sink("slow", Answer(200, delay_seconds=0.15))
    other = desk.sink("other")
    desk.escalate("one")
    state = desk.dispatch_in(0.1)
    assert state["status"] == "partial"
    assert desk.rows[0]["sinks"][1]["message"] == "not asked: the time of this pass is used up"
    desk.later(60)
    assert (len(other.requests), desk.waiting) == (1, [])


# --- another file -----------------------------------------------------------------------------------


def test_waiting_alerts_outlive_the_rotation_of_their_file(desk: Desk) -> None:
    hook = desk.sink("hook", *[Answer(503)] * 4, Answer(200))
    desk.escalate("one", "two")
    desk.dispatch()
    Path(desk.paths.escalations).rename(f"{desk.paths.escalations}.1")
    Path(desk.paths.alert_state).unlink()
    desk.escalate("seven", "eight")
    desk.later(10)
    assert [entry["escalation"]["category"] for entry in queue(desk)] != ["seven", "eight"]
    assert sorted(entry["escalation"]["category"] for entry in queue(desk)) == [
        "eight",
        "one",
        "seven",
        "two",
    ]
    desk.later(60)
    assert sorted(categories(hook.requests)[4:]) == ["eight", "one", "seven", "two"]
    assert desk.waiting == []


def test_alert_on_its_way_outlives_the_rotation_of_its_file(desk: Desk) -> None:
    """The process ended within the first try, and the line is there no more."""
    hook = desk.sink("hook")
    entry = Entry(3, {"category": "lost"}, waiting={"hook": ""}, routed=True, digest="d")
    Path(desk.paths.alert_retries).write_text(json.dumps(document_of([entry], now=desk.now, loop_id="alpha")))
    desk.escalate("new")
    desk.dispatch()
    assert sorted(categories(hook.requests)) == ["lost", "new"]
    assert desk.waiting == []


def test_removed_state_tells_no_sink_twice_that_took_it_while_another_waits(desk: Desk) -> None:
    good, bad = desk.sink("good"), desk.sink("bad", Answer(503), Answer(200))
    desk.escalate("one")
    desk.dispatch()
    Path(desk.paths.alert_state).unlink()
    desk.later(60)
    assert (len(good.requests), len(bad.requests), desk.waiting) == (1, 2, [])


def test_offset_beyond_the_file_does_not_hinder_retries(desk: Desk) -> None:
    hook = desk.sink("hook", Answer(503), Answer(503), Answer(200))
    desk.escalate("one", "two")
    desk.dispatch()
    Path(desk.paths.escalations).write_text("")
    with pytest.raises(OpsError, match=r"is 2, .* has 0 lines"):
        desk.later(60)
    assert categories(hook.requests) == ["one", "two"] * 2
    assert desk.waiting == []
    assert desk.state["escalationsLineOffset"] == 2
