"""The ledger: what it keeps, what it forgets, and what it says of a file that it cannot use."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sprite_agent.control import ledger as ledgers
from sprite_agent.control.ledger import CONFIRMING, FINISHED, STARTED, Entry, Ledger, request_text
from spritemesh.control import Confirmation, ControlRequest
from spritemesh.errors import OpsError
from superloop.ops.v1 import control_pb2 as pb
from tests.harness.disk import largest_file

NOW = 1_700_000_000.0
REQUEST = ControlRequest(
    "alpha", "reject", "key", "Ana María", "no\nway", "t", Confirmation(False, 1.5, 0.5), "run", "id", True
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent" / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    found = Ledger(str(path))
    yield found
    found.close()


def entry(key: str = "key", *, state: int = STARTED, at: float = NOW, loop_id: str = "alpha") -> Entry:
    begun = pb.ControlOutcome(idempotency_key=key).SerializeToString()
    return Entry(key, "print", loop_id, request_text(REQUEST), "[]", "null", state, begun, False, at, 0.0)


def ended(key: str = "key", *, at: float = NOW) -> pb.ControlOutcome:
    outcome = pb.ControlOutcome(idempotency_key=key, exit_code=0)
    outcome.finished_at.FromSeconds(int(at))
    return outcome


def finish(ledger: Ledger, key: str, *, at: float = NOW) -> None:
    ledger.insert(entry(key, at=at))
    ledger.update(ended(key, at=at), FINISHED)
    ledger.mark_audited(key)


def refusal(ledger: Ledger) -> OpsError:
    """That of a record, which is that of a look, too, when there is something to look at."""
    with pytest.raises(OpsError) as caught:
        ledger.insert(entry())
    return caught.value


def test_row_goes_its_way(ledger: Ledger) -> None:
    assert ledger.find("key") is None
    ledger.insert(entry())
    found = ledger.find("key")
    assert found == entry()
    assert found.read_request() == REQUEST
    assert ledger.unsettled() == [found]
    ledger.update(pb.ControlOutcome(idempotency_key="key", exit_code=0), CONFIRMING)
    found = ledger.find("key")
    assert found is not None
    assert (found.state, found.read_outcome().exit_code, found.finished_at) == (CONFIRMING, 0, 0.0)
    ledger.update(ended(), FINISHED)
    found = ledger.find("key")
    assert found is not None
    assert (found.state, found.finished_at, found.is_settled) == (FINISHED, NOW, False)
    assert ledger.unsettled() == [found]
    ledger.mark_audited("key")
    found = ledger.find("key")
    assert found is not None
    assert found.is_settled
    assert ledger.unsettled() == []
    ledger.release("key")
    assert ledger.find("key") is None


def test_looking_makes_no_file(ledger: Ledger, path: Path) -> None:
    assert ledger.find("key") is None
    assert ledger.unsettled() == []
    assert not path.parent.exists()


def test_only_its_owner_reads_it(ledger: Ledger, path: Path) -> None:
    before = os.umask(0)
    try:
        ledger.insert(entry())
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes["ledger.db"] == 0o600
    assert set(modes.values()) == {0o600}


def test_row_outlives_its_writer_at_once(path: Path) -> None:
    script = (
        "import os, signal, sys; from tests.unit.agent.control.test_ledger import entry, Ledger;"
        " Ledger(sys.argv[1]).insert(entry()); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    found = Ledger(str(path))
    assert found.find("key") == entry()
    found.close()


def test_commits_are_synced(ledger: Ledger, path: Path) -> None:
    ledger.insert(entry())
    assert ledger._connection is not None
    ledger.mark_audited("key")
    assert ledger._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert ledger._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_key_is_taken_once(ledger: Ledger, path: Path) -> None:
    other = Ledger(str(path))
    ledger.insert(entry())
    with pytest.raises(OpsError) as caught:
        other.insert(entry(loop_id="beta"))
    assert caught.value.reason == "idempotency_key_conflict"
    assert other.find("key") == entry()
    other.close()


def test_many_open_a_fresh_ledger_at_once(path: Path) -> None:
    found = [Ledger(str(path)) for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda pair: pair[1].insert(entry(f"key-{pair[0]}")), enumerate(found)))
    assert all(len(ledger.unsettled()) == 16 for ledger in found)
    for ledger in found:
        ledger.close()


def test_old_rows_are_forgotten_but_none_that_is_unsettled(ledger: Ledger) -> None:
    ledger.insert(entry("left", at=NOW))
    finish(ledger, "old", at=NOW)
    finish(ledger, "young", at=NOW + 10)
    later = Ledger(ledger._path)
    later.insert(entry("now", at=NOW + ledgers.RETENTION_SECONDS + 5))
    assert later.find("old") is None
    for key in ("left", "young", "now"):
        assert later.find(key) is not None
    later.close()


def test_only_so_many_rows_are_kept(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "RETENTION_ROWS", 100)
    for number in range(200):
        finish(ledger, f"key-{number}", at=NOW + number)
    assert ledger.find("key-199") is not None
    assert ledger.find("key-100") is not None
    assert ledger.find("key-0") is None
    assert ledger._connection is not None
    assert ledger._connection.execute("SELECT count(*) FROM invocations").fetchone()[0] < 170


def test_file_that_is_no_ledger_is_corrupt(ledger: Ledger, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no ledger\n" * 1000)
    error = refusal(ledger)
    assert error.reason == "ledger_corrupt"
    assert str(path) in error.message
    with pytest.raises(OpsError) as caught:
        ledger.find("key")
    assert caught.value.reason == "ledger_corrupt"
    assert path.read_bytes().startswith(b"this is no ledger\n")


def test_ledger_whose_pages_are_damaged_is_corrupt(ledger: Ledger, path: Path) -> None:
    for number in range(50):
        ledger.insert(entry(f"key-{number}"))
    ledger.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    assert refusal(ledger).reason == "ledger_corrupt"


def test_ledger_without_its_table_is_corrupt(ledger: Ledger, path: Path) -> None:
    ledger.insert(entry())
    ledger.close()
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE invocations")
    connection.close()
    assert refusal(ledger).reason == "ledger_corrupt"


def test_directory_in_its_place_makes_it_unavailable(ledger: Ledger, path: Path) -> None:
    path.mkdir(parents=True)
    error = refusal(ledger)
    assert error.reason == "ledger_unavailable"
    assert str(path) in error.message


def test_file_in_place_of_its_directory_makes_it_unavailable(ledger: Ledger, path: Path) -> None:
    path.parent.write_text("")
    assert refusal(ledger).reason == "ledger_unavailable"


def test_full_disk_makes_it_unavailable_until_there_is_space(ledger: Ledger, path: Path) -> None:
    path.parent.mkdir()
    with largest_file(1000):
        assert refusal(ledger).reason == "ledger_unavailable"
    ledger.insert(entry())
    size = path.with_name("ledger.db-wal").stat().st_size
    with largest_file(size):
        with pytest.raises(OpsError) as caught:
            ledger.insert(entry("other"))
        assert caught.value.reason == "ledger_unavailable"
        assert ledger.find("key") == entry()
    ledger.insert(entry("other"))
    assert len(ledger.unsettled()) == 2


def test_newer_ledger_is_left_alone(ledger: Ledger, path: Path) -> None:
    ledger.insert(entry())
    ledger.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    error = refusal(ledger)
    assert error.reason == "ledger_unavailable"
    assert "newer" in error.message


def test_ledger_that_was_moved_away_is_made_anew(ledger: Ledger, path: Path) -> None:
    ledger.insert(entry())
    for file in list(path.parent.iterdir()):
        file.rename(path.parent.parent / file.name)
    assert ledger.find("key") is None
    ledger.insert(entry())
    assert path.exists()


@pytest.mark.parametrize("column", ["request", "baseline", "outcome"])
def test_damaged_row_is_told_as_such(column: str) -> None:
    damaged = entry()._replace(request="{}", baseline="[1]", outcome=b"\xff\xff")
    with pytest.raises(OpsError) as caught:
        getattr(damaged, f"read_{column}")()
    assert caught.value.reason == "ledger_corrupt"
    assert column in caught.value.message
