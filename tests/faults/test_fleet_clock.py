"""Clocks that are set while a fleet is watched: an agent's is told of, the manager's own changes nothing."""

from collections import Counter
from pathlib import Path

from superloop.ops.v1 import manager_pb2 as pb
from tests.harness.clocks import Clock
from tests.harness.live_fleet import ALIVE, UP, Condition, Fleet, entry, recent
from tests.harness.sprites import Sprites

HOUR = 3600.0
# How far each agent's clock is set, and whether that is worth a word: 5 s are not.
OFFSETS = {"ahead": HOUR, "behind": -HOUR, "somewhat": 7.0, "a-bit": 2.0}
SKEWED = ("ahead", "behind", "somewhat")
# What an offset may be off by on a busy machine.
TOLERANCE = 1.5
# An agent is heard every 5 s, and asked for its time then.
BEATS_SECONDS = 15.0


def offset(view: pb.LoopView) -> float:
    return view.agent.clock_offset.ToNanoseconds() / 1e9


def tells_skew(seconds: float) -> Condition:
    """Whether a view tells that the agent's clock is so far ahead, and of nothing else."""

    def tells(view: pb.LoopView) -> bool:
        return list(view.reason_codes) == ["clock_skew"] and abs(offset(view) - seconds) < TOLERANCE

    return tells


def heartbeat_age(view: pb.LoopView) -> float:
    return (view.updated_at.ToNanoseconds() - view.agent.heartbeat_at.ToNanoseconds()) / 1e9


def skew_told(fleet: Fleet, loop_id: str) -> list[tuple[bool, float]]:
    """Records of a loop's agent's clock: whether it was off, and by how much."""
    rows = fleet.rows(loop_id, "session_telemetry")
    return [(row["active"], row["offsetSeconds"]) for row in rows if row["reasonCode"] == "clock_skew"]


def test_agents_whose_clocks_are_set_are_told_of_until_they_are_right_again(
    sprites: Sprites, fleet: Fleet, tmp_path: Path
) -> None:
    clocks = {loop_id: Clock(tmp_path / f"clock-{loop_id}") for loop_id in OFFSETS}
    made = {
        loop_id: sprites.make(loop_id, recent(1, 10), under=clock.under) for loop_id, clock in clocks.items()
    }
    fleet.register(*(entry(loop_id, sprite.agent.url) for loop_id, sprite in made.items()))
    manager = fleet.start()
    for loop_id in made:
        manager.wait_for(loop_id, lambda view: view.agent.state == ALIVE and view.health_status == "healthy")
    for loop_id, seconds in OFFSETS.items():
        clocks[loop_id].set(seconds)
    for loop_id in SKEWED:
        manager.wait_for(loop_id, tells_skew(OFFSETS[loop_id]), seconds=BEATS_SECONDS)
    for sprite in made.values():
        sprite.loop.append(recent(11, 20))
    for loop_id in made:
        view = manager.wait_for(loop_id, lambda view: view.committed_line == 20)
        assert list(view.reason_codes) == (["clock_skew"] if loop_id in SKEWED else [])
        assert (view.connection.state, view.agent.state, view.counts.disconnects) == (UP, ALIVE, 0)
        # As our own clock counts.
        assert 0 <= heartbeat_age(view) < BEATS_SECONDS

    for loop_id in SKEWED:
        clocks[loop_id].set(2.0 if loop_id == "somewhat" else 0.0)
    for loop_id in made:
        view = manager.wait_for(loop_id, lambda view: view.health_status == "healthy", seconds=BEATS_SECONDS)
        assert abs(offset(view)) < 2 + TOLERANCE
    assert manager.stop() == 0
    for loop_id in made:
        told = skew_told(fleet, loop_id)
        assert [active for active, _ in told] == ([True, False] if loop_id in SKEWED else [])
        for active, seconds in told:
            assert abs(seconds - (OFFSETS[loop_id] if active else 0)) < 2 + TOLERANCE
        assert fleet.place(loop_id) == (20, 20)
        assert fleet.ordering_faults(loop_id) == []
        # Of a clock that jumped ahead an agent cannot tell whether it was away so long.
        noted = set(fleet.records(loop_id)) - {"clock_skew", "sprite_resumed"}
        assert noted == {"session_opened", "session_closed"}


def test_manager_whose_own_clock_is_set_makes_nobody_stale_or_silent(
    sprites: Sprites, fleet: Fleet, tmp_path: Path
) -> None:
    _, loop, agent = sprites.make("alpha", recent(1, 10))
    clock = Clock(tmp_path / "clock")
    fleet.register(entry("alpha", agent.url))
    manager = fleet.start(under=clock.under)
    fleet.wait_until_read("alpha", 10)
    last = 10
    for seconds in (HOUR, -HOUR, 0.0):
        clock.set(seconds)
        # Before the manager notices, and after: what comes is committed as fast as ever.
        for _ in range(2):
            loop.append(recent(last + 1, last + 5))
            last += 5
            fleet.wait_until_read("alpha", last, seconds=4)
        view = manager.view("alpha")
        assert (view.connection.state, view.agent.state, view.counts.disconnects) == (UP, ALIVE, 0)
        assert 0 <= heartbeat_age(view) < BEATS_SECONDS
    assert manager.stop() == 0
    records = Counter(fleet.records("alpha"))
    # That the clocks differ is true, and heard with the next heartbeat.
    records.pop("clock_skew", None)
    assert records == {"session_opened": 1, "session_closed": 1}
    assert fleet.ordering_faults("alpha") == []
    passes = fleet.rows("alpha", "reconcile_telemetry")
    # The runtime's times look old to a clock that is an hour ahead.
    assert {code for row in passes for code in row["healthReasonCodes"]} <= {"clock_skew", "ingest_stale"}
    assert fleet.place("alpha") == (last, last)
