"""One pass over new lines: offsets, counts and rows (contract I.3, L19, L27)."""

from pathlib import Path

import pytest

from spritemesh import traceindex
from spritemesh.errors import OpsError
from tests.harness.receiver import Answer
from tests.integration.alerts.conftest import TRACE_ID, Desk, categories


def append(desk: Desk, text: str) -> None:
    with open(desk.paths.escalations, "a", encoding="utf-8") as file:
        file.write(text)


def test_line_without_its_newline_is_not_written_yet(desk: Desk) -> None:
    hook = desk.sink("hook")
    append(desk, '{"category":"one"}')
    state = desk.dispatch()
    assert (state["status"], state["escalationsLineCount"]) == ("no_new_escalations", 0)
    append(desk, "\n")
    assert desk.dispatch()["escalationsLineOffset"] == 1
    assert categories(hook.requests) == ["one"]


def test_offset_beyond_the_file_names_both_numbers(desk: Desk) -> None:
    desk.escalate("one")
    Path(desk.paths.alert_state).write_text('{"escalationsLineOffset":7}')
    with pytest.raises(OpsError, match=r"is 7, .* has 1 lines"):
        desk.dispatch()


@pytest.mark.parametrize("state", ["{}", '{"escalationsLineOffset":"many"}', '{"escalationsLineOffset":-1}'])
def test_offset_that_is_no_number_is_0(desk: Desk, state: str) -> None:
    hook = desk.sink("hook")
    desk.escalate("one")
    Path(desk.paths.alert_state).write_text(state)
    desk.dispatch()
    assert categories(hook.requests) == ["one"]


def test_state_that_is_no_json_is_named(desk: Desk) -> None:
    Path(desk.paths.alert_state).write_text("{")
    with pytest.raises(OpsError, match=r"alert-dispatch-state\.json"):
        desk.dispatch()


def test_no_file_keeps_the_offset(desk: Desk) -> None:
    Path(desk.paths.alert_state).write_text('{"escalationsLineOffset":7}')
    state = desk.dispatch()
    assert (state["status"], state["escalationsLineOffset"], state["escalationsLineCount"]) == (
        "no_source",
        7,
        7,
    )


def test_limit_takes_so_many_lines(desk: Desk) -> None:
    hook = desk.sink("hook")
    desk.escalate("one", "two", "three")
    state = desk.dispatch(limit=2)
    assert (state["escalationsLineOffset"], state["escalationsLineCount"]) == (2, 3)
    desk.dispatch(limit=2)
    assert categories(hook.requests) == ["one", "two", "three"]


@pytest.mark.parametrize("line", ["5", "null", '"text"', "[]", '{"category":""}', '{"category":false}'])
def test_row_without_a_category_is_passed(desk: Desk, line: str) -> None:
    desk.sink("hook")
    append(desk, f"{line}\n")
    assert desk.dispatch()["failureReasonCodes"] == ["missing_escalation_category"]


def test_route_that_is_switched_off_tells_nobody(desk: Desk) -> None:
    hook = desk.sink("hook")
    desk.write_catalog(routes=[{"category": "one", "sinks": ["hook"], "enabled": False}])
    desk.escalate("one")
    assert desk.dispatch()["skippedCount"] == 1
    assert desk.results == [("skipped", "no_dispatchable_sinks", None)]
    assert hook.requests == []


def test_offset_is_kept_with_each_escalation(desk: Desk) -> None:
    """L27: what stops the pass at the third leaves the first two behind it."""
    hook = desk.sink("hook")
    desk.escalate("one", "two", "three")

    def time_or_stop() -> float:
        if len(hook.requests) == 2 and desk.state["escalationsLineOffset"] == 2:
            raise KeyboardInterrupt
        return desk.now

    with pytest.raises(KeyboardInterrupt):
        desk.dispatch_with(time_or_stop)
    assert desk.state["escalationsLineOffset"] == 2
    desk.dispatch()
    assert categories(hook.requests) == ["one", "two", "three"]


def test_thousands_of_lines_that_concern_nobody_are_quick(desk: Desk) -> None:
    desk.put_sink("off", {"enabled": False, "type": "webhook", "urlEnv": "OFF"})
    desk.escalate(*["one"] * 2000)
    state = desk.dispatch()
    assert (state["skippedCount"], state["escalationsLineOffset"]) == (2000, 2000)
    assert len(desk.rows) == 2000


def test_alert_is_a_step_of_its_trace(desk: Desk) -> None:
    desk.sink("good")
    desk.sink("bad", Answer(500))
    desk.escalate("one")
    desk.dispatch()
    (entry,) = traceindex.find(str(desk.root), TRACE_ID).entries
    assert (entry.kind, entry.status, entry.loop_id) == ("alert", "partial", "alpha")
    assert entry.file == ".superloop/ops-manager/alpha/telemetry/alerts.jsonl"
    assert entry.detail["category"] == "one"
    assert entry.detail["sinks"] == {"good": 200, "bad": 500}
    assert entry.seconds is not None


def test_sink_that_is_named_twice_is_told_once(desk: Desk) -> None:
    hook = desk.sink("hook")
    desk.write_catalog(defaultSinks=["hook", "hook"], routes=[{"category": "two", "sinks": ["hook", "hook"]}])
    desk.escalate("one", "two")
    desk.dispatch()
    assert categories(hook.requests) == ["one", "two"]
    for row in desk.rows:
        assert (row["sinkCount"], len(row["sinks"])) == (1, 1)
        # The resolver's document keeps the list as it is configured.
        assert len(row["route"]["selectedSinks"]) == len(row["route"]["dispatchableSinks"]) == 2


def test_escalation_that_comes_while_a_pass_runs_belongs_to_it(desk: Desk) -> None:
    """Who brought it may have found the dispatcher's lock taken."""
    hook = desk.sink("hook")
    desk.escalate("one")

    def time_and_more() -> float:
        if len(hook.requests) == 1 and Path(desk.paths.escalations).read_bytes().count(b"\n") == 1:
            desk.escalate("two")
        return desk.now

    state = desk.dispatch_with(time_and_more)
    assert categories(hook.requests) == ["one", "two"]
    assert (state["processedCount"], state["escalationsLineOffset"], state["escalationsLineCount"]) == (
        2,
        2,
        2,
    )


def test_severity_that_is_none_is_told_with_those_that_are(desk: Desk) -> None:
    desk.sink("hook")
    desk.escalate("one", severity="loud")
    desk.dispatch()
    assert desk.rows[0]["message"] == (
        "the escalation's severity must be one of info, warning, critical, not 'loud'"
    )
