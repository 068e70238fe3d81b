"""manager.core.trace: one tree of what the index and the artifacts tell."""

import time
from typing import Any

import pytest

from manager.core.trace import recent_document, trace_document
from manager.core.trace_rows import ARTIFACTS, Row, merge, rows_of
from spritemesh.times import format_utc
from spritemesh.traceindex import Entry

AT = 1_700_000_000.0


def step(kind: str, at: float = 0.0, status: str = "", seconds: float | None = None, **detail: Any) -> Entry:
    return Entry("t", AT + at, "alpha", kind, status, seconds, detail=detail or None)


def tree(*entries: Entry) -> list[Any]:
    """Kind of each step with those below it."""

    def shape(steps: list[Any]) -> list[Any]:
        return [
            [found["kind"], *shape(found["steps"])] if "steps" in found else found["kind"] for found in steps
        ]

    return shape(trace_document("t", "/r", entries)["steps"])


def rows(artifact: str, **members: Any) -> list[Row]:
    return rows_of(artifact, {"traceId": "t", **members}, trace_id="t", loop_id="alpha", file="f")


def utc(at: float) -> str:
    return format_utc(AT + at)


# --- the tree -----------------------------------------------------------------------------------------


def test_way_from_intent_to_alert_is_one_tree() -> None:
    found = tree(
        step("alert", 9.2, category="divergence_detected"),
        step("intent", 0.0, idempotencyKey="k"),
        step("effect", 1.9, idempotencyKey="k"),
        step("invocation", 0.1, idempotencyKey="k"),
        step("runtime", 0.2, idempotencyKey="k"),
        step("confirmation", 1.2, idempotencyKey="k"),
        step("reconcile", 8.0),
        step("escalation", 8.1, category="divergence_detected"),
    )
    assert found == [
        ["intent", ["invocation", "runtime", ["confirmation", "effect"]]],
        ["reconcile", ["escalation", "alert"]],
    ]


def test_step_hangs_from_the_nearest_kind_that_there_is() -> None:
    assert tree(step("intent"), step("runtime", 1), step("effect", 2)) == [["intent", ["runtime", "effect"]]]
    assert tree(step("reconcile"), step("alert", 1)) == [["reconcile", "alert"]]
    assert tree(step("alert"), step("runtime", 1)) == ["alert", "runtime"]


def test_steps_of_two_control_requests_do_not_mix() -> None:
    found = tree(
        step("intent", 0, idempotencyKey="a"),
        step("intent", 1, idempotencyKey="b"),
        step("runtime", 2, idempotencyKey="a"),
        step("runtime", 3, idempotencyKey="c"),
    )
    assert found == [["intent", "runtime"], "intent", "runtime"]


def test_replay_has_no_steps_of_its_own() -> None:
    found = tree(
        step("intent", 0, idempotencyKey="k"),
        step("invocation", 1, idempotencyKey="k"),
        step("invocation", 1, idempotencyKey="k", replayed=True),
        step("runtime", 2, idempotencyKey="k"),
    )
    assert found == [["intent", ["invocation", "runtime"], "invocation"]]


def test_escalations_hang_from_the_pass_before_them_and_alerts_from_their_category() -> None:
    found = tree(
        step("reconcile", 0),
        step("escalation", 0.1, category="a"),
        step("escalation", 0.1, category="b"),
        step("alert", 0.5, category="b"),
        step("reconcile", 10),
        step("escalation", 10.1, category="a"),
        step("alert", 11, category="a"),
    )
    assert found == [
        ["reconcile", "escalation", ["escalation", "alert"]],
        ["reconcile", ["escalation", "alert"]],
    ]


def test_loops_are_kept_apart() -> None:
    other = step("escalation", 1)._replace(loop_id="beta")
    document = trace_document("t", "/r", [step("reconcile"), other])
    assert document["loops"] == ["alpha", "beta"]
    assert [found["kind"] for found in document["steps"]] == ["reconcile", "escalation"]


def test_parent_whose_time_was_cut_may_seem_to_begin_later() -> None:
    assert tree(step("escalation", 0), step("reconcile", 0.9)) == [["reconcile", "escalation"]]
    assert tree(step("escalation", 0), step("reconcile", 9)) == ["escalation", "reconcile"]


def test_step_is_not_told_to_begin_before_its_parent() -> None:
    entries = [step("reconcile", 0.5), step("escalation", 0), step("alert", 0)]
    document = trace_document("t", "/r", entries)
    assert document["startedAt"] == "2023-11-14T22:13:20.500Z"
    (reconcile,) = document["steps"]
    (escalation,) = reconcile["steps"]
    assert [found["offsetSeconds"] for found in (reconcile, escalation, *escalation["steps"])] == [0, 0, 0]


def test_document_tells_times_offsets_and_durations() -> None:
    entries = [step("reconcile", 1.25, "success", 0.5)._replace(file="f"), step("event", 0.0004, name="n")]
    document = trace_document("t", "/r", entries, skipped=2, left_out=3)
    assert document == {
        "schemaVersion": "v1",
        "traceId": "t",
        "repoPath": "/r",
        "startedAt": "2023-11-14T22:13:20.000Z",
        "endedAt": "2023-11-14T22:13:21.750Z",
        "durationSeconds": 1.75,
        "loops": ["alpha"],
        "stepCount": 2,
        "steps": [
            {
                "kind": "event",
                "loopId": "alpha",
                "at": "2023-11-14T22:13:20.000Z",
                "offsetSeconds": 0.0,
                "detail": {"name": "n"},
            },
            {
                "kind": "reconcile",
                "loopId": "alpha",
                "at": "2023-11-14T22:13:21.250Z",
                "offsetSeconds": 1.25,
                "durationSeconds": 0.5,
                "status": "success",
                "file": "f",
            },
        ],
        "skippedLines": 2,
        "leftOutSteps": 3,
    }


def test_trace_of_thousands_of_steps_is_put_together_quickly() -> None:
    entries = [
        step(kind, number, category="c") for number in range(5000) for kind in ("reconcile", "escalation")
    ]
    started = time.perf_counter()
    told = merge(entries, [Row(entry) for entry in entries])
    assert trace_document("t", "/r", told)["stepCount"] == 10_000
    assert time.perf_counter() - started < 3


# --- rows of artifacts --------------------------------------------------------------------------------

INVOCATION = {
    "startedAt": utc(0),
    "timestamp": utc(3),
    "loopId": "alpha",
    "intent": "approve",
    "transport": "local",
    "idempotencyKey": "k",
    "execution": {"status": "succeeded", "exitCode": 0, "replayed": False},
    "confirmation": {
        "attempted": True,
        "status": "confirmed",
        "outcome": {"reason": "completion_observed", "attempts": 2, "observedAt": utc(2)},
    },
    "outcome": {"status": "confirmed", "durationSeconds": 3},
}


def test_invocation_row_tells_of_call_command_and_confirmation() -> None:
    found = [
        (row.entry.kind, row.entry.status, row.entry.at - AT)
        for row in rows("control_invocations", **INVOCATION)
    ]
    assert found == [
        ("invocation", "confirmed", 0),
        ("runtime", "succeeded", 0),
        ("confirmation", "confirmed", 2),
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"transport": "sprite_service"},
        {"execution": {"status": "refused"}},
        {"execution": {"status": "succeeded", "replayed": True}},
    ],
)
def test_call_that_ran_nothing_here_tells_of_no_command(other: dict[str, Any]) -> None:
    assert "runtime" not in [row.entry.kind for row in rows("control_invocations", **{**INVOCATION, **other})]


def test_control_of_v1_tools_is_one_tree_from_artifacts_alone() -> None:
    control = {"timestamp": utc(3), "startedAt": utc(0), "status": "confirmed", "idempotencyKey": "k"}
    entries: list[Entry] = []
    for artifact, row in (
        ("control_telemetry", control),
        ("intents", {"timestamp": utc(3), "status": "confirmed", "idempotencyKey": "k"}),
        ("control_invocations", INVOCATION),
    ):
        entries = merge(entries, rows(artifact, **row))
    assert tree(*entries) == [["intent", ["invocation", "runtime", "confirmation"]]]


def test_step_of_the_index_is_not_told_again_and_gains_what_it_lacks() -> None:
    known = [
        step("intent", 0.2, idempotencyKey="k"),
        step("invocation", 0.3, "confirmed", 2.6, idempotencyKey="k"),
        step("runtime", 0.7, idempotencyKey="k"),
        step("confirmation", 2.9, idempotencyKey="k"),
    ]
    merged = merge(known, rows("control_invocations", **INVOCATION))
    assert [entry.kind for entry in merged] == [entry.kind for entry in known]
    assert merged[1].detail == {
        "idempotencyKey": "k",
        "intent": "approve",
        "transport": "local",
    }
    assert (merged[2].at, merged[2].status, merged[2].detail["exitCode"]) == (AT + 0.7, "succeeded", 0)


def test_repeated_request_is_one_intent_and_one_more_invocation() -> None:
    control = {"startedAt": utc(0), "timestamp": utc(3), "status": "confirmed", "idempotencyKey": "k"}
    again = {**control, "startedAt": utc(60), "timestamp": utc(60)}
    told_again = {
        **INVOCATION,
        "startedAt": utc(60),
        "execution": {"status": "succeeded", "replayed": True},
        "outcome": {"status": "confirmed", "durationSeconds": 0},
    }
    calls = rows("control_invocations", **INVOCATION) + rows("control_invocations", **told_again)
    entries = merge(
        merge([], rows("control_telemetry", **control) + rows("control_telemetry", **again)), calls
    )
    assert tree(*entries) == [["intent", ["invocation", "runtime", "confirmation"], "invocation"]]


def test_manager_and_agent_that_share_a_repository_tell_of_one_intent() -> None:
    entries = merge([], [Row(step("intent", at, "confirmed", 1, idempotencyKey="k")) for at in (0, 0.2)])
    assert [entry.at for entry in entries] == [AT]
    by_service = {**INVOCATION, "transport": "sprite_service"}
    calls = [row for call in (INVOCATION, by_service) for row in rows("control_invocations", **call)]
    told = [entry.kind for entry in merge(entries, calls)]
    assert sorted(told) == ["confirmation", "intent", "invocation", "invocation", "runtime"]


def test_two_equal_rows_are_two_steps_and_one_entry_answers_for_one() -> None:
    escalation = {"timestamp": utc(0), "category": "divergence_detected"}
    twice = rows("escalations", **escalation) * 2
    assert len(merge([], twice)) == 2
    assert len(merge([step("escalation", 0.4, category="divergence_detected")], twice)) == 2
    assert len(merge([step("escalation", 0.4, category="health_critical")], twice)) == 3


def test_row_that_tells_the_end_of_a_long_step_is_the_same_step() -> None:
    known = [step("alert", 0, "dispatched", 30.0, category="c")]
    row = {"timestamp": utc(30), "escalationCategory": "c", "status": "dispatched", "sinkCount": 2}
    (merged,) = merge(known, rows("alert_telemetry", **row))
    assert (merged.at, merged.detail) == (AT, {"category": "c", "sinkCount": 2})
    assert len(merge(known, rows("alert_telemetry", **{**row, "timestamp": utc(90)}))) == 2


def test_alert_is_found_by_the_trace_of_its_escalation() -> None:
    row = {
        "traceId": "other",
        "escalationTraceId": "t",
        "timestamp": utc(1),
        "escalationCategory": "c",
        "status": "x",
    }
    (found,) = rows("alert_telemetry", **row)
    assert (found.entry.kind, found.entry.detail) == ("alert", {"category": "c"})


def test_event_counts_when_it_or_its_payload_carries_the_id() -> None:
    for place in ({"trace_id": "t"}, {"data": {"traceId": "t"}}, {"payload": {"any": "t"}}):
        (found,) = rows("events", event="loop_stop", timestamp=utc(1), **{"traceId": None, **place})
        assert (found.entry.kind, found.entry.detail) == ("event", {"name": "loop_stop"})
    assert rows("events", event="e", timestamp=utc(1), traceId=None, message="about t") == []


@pytest.mark.parametrize("artifact", ARTIFACTS)
@pytest.mark.parametrize("row", [None, 5, [], {}, {"traceId": "other"}, {"traceId": "t"}, {"traceId": ["t"]}])
def test_row_of_another_kind_tells_nothing(artifact: str, row: Any) -> None:
    assert rows_of(artifact, row, trace_id="t", loop_id="alpha", file="f") == []


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_row_with_members_of_another_kind_does_no_harm(artifact: str) -> None:
    names = ("startedAt", "execution", "confirmation", "outcome", "status", "category")
    odd: Any = {name: [1] for name in names}
    found = rows(artifact, timestamp=utc(1), event="e", durationSeconds="x", idempotencyKey={"a": 1}, **odd)
    entries = merge([row.entry for row in found], found)
    if entries:
        trace_document("t", "/r", entries)


# --- the list -----------------------------------------------------------------------------------------


def test_recent_traces_come_latest_first_with_what_they_were_about() -> None:
    entries = [
        step("reconcile", 1, "failed"),
        step("escalation", 1.1, category="c"),
        step("intent", 5, "confirmed")._replace(trace_id="u", loop_id="beta"),
        step("reconcile", 3, "success"),
    ]
    document = recent_document("/r", entries, 5, skipped=1)
    assert document["skippedLines"] == 1
    assert [
        (found["traceId"], found["loops"], found["kinds"], found["status"]) for found in document["traces"]
    ] == [
        ("u", ["beta"], ["intent"], "confirmed"),
        ("t", ["alpha"], ["reconcile", "escalation"], "failed"),
    ]
    assert len(recent_document("/r", entries, 1)["traces"]) == 1
