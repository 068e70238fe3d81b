"""The fleet as a document."""

import json

from manager.fleet.document import Fleet, fleet_document, heartbeat_age, lag_lines, summarize
from spritemesh import jsontext
from superloop.ops.v1 import manager_pb2 as pb
from tests.harness.fleet import DOWN, UP, loop_view

AT = 1_771_731_900.75


def test_document_has_every_member_of_a_view_in_camel_case() -> None:
    view = loop_view("alpha", at=AT - 7.5, head_line=25, reason_codes=["clock_skew"], control_frozen="x")
    view.connection.since.FromSeconds(1_771_731_900)
    view.agent.clock_offset.FromMilliseconds(-2500)
    view.counts.gaps = 2
    found = json.loads(jsontext.encode(fleet_document(Fleet("shop", AT, [view]))))
    assert list(found) == ["schemaVersion", "fleetId", "generatedAt", "summary", "loops"]
    assert (found["schemaVersion"], found["fleetId"]) == ("v1", "shop")
    assert found["generatedAt"] == "2026-02-22T03:45:00Z"
    (loop,) = found["loops"]
    assert loop["connection"] == {
        "state": "up",
        "reason": None,
        "since": "2026-02-22T03:45:00Z",
        "failures": 0,
        "retryAt": None,
        "target": "127.0.0.1:50551",
    }
    assert loop["agent"]["state"] == "alive"
    assert loop["agent"]["heartbeatAt"] == "2026-02-22T03:44:53Z"
    assert loop["agent"]["heartbeatAgeSeconds"] == 7
    assert loop["agent"]["clockOffsetSeconds"] == -2.5
    assert loop["runtime"] == {"state": "alive", "pid": 7, "stage": None, "aliveAt": None}
    assert (loop["appliedLine"], loop["headLine"], loop["lagLines"]) == (10, 25, 15)
    assert (loop["reasonCodes"], loop["controlFrozen"]) == (["clock_skew"], "x")
    assert loop["counts"]["gaps"] == 2
    known = {_camel(field.name) for field in pb.LoopView.DESCRIPTOR.fields}
    assert set(loop) == known | {"lagLines"}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def test_what_is_not_known_is_null() -> None:
    found = fleet_document(Fleet("", AT, [pb.LoopView(loop_id="new")]))
    assert found["fleetId"] is None
    loops = found["loops"]
    assert isinstance(loops, list)
    (loop,) = loops
    assert isinstance(loop, dict)
    for name in ("spriteId", "state", "iteration", "healthStatus", "lastTraceId", "updatedAt"):
        assert loop[name] is None
    assert loop["agent"] == {
        "state": "unspecified",
        "bootId": None,
        "version": None,
        "heartbeatAt": None,
        "heartbeatAgeSeconds": None,
        "clockOffsetSeconds": None,
        "eventLoopLagSeconds": None,
        "rssBytes": None,
    }


def test_summary_counts_each_kind() -> None:
    views = [
        loop_view("a"),
        loop_view("b", health_status="degraded", awaits_approval=True),
        loop_view(
            "c", connection=pb.ConnectionView(state=DOWN), health_status="critical", control_frozen="x"
        ),
        loop_view(
            "d", connection=pb.ConnectionView(state=pb.ConnectionView.STATE_DISABLED), health_status=""
        ),
    ]
    assert [view.connection.state for view in views[:2]] == [UP, UP]
    counts = summarize(views)._asdict()
    assert {name: count for name, count in counts.items() if count} == {
        "loops": 4,
        "up": 2,
        "down": 1,
        "disabled": 1,
        "healthy": 1,
        "degraded": 1,
        "critical": 1,
        "awaiting_approval": 1,
        "frozen": 1,
    }


def test_state_of_a_newer_manager_is_its_number() -> None:
    view = pb.LoopView.FromString(pb.LoopView(loop_id="a").SerializeToString() + b"\x22\x02\x08\x63")
    loops = fleet_document(Fleet("f", AT, [view]))["loops"]
    assert isinstance(loops, list)
    assert isinstance(loops[0], dict)
    connection = loops[0]["connection"]
    assert isinstance(connection, dict)
    assert connection["state"] == "99"


def test_neither_lag_nor_age_is_ever_negative() -> None:
    view = loop_view("a", at=AT + 5, applied_line=10, head_line=3)
    assert lag_lines(view) == 0
    assert heartbeat_age(view, AT) == 0
