"""What a manager tells of its fleet."""

import asyncio
import time

import pytest

from manager.fleet.board import Board
from manager.fleet.metrics import MAX_LOOPS, FleetMetrics
from sprite_agent.admission import Admission
from sprite_agent.counts import Counts
from sprite_agent.http.metrics import MetricsServer
from sprite_agent.limits import Limits
from sprite_agent.security import TokenCheck, parse_address
from sprite_agent.usage import Usage
from superloop.ops.v1 import manager_pb2 as pb
from tests.harness.agents import TOKEN
from tests.harness.http import WITH_TOKEN, ask, get
from tests.harness.metrics import Scrape, scrape_of

NOW = 1_800_000_000.0
COUNTERS = {
    "events": "ops_manager_events_applied_total",
    "replayed": "ops_manager_events_replayed_total",
    "quarantined": "ops_manager_lines_quarantined_total",
    "gaps": "ops_manager_batch_gaps_total",
    "resets": "ops_manager_log_resets_total",
    "disconnects": "ops_manager_disconnects_total",
    "commits": "ops_manager_commits_total",
    "commit_failures": "ops_manager_commit_failures_total",
}


def view(loop_id: str, **members: object) -> pb.LoopView:
    """A loop that is up and healthy, but for `members`."""
    found = pb.LoopView(
        loop_id=loop_id,
        connection=pb.ConnectionView(state=pb.ConnectionView.STATE_UP),
        agent=pb.AgentView(state=pb.AgentView.STATE_ALIVE),
        runtime=pb.RuntimeView(state=pb.RuntimeView.STATE_ALIVE),
        health_status="healthy",
    )
    found.agent.heartbeat_at.FromNanoseconds(int((NOW - 2.5) * 1e9))
    found.MergeFrom(pb.LoopView(**members))  # type: ignore[arg-type]
    return found


@pytest.fixture
def board() -> Board:
    return Board("fleet")


def scrape(board: Board) -> Scrape:
    return scrape_of(FleetMetrics(board, clock=lambda: NOW).snapshot())


def test_an_empty_fleet_tells_all_that_docs_tell(board: Board) -> None:
    found = scrape(board)
    found.check("ops_manager", "Manager")
    assert found.value("ops_manager_loops") == 0
    assert found.value("ops_manager_lag_lines_max") == 0
    assert not found.families["ops_manager_oldest_heartbeat_age_seconds"].samples


def test_a_fleet_tells_all_that_docs_tell(board: Board) -> None:
    board.put(view("alpha", reason_codes=["ingest_stale"], control_frozen="sprite_cloned"))
    scrape(board).check("ops_manager", "Manager")


def test_calls_and_limits_of_the_managers_server_are_told(board: Board) -> None:
    counts = Counts()
    counts.call_ended("grpc", "a.B/C", "token_wrong")
    usage = Usage(Limits(streams=256), streams=lambda: 3, connection_calls=lambda: 2)
    found = scrape_of(FleetMetrics(board, clock=lambda: NOW, counts=counts, usage=usage).snapshot())
    found.check("ops_manager", "Manager")
    assert found.value("ops_manager_calls_total", edge="grpc", method="a.B/C", reason="token_wrong") == 1
    assert found.value("ops_manager_streams") == 3
    assert found.value("ops_manager_connection_calls_max") == 2
    assert found.value("ops_manager_limit", limit="streams") == 256


def test_loops_are_counted_by_each_of_their_states(board: Board) -> None:
    board.put(view("alpha"))
    down = pb.ConnectionView(state=pb.ConnectionView.STATE_DOWN)
    board.put(view("beta", connection=down, health_status="critical", awaits_approval=True))
    board.put(pb.LoopView(loop_id="gamma"))
    found = scrape(board)
    assert found.value("ops_manager_loops") == 3
    assert found.values("ops_manager_loops_by_connection", "state") == {
        "waiting": 1,
        "connecting": 0,
        "up": 1,
        "down": 1,
        "disabled": 0,
    }
    assert found.value("ops_manager_loops_by_agent", state="unknown") == 1
    assert found.value("ops_manager_loops_by_agent", state="alive") == 2
    assert found.value("ops_manager_loops_by_runtime", state="dead") == 0
    assert found.values("ops_manager_loops_by_health", "status") == {
        "critical": 1,
        "degraded": 0,
        "unknown": 1,
        "healthy": 1,
    }
    assert found.value("ops_manager_loops_awaiting_approval") == 1


def test_reasons_are_those_of_the_table_whatever_agents_say(board: Board) -> None:
    board.put(view("alpha", reason_codes=["ingest_stale", "made up", "made up, too"]))
    board.put(view("beta", reason_codes=["ingest_stale"], control_frozen="sprite_cloned"))
    found = scrape(board)
    assert found.values("ops_manager_loops_by_reason", "reason") == {"ingest_stale": 2, "_unknown": 1}
    assert found.values("ops_manager_loops_control_frozen", "reason") == {"sprite_cloned": 1}


def test_lag_and_heartbeats_are_those_of_now(board: Board) -> None:
    board.put(view("alpha", head_line=12, applied_line=10, committed_line=7))
    # What was applied may be newer than what was told of the head.
    board.put(view("beta", head_line=5, applied_line=9, committed_line=9))
    off = view("gamma", connection=pb.ConnectionView(state=pb.ConnectionView.STATE_DISABLED))
    off.agent.heartbeat_at.FromSeconds(int(NOW - 5000))
    board.put(off)
    found = scrape(board)
    assert found.value("ops_manager_lag_lines") == 2
    assert found.value("ops_manager_lag_lines_max") == 2
    assert found.value("ops_manager_uncommitted_lines") == 3
    assert found.value("ops_manager_oldest_heartbeat_age_seconds") == 2.5
    assert found.values("ops_manager_loop_lag_lines", "loop") == {"alpha": 2, "beta": 0, "gamma": 0}
    assert found.value("ops_manager_loop_heartbeat_age_seconds", loop="alpha") == 2.5
    assert found.value("ops_manager_loop_connected", loop="gamma") == 0


@pytest.mark.parametrize("field", COUNTERS)
def test_totals_never_fall(board: Board, field: str) -> None:
    def total() -> float:
        return scrape(board).value(COUNTERS[field])

    assert total() == 0
    board.put(view("alpha", counts=pb.SessionCounts(**{field: 5})))
    board.put(view("beta", counts=pb.SessionCounts(**{field: 2})))
    assert total() == 7
    board.put(view("alpha", counts=pb.SessionCounts(**{field: 6})))
    assert total() == 8
    board.remove("alpha")
    board.remove("alpha")
    assert total() == 8
    board.put(view("alpha", counts=pb.SessionCounts(**{field: 1})))
    assert total() == 9
    board.put(view("beta", counts=pb.SessionCounts()))  # a new session
    assert total() == 9


def test_3000_loops_make_no_more_series_than_500_and_the_worst_are_shown(board: Board) -> None:
    for number in range(MAX_LOOPS):
        board.put(view(f"loop-{number:04}"))
    full = scrape(board)
    for number in range(MAX_LOOPS, 3000):
        health = {1000: "degraded", 2999: "critical"}.get(number, "healthy")
        board.put(view(f"loop-{number:04}", health_status=health))
    started = time.process_time()
    found = scrape(board)
    assert time.process_time() - started < 1
    assert found.series() == full.series() < 4000
    assert full.value("ops_manager_loops_not_shown") == 0
    assert found.value("ops_manager_loops_shown") == MAX_LOOPS
    assert found.value("ops_manager_loops_not_shown") == 3000 - MAX_LOOPS
    shown = found.values("ops_manager_loop_lag_lines", "loop")
    assert list(shown)[:3] == ["loop-2999", "loop-1000", "loop-0000"]
    assert found.value("ops_manager_loop_health", loop="loop-2999", status="critical") == 1
    assert found.value("ops_manager_loop_health", loop="loop-2999", status="healthy") == 0


def test_a_snapshot_stays_as_it_was_while_the_fleet_changes(board: Board) -> None:
    board.put(view("alpha", counts=pb.SessionCounts(events=5)))
    taken = FleetMetrics(board, clock=lambda: NOW).snapshot()
    board.remove("alpha")
    found = scrape_of(taken)
    assert found.value("ops_manager_loops") == 1
    assert found.value("ops_manager_events_applied_total") == 5


async def test_a_fleet_is_scraped_over_http(board: Board) -> None:
    board.put(view("alpha"))
    address = parse_address("127.0.0.1:0", field="--metrics")
    server = MetricsServer(FleetMetrics(board), address, Admission(TokenCheck(TOKEN)))
    place = await server.start()
    answer = await asyncio.to_thread(ask, place, get("/metrics", WITH_TOKEN))
    await server.stop()
    Scrape(answer.body.decode()).check("ops_manager", "Manager")
