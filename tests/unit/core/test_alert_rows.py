"""Rows and counts of a dispatch (contract I.3)."""

import pytest

from manager.core.alert_rows import (
    Answer,
    Counts,
    Head,
    attempted_row,
    read_escalation,
    sink_element,
    skipped_row,
    unrouted_row,
)

HEAD = Head("2024-03-11T09:00:00Z", "alpha", "td")
OK = sink_element("a", "webhook", Answer("", 202, "ok"))
BUSY = sink_element("b", "webhook", Answer("sink_failed", 503, None))
GONE = sink_element("c", "slack", Answer("sink_timeout", None, "no answer within 5 s"))


def test_element_tells_the_coarse_reason_in_the_order_of_v1() -> None:
    assert list(OK) == ["id", "type", "status", "httpStatus", "reasonCode", "message"]
    assert list(BUSY) == ["id", "type", "status", "reasonCode", "httpStatus", "message"]
    unset = sink_element("d", "slack", Answer("missing_secret", None, "not set: X"))
    assert [row["reasonCode"] for row in (OK, BUSY, GONE, unset)] == [
        None,
        "http_error",
        "request_failed",
        "missing_secret",
    ]


@pytest.mark.parametrize(
    ("sinks", "status", "reason"),
    [
        ([OK], "dispatched", None),
        ([OK, BUSY], "partial", "partial_dispatch_failure"),
        ([BUSY, GONE], "failed", "dispatch_failed"),
    ],
)
def test_attempted_row_sums_up_its_sinks(sinks: list[object], status: str, reason: str | None) -> None:
    escalation = read_escalation({"category": "c", "loopId": "beta"}, loop_id="alpha", trace_id="td")
    row = attempted_row(HEAD, escalation, "warning", {}, sinks)
    assert (row["status"], row.get("reasonCode")) == (status, reason)
    assert row["loopId"] == "beta"
    assert row["sinkCount"] == row["dispatchedSinkCount"] + row["failedSinkCount"] == len(sinks)
    assert "retryAttempt" not in row
    assert attempted_row(HEAD, escalation, "warning", {}, sinks, retry=3)["retryAttempt"] == 3


def test_other_rows_are_about_the_loop_of_the_dispatch() -> None:
    escalation = read_escalation({"category": "c", "loopId": "beta"}, loop_id="alpha", trace_id="td")
    assert skipped_row(HEAD, escalation, "severity_below_min", "info", {})["loopId"] == "alpha"
    row = unrouted_row(HEAD, escalation, "m" * 400)
    assert (row["loopId"], len(row["message"])) == ("alpha", 300)


@pytest.mark.parametrize("trace_id", [None, "", False])
def test_escalation_without_a_trace_has_that_of_the_dispatch(trace_id: object) -> None:
    document = {"category": "c", "traceId": trace_id}
    assert read_escalation(document, loop_id="alpha", trace_id="td").trace_id == "td"


@pytest.mark.parametrize("document", [None, 5, "text", [], {"category": None}, {"category": ""}])
def test_row_of_another_kind_has_no_category(document: object) -> None:
    assert read_escalation(document, loop_id="alpha", trace_id="td").category == ""


def test_line_may_count_as_dispatched_and_failed() -> None:
    counts = Counts().attempt([OK, BUSY]).skip().fail("invalid_escalation_json").attempt([OK])
    assert counts == Counts(4, 2, 1, 2, frozenset({"http_error", "invalid_escalation_json"}))
    assert counts.status == "partial"


def test_status_of_a_pass() -> None:
    assert Counts().status == "no_new_escalations"
    assert Counts().skip().status == "success"
    assert Counts().attempt([OK]).status == "success"
    assert Counts().attempt([BUSY]).status == "failed"
