"""Whether a manager runs a fleet, and where it answers."""

import json
import os
from pathlib import Path

import pytest

from manager.fleet import presence
from spritemesh.errors import OpsError


def announce(repo: Path, listen: str | None = "127.0.0.1:7") -> None:
    presence.announce(str(repo), fleet_id="shop", started_at=1_771_731_900.5, listen=listen, metrics=None)


def manager_file(repo: Path) -> Path:
    return Path(presence.fleet_directory(str(repo))) / "manager.json"


def refusal(repo: Path) -> str:
    with pytest.raises(OpsError) as caught:
        presence.find(str(repo))
    return caught.value.reason


def test_manager_that_holds_its_fleet_is_found(tmp_path: Path) -> None:
    with presence.hold(str(tmp_path)):
        assert refusal(tmp_path) == "fleet_not_running"
        announce(tmp_path)
        assert presence.find(str(tmp_path)) == "127.0.0.1:7"
        assert json.loads(manager_file(tmp_path).read_text()) == {
            "schemaVersion": "v1",
            "fleetId": "shop",
            "pid": os.getpid(),
            "startedAt": "2026-02-22T03:45:00Z",
            "listen": "127.0.0.1:7",
            "metrics": None,
        }
        presence.withdraw(str(tmp_path))
        presence.withdraw(str(tmp_path))
        assert refusal(tmp_path) == "fleet_not_running"


def test_file_of_a_manager_that_was_killed_counts_for_nothing(tmp_path: Path) -> None:
    with presence.hold(str(tmp_path)):
        announce(tmp_path)
    assert manager_file(tmp_path).exists()
    assert refusal(tmp_path) == "fleet_not_running"
    with presence.hold(str(tmp_path)):
        assert not manager_file(tmp_path).exists()


def test_manager_that_listens_nowhere_is_told_from_none(tmp_path: Path) -> None:
    with presence.hold(str(tmp_path)):
        announce(tmp_path, listen=None)
        with pytest.raises(OpsError, match="without --listen") as caught:
            presence.find(str(tmp_path))
    assert caught.value.reason == "fleet_not_running"


def test_second_manager_of_a_fleet_is_refused(tmp_path: Path) -> None:
    with (
        presence.hold(str(tmp_path)),
        pytest.raises(OpsError) as caught,
        presence.hold(str(tmp_path)),
    ):
        pass
    assert caught.value.reason == "fleet_running"
    with presence.hold(str(tmp_path)):
        pass


def test_lock_of_something_inside_is_not_taken_for_the_fleets(tmp_path: Path) -> None:
    with pytest.raises(OpsError) as caught, presence.hold(str(tmp_path)):
        raise OpsError("state_locked", "a loop is locked")
    assert caught.value.reason == "state_locked"


def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "fleet_not_running"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("text", "reason"), [("{", "document_invalid"), ("[]", "document_invalid")])
def test_damaged_file_is_named(tmp_path: Path, text: str, reason: str) -> None:
    with presence.hold(str(tmp_path)):
        manager_file(tmp_path).write_text(text)
        assert refusal(tmp_path) == reason
