"""The manager's directory of a loop is removed under a session that owns it."""

import shutil
from pathlib import Path

import pytest

from spritemesh import files
from spritemesh.errors import OpsError
from tests.harness.live_fleet import Fleet, entry, recent
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
