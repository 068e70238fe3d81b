"""Directories that are not there: the manager's own of a loop, or the loop itself."""

import shutil
from pathlib import Path

import pytest

from spritemesh import files
from spritemesh.errors import OpsError
from superloop.ops.v1 import manager_pb2 as pb
from tests.harness.live_fleet import DOWN, UP, Fleet, entry, recent
from tests.harness.sprites import Sprites
from tests.harness.waiting import wait_for


def hold(directory: Path) -> None:
    """Take the lock that the session should have, and give it back."""
    with files.locked_directory(str(directory), wait_seconds=0):
        return


def test_removed_directory_is_owned_anew_and_filled_from_the_log(sprites: Sprites, fleet: Fleet) -> None:
    sprite = sprites.make("alpha", recent(1, 5))
    fleet.register(entry("alpha", sprite.agent.url))
    manager = fleet.start()
    fleet.wait_until_read("alpha", 5)
    shutil.rmtree(fleet.path("alpha", "ops"))
    wait_for(lambda: fleet.document("alpha", "health"), seconds=15, what="a health document")
    sprite.loop.append(recent(6, 8))
    fleet.wait_until_read("alpha", 8)
    with pytest.raises(OpsError, match="another process holds"):
        hold(fleet.path("alpha", "ops"))
    assert fleet.ordering_faults("alpha") == []
    assert manager.stop() == 0
    assert fleet.records("alpha")[-1] == "session_closed"


def test_loop_that_is_not_there_yet_is_down_though_its_agent_is_well(sprites: Sprites, fleet: Fleet) -> None:
    sprite = sprites.make("alpha", recent(1, 5))
    fleet.register(entry("alpha", sprite.agent.url), entry("beta", sprite.agent.url))
    manager = fleet.start()
    down = manager.wait_for("beta", lambda view: view.connection.failures >= 3)
    assert (down.connection.state, down.connection.reason) == (DOWN, "loop_not_found")
    assert down.agent.state == pb.AgentView.STATE_ALIVE
    loop = sprite.repo.loop("beta", recent(1, 3))
    manager.wait_for("beta", lambda view: view.connection.state == UP and view.applied_line == 3)
    loop.append(recent(4, 4))
    fleet.wait_until_read("beta", 4)
    assert manager.view("alpha").counts.disconnects == 0
    assert "agent_silent" not in fleet.records("beta")
    assert manager.stop() == 0
