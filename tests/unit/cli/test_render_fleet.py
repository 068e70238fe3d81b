"""A fleet on a terminal: the worst first, one line a loop, at any width."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from manager.fleet.document import Fleet
from manager.render_fleet import FleetTable, age_text, count_text, row_of, shape_of, worst_first
from superloop.ops.v1 import manager_pb2 as pb
from tests.harness.fleet import DOWN, loop_view

AT = 1_771_731_900.0
HOSTILE = "\x1b]0;owned\x07\x1b[2J[red]bold[/red]\r\n\u202e"


def lines(
    *views: pb.LoopView, width: int = 200, note: str = "", height: int | None = None, colour: bool = False
) -> list[str]:
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        force_terminal=colour,
        color_system="standard" if colour else None,
    )
    console.print(FleetTable(Fleet("shop", AT, list(views)), note=note, height=height))
    return file.getvalue().splitlines()


def well(loop_id: str = "alpha", **members: object) -> pb.LoopView:
    return loop_view(loop_id, at=AT - 3, **members)


def broken(loop_id: str) -> pb.LoopView:
    return well(loop_id, connection=pb.ConnectionView(state=DOWN, reason="agent_unreachable"))


def test_row_tells_three_livenesses_and_where_the_loop_is() -> None:
    view = well(
        head_line=25,
        sequence_status="ordering_drift_detected",
        health_status="critical",
        reason_codes=["ordering_drift", "clock_skew"],
        connection=pb.ConnectionView(state=DOWN, reason="agent_unreachable"),
        agent=pb.AgentView(state=pb.AgentView.STATE_SILENT),
        runtime=pb.RuntimeView(state=pb.RuntimeView.STATE_DEAD),
    )
    row = row_of(view, AT)
    assert (row.connection, row.agent, row.runtime) == ("down", "silent", "dead")
    assert (row.state, row.iteration, row.lag, row.heartbeat) == ("running", "3", "15", "3s")
    assert (row.sequence, row.health, row.reason) == ("drift", "critical", "agent_unreachable +2")
    summary, titles, shown = lines(view)
    assert "shop" in summary
    assert titles.split() == [
        "loop", "conn", "agent", "run", "state", "iter", "lag", "beat", "order", "health", "reason", "trace"
    ]  # fmt: skip
    assert shown.split() == [word for cell in row for word in cell.split()]


def test_what_freezes_control_is_the_first_reason_and_none_is_counted_twice() -> None:
    view = well(reason_codes=["clock_skew", "sprite_cloned"], control_frozen="sprite_cloned")
    assert row_of(view, AT).reason == "sprite_cloned +1"


def test_nothing_known_is_shown_as_such() -> None:
    assert set(row_of(pb.LoopView(loop_id="x"), AT)) == {"x", "?", "-", "0"}


def test_worst_come_first_and_equals_by_name() -> None:
    views = [
        well("disabled", connection=pb.ConnectionView(state=pb.ConnectionView.STATE_DISABLED)),
        well("fine b"),
        well("fine a"),
        well("connecting", connection=pb.ConnectionView(state=pb.ConnectionView.STATE_CONNECTING)),
        well("asks", awaits_approval=True),
        well("degraded", health_status="degraded"),
        broken("down"),
        well("dead", runtime=pb.RuntimeView(state=pb.RuntimeView.STATE_DEAD)),
        well("critical", health_status="critical"),
        well("cloned", control_frozen="sprite_cloned"),
    ]
    order = ["cloned", "critical", "dead", "down", "degraded", "asks", "connecting", "fine a", "fine b"]
    assert [view.loop_id for view in worst_first(views)] == [*order, "disabled"]
    assert [view.loop_id for view in worst_first(views, 3)] == order[:3]


def test_two_thousand_loops_show_the_worst_and_how_many_more() -> None:
    views = [well(f"loop {number:04}") for number in range(2000)]
    views[1234] = broken("loop 1234")
    found = lines(*views, height=20)
    assert len(found) == 20
    assert "2,000 loops: 1,999 up, 1 down, 0 degraded, 0 critical" in found[0]
    assert found[2].startswith("loop 1234  down")
    assert found[-1] == "… and 1,983 more"


@pytest.mark.parametrize("note", ["", "stream_broken: trying again"])
def test_rows_that_just_fit_are_all_shown(note: str) -> None:
    views = [well(f"loop {number}") for number in range(5)]
    height = 7 + bool(note)
    assert len(lines(*views, height=height, note=note)) == height
    cut = lines(*views, height=height - 1, note=note)
    assert (len(cut), cut[-1]) == (height - 1, "… and 2 more")
    assert len(lines(*views, note=note)) == height


@pytest.mark.parametrize("width", [1, 5, 20, 30, 40, 60, 80, 100, 120, 200])
def test_no_row_takes_two_lines(width: int) -> None:
    views = [well("a loop with quite a long name " * 3), broken("b"), well("\u5faa\u74b0" * 30)]
    found = lines(*views, width=width, note="x" * 300)
    assert len(found) == 6
    assert all(cell_len(line) <= width for line in found)


def test_narrow_terminal_loses_what_matters_least() -> None:
    row = row_of(well("checkout-service", reason_codes=["runtime_heartbeat_stale"]), AT)
    everything = ["loop", "connection", "agent", "runtime", "state", "iteration", "lag", "heartbeat"]
    everything += ["sequence", "health", "reason", "trace"]
    kept = ["loop", "connection", "agent", "runtime", "health"]
    shapes = {width: shape_of([row], width) for width in (200, 100, 80, 60, 30)}
    assert list(shapes[200].cells) == everything
    assert (shapes[200].cells["trace"], shapes[100].cells["trace"]) == (36, 8)
    assert [shapes[width].marks for width in (200, 100, 80, 60, 30)] == [False, True, True, True, True]
    assert list(shapes[80].cells) == [*everything[:5], "lag", "heartbeat", "health", "reason"]
    assert list(shapes[60].cells) == [*kept, "reason"]
    assert list(shapes[30].cells) == kept


def test_marks_stand_for_words_where_there_is_little_room() -> None:
    view = well("alpha", agent=pb.AgentView(state=pb.AgentView.STATE_UNKNOWN))
    view.runtime.state = pb.RuntimeView.STATE_DEAD
    _, titles, row = lines(view, width=40)
    assert titles.split()[:4] == ["loop", "C", "A", "R"]
    assert row.split()[:4] == ["alpha", "●", "✗" if view.agent.state == 3 else "?", "✗"]


def test_text_of_a_sprite_drives_no_terminal() -> None:
    view = well(HOSTILE, state=HOSTILE, iteration=HOSTILE, health_status=HOSTILE, last_trace_id=HOSTILE)
    view.reason_codes.append(HOSTILE)
    view.sequence_status = HOSTILE
    found = lines(view, width=2000, note=HOSTILE)
    assert len(found) == 4
    text = "".join(found)
    assert text.isprintable()
    assert "[red]" in text


def test_colours_are_those_of_the_other_tables() -> None:
    _, _, row = lines(well(health_status="degraded"), colour=True)
    assert "\x1b[33mdegraded" in row
    assert "\x1b[32mup" in row


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (172_800, "2d")],
)
def test_ages_are_short(seconds: float | None, text: str) -> None:
    assert age_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (9999, "9999"),
        (10_000, "10k"),
        (9_999_999, "9999k"),
        (10_000_000, "10M"),
        (2**64, "18446744073G"),
    ],
)
def test_counts_are_short(count: int, text: str) -> None:
    assert count_text(count) == text
