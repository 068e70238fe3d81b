"""A copy of a sprite beside the sprite: it is critical, and nobody steps in until one of them is gone."""

import signal
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Way
from tests.harness.agents import TOKEN, Agent, StartAgent
from tests.harness.control import Runtime
from tests.harness.live_fleet import ALIVE, UP, Document, Fleet, entry, recent, running_loop
from tests.harness.loops import Repo
from tests.harness.manager import Ran, run
from tests.harness.proxy import Proxy
from tests.harness.sprites import Sprites
from tests.harness.waiting import wait_for

# One that starts within this after another was last heard may be its successor.
SUCCESSION_SECONDS = 2.5


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(tmp_path / "runtime")


def wait_until_no_successor(agent: Agent) -> None:
    """Until an agent that was just started lives long enough to be known as another one's contemporary."""
    started = time.monotonic()
    wait_for(lambda: time.monotonic() - started > SUCCESSION_SECONDS, what="the agent to be older")
    assert agent.process.poll() is None


def control(fleet: Fleet, url: str, *flags: str, loop_id: str = "alpha") -> Ran:
    service = ("--transport", "sprite_service", "--service-base-url", url, "--service-token", TOKEN)
    words = ("control", "--repo", str(fleet.root), "--loop", loop_id, "--intent", "cancel", "--no-confirm")
    return run(*words, "--retry-attempts", "1", *service, *flags)


def clone_told(fleet: Fleet, loop_id: str) -> list[Document]:
    return [row for row in fleet.rows(loop_id, "session_telemetry") if row["reasonCode"] == "sprite_cloned"]


def test_clone_that_takes_the_place_of_its_sprite_freezes_control_until_it_is_gone(
    repo: Repo, start: StartAgent, sprites: Sprites, fleet: Fleet, runtime: Runtime
) -> None:
    running_loop(repo, data=recent(1, 40))
    first = start(*runtime.flags)
    clone = sprites.copy(repo.root, *runtime.flags)
    wait_until_no_successor(clone)
    with Proxy(first.address) as proxy:
        fleet.register(entry("alpha", proxy.url))
        manager = fleet.start()
        before = manager.wait_for(
            "alpha", lambda view: view.agent.state == ALIVE and view.committed_line == 40
        )
        assert before.control_frozen == ""
        proxy.retarget(clone.address)
        proxy.cut()
        told = manager.wait_for("alpha", lambda view: "sprite_cloned" in view.reason_codes)
        assert (told.health_status, told.control_frozen) == ("critical", "sprite_cloned")
        boot_ids = {before.agent.boot_id, told.agent.boot_id}
        assert len(boot_ids) == 2
        wait_for(lambda: fleet.document("alpha", "session").get("controlFrozen"), what="session.json")

        refused = control(fleet, proxy.url)
        assert (refused.code, refused.out) == (1, "")
        assert "[sprite_cloned]" in refused.err
        assert runtime.calls == []
        (row,) = fleet.rows("alpha", "control_invocations")
        assert (row["outcome"]["status"], row["outcome"]["reasonCode"]) == ("refused", "sprite_cloned")
        assert control(fleet, proxy.url, "--despite-clone").code == 0
        assert len(runtime.calls) == 1

        # The clone says goodbye; the sprite is followed again, from where it was left.
        proxy.retarget(first.address)
        clone.signal(signal.SIGTERM)
        after = manager.wait_for(
            "alpha", lambda view: not view.control_frozen and view.connection.state == UP
        )
        assert after.agent.boot_id == before.agent.boot_id
        manager.wait_for("alpha", lambda view: "sprite_cloned" not in view.reason_codes)
        wait_for(lambda: not fleet.document("alpha", "session")["controlFrozen"], what="session.json")
        assert control(fleet, proxy.url).code == 0
        assert len(runtime.calls) == 2
        assert manager.stop() == 0
    cloned, gone = clone_told(fleet, "alpha")
    assert (cloned["active"], set(cloned["bootIds"])) == (True, boot_ids)
    assert gone["active"] is False
    assert fleet.ordering_faults("alpha") == []
    assert fleet.place("alpha") == (40, 40)


def test_one_sprite_at_two_addresses_freezes_every_loop_of_it(
    repo: Repo, start: StartAgent, sprites: Sprites, fleet: Fleet
) -> None:
    running_loop(repo, data=recent(1, 40))
    repo.loop("beta", recent(1, 20))
    first = start()
    clone = sprites.copy(repo.root)
    wait_until_no_successor(clone)
    fleet.register(entry("alpha", first.url), entry("beta", clone.url))
    manager = fleet.start()
    told = {
        loop_id: manager.wait_for(loop_id, lambda view: "sprite_cloned" in view.reason_codes)
        for loop_id in ("alpha", "beta")
    }
    assert {view.control_frozen for view in told.values()} == {"sprite_cloned"}
    assert {view.health_status for view in told.values()} == {"critical"}
    clone.signal(signal.SIGTERM)
    for loop_id in told:
        manager.wait_for(loop_id, lambda view: not view.control_frozen)
    assert manager.stop() == 0
    boot_ids = sorted(view.agent.boot_id for view in told.values())
    for loop_id in told:
        cloned, gone = clone_told(fleet, loop_id)
        assert (cloned["active"], cloned["bootIds"], gone["active"]) == (True, boot_ids, False)


def test_rolling_restart_is_no_clone(way: Way, start: StartAgent) -> None:
    way.loop.append(recent(1, 40))
    successor = start()
    wait_until_no_successor(successor)
    manager = way.watch()
    before = manager.wait_for("alpha", lambda view: view.agent.state == ALIVE)
    way.proxy.retarget(successor.address)
    way.agent.signal(signal.SIGTERM)
    after = manager.wait_for(
        "alpha", lambda view: view.agent.state == ALIVE and view.agent.boot_id != before.agent.boot_id
    )
    assert after.control_frozen == ""
    way.loop.append(recent(41, 50))
    manager.wait_for("alpha", lambda view: view.iteration == "50")
    assert manager.stop() == 0
    assert clone_told(way.fleet, "alpha") == []
    assert way.fleet.records("alpha").count("agent_restarted") == 1
    assert way.fleet.place("alpha") == (50, 50)
