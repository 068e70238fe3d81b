"""Agents and managers that are killed: nothing is lost, nothing is applied twice, and it is on record."""

import random
import time
from collections import Counter

import pytest

from tests.faults.conftest import Way
from tests.harness.agents import StartAgent
from tests.harness.live_fleet import ALIVE, UP, Fleet, MakeFleet, Manager, entry, recent, running_loop
from tests.harness.loops import Repo
from tests.harness.proxy import Proxy
from tests.harness.waiting import wait_for

KILLS = 50


def test_killed_agent_that_comes_back_is_followed_from_the_next_line(way: Way, start: StartAgent) -> None:
    way.loop.append(recent(1, 40))
    manager = way.watch()
    before = manager.wait_for("alpha", lambda view: view.agent.state == ALIVE)
    way.agent.end()
    lost = manager.wait_for("alpha", lambda view: view.connection.state != UP)
    assert lost.applied_line == 40
    assert lost.connection.reason == "agent_unreachable"
    way.loop.append(recent(41, 60))
    way.proxy.retarget(start().address)
    after = manager.wait_for(
        "alpha", lambda view: view.iteration == "60" and view.agent.boot_id != before.agent.boot_id
    )
    assert after.connection.state == UP
    assert after.committed_line == 60
    assert (after.counts.events, after.counts.replayed, after.counts.resets) == (60, 0, 0)
    assert after.counts.disconnects == 1
    assert (after.sequence_status, after.health_status) == ("ok", "healthy")
    assert manager.stop() == 0
    assert Counter(way.fleet.records("alpha")) == Counter(
        ["session_opened", "connection_lost", "connection_restored", "agent_restarted", "session_closed"]
    )
    assert way.fleet.ordering_faults("alpha") == []
    assert way.fleet.place("alpha") == (60, 60)


def test_agent_killed_again_and_again_while_its_log_grows_loses_and_repeats_no_line(
    way: Way, start: StartAgent
) -> None:
    manager = way.watch()
    agent, last = way.agent, 0
    for _ in range(3):
        way.loop.append(recent(last + 1, last + 3000))
        last += 3000
        manager.wait_for_line("alpha", last - 2999)
        agent.end()
        way.loop.append(recent(last + 1, last + 100))
        last += 100
        agent = start(grpc_at=agent.address)
    way.fleet.wait_until_read("alpha", last)
    after = manager.view("alpha")
    assert (after.counts.events, after.counts.gaps, after.counts.resets) == (last, 0, 0)
    assert manager.stop() == 0
    assert way.fleet.place("alpha") == (last, last)
    assert way.fleet.ordering_faults("alpha") == []
    records = Counter(way.fleet.records("alpha"))
    assert records["connection_lost"] == records["connection_restored"] == 3


def log_with_torn_lines(lines: int) -> tuple[bytes, list[int]]:
    """A log, and the numbers of its lines that are no events."""
    torn = list(range(77, lines, 997))
    members = recent(1, lines).splitlines(keepends=True)
    for number in torn:
        members[number - 1] = members[number - 1][: number % 90 + 1] + b"\n"
    return b"".join(members), torn


def wait_until_connects(manager: Manager, proxy: Proxy, accepted: int) -> None:
    wait_for(lambda: proxy.accepted > accepted or not manager.is_running, seconds=20, what="a connection")
    assert manager.is_running, manager.said()


def kill_managers(fleet: Fleet, proxy: Proxy, dice: random.Random) -> list[int]:
    """Run managers and kill each; how far the log was read durably after each of them.

    The next one is started as soon as its predecessor has connected, and waits for its end: that saves half
    of the time.
    """
    places, accepted = [], proxy.accepted
    manager = fleet.start()
    for _ in range(KILLS):
        wait_until_connects(manager, proxy, accepted)
        successor = fleet.start()
        time.sleep(dice.uniform(0.02, 0.4))  # the moment of the kill is what is under test
        assert manager.is_running, manager.said()
        accepted = proxy.accepted
        manager.kill()
        places.append(fleet.place("alpha").line)
        manager = successor
    manager.kill()
    return places


@pytest.mark.timeout(180)
def test_manager_killed_fifty_times_in_a_replay_ends_where_a_fresh_pass_does(
    repo: Repo, start: StartAgent, fleet: Fleet, make_fleet: MakeFleet
) -> None:
    lines = 100_000
    data, torn = log_with_torn_lines(lines)
    running_loop(repo, data=data)
    agent = start()
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    with Proxy(agent.address) as proxy:
        fleet.register(entry("alpha", proxy.url))
        # So slow that the replay lasts as long as all these managers live: bytes/s.
        proxy.slow(len(data))
        places = kill_managers(fleet, proxy, dice)
        print(f"cursors {places}")
        proxy.slow(0)
        manager = fleet.start()
        fleet.wait_until_read("alpha", lines)
        assert manager.stop() == 0
    assert places == sorted(places)
    assert len({line for line in places if 0 < line < lines}) > KILLS / 5
    assert fleet.place("alpha") == (lines, lines)
    assert fleet.ordering_faults("alpha") == []
    assert [row["line"] for row in fleet.rows("alpha", "quarantine")] == torn
    assert all(row["status"] == "success" for row in fleet.rows("alpha", "reconcile_telemetry"))
    fresh = make_fleet()
    assert fresh.reconcile("alpha", agent.url, "--from-start", "--on-invalid-line", "quarantine").code == 0
    assert fleet.state("alpha") == fresh.state("alpha")
