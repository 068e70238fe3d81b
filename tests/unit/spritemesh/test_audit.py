"""The audit of control: rows that are there before anybody hears of it, or a refusal."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from spritemesh import audit
from spritemesh.audit import AuditFiles, audit_files, check_writable
from spritemesh.bridge.control import Facts
from spritemesh.bridge.told import told_by_failure, told_by_refusal
from spritemesh.errors import OpsError
from tests.harness.disk import largest_file

AT = 1_700_000_000.5
FACTS = Facts("alpha", "cancel", "t", "op", "", "key", "local", AT, AT + 3)
TOLD = told_by_failure("command")


@pytest.fixture
def paths(tmp_path: Path) -> AuditFiles:
    return audit_files(str(tmp_path / "ops" / "alpha"))


def rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()] if Path(path).exists() else []


def counts(paths: AuditFiles) -> list[int]:
    return [len(rows(path)) for path in paths]


def refusal(paths: AuditFiles) -> OpsError:
    with pytest.raises(OpsError) as caught:
        check_writable(paths)
    assert caught.value.reason == "audit_unavailable"
    return caught.value


def test_trial_makes_directories_and_leaves_nothing_in_them(paths: AuditFiles, tmp_path: Path) -> None:
    check_writable(paths)
    assert [path.name for path in sorted((tmp_path / "ops").rglob("*"))] == ["alpha", "telemetry"]
    audit.record(paths, TOLD, FACTS)
    before = [Path(path).read_bytes() for path in paths]
    check_writable(paths)
    assert [Path(path).read_bytes() for path in paths] == before
    assert counts(paths) == [1, 1, 1]


@pytest.mark.parametrize("number", range(3))
def test_directory_in_place_of_a_file_is_refused(paths: AuditFiles, number: int) -> None:
    os.makedirs(paths[number])
    assert paths[number] in refusal(paths).message


@pytest.mark.parametrize("number", range(3))
def test_link_that_leads_nowhere_is_refused(paths: AuditFiles, number: int) -> None:
    os.makedirs(os.path.dirname(paths[number]), exist_ok=True)
    os.symlink("/nowhere/at/all", paths[number])
    assert paths[number] in refusal(paths).message


@pytest.mark.parametrize("number", [1, 2])
def test_chain_that_cannot_be_written_is_refused(paths: AuditFiles, number: int) -> None:
    os.makedirs(paths.chained[number])
    assert paths.chained[number] in refusal(paths).message


def test_row_that_the_chain_lacks_is_made_good_like_one_of_the_audit(paths: AuditFiles) -> None:
    audit.record(paths, TOLD, FACTS)
    later = FACTS._replace(idempotency_key="later")
    os.rename(paths.chained.chain, f"{paths.chained.chain}.kept")
    os.mkdir(paths.chained.chain)
    with pytest.raises(OpsError, match="later ended: failed_command") as caught:
        audit.record(paths, TOLD, later)
    assert (caught.value.reason, paths.chained.chain in caught.value.message) == ("audit_unavailable", True)
    os.rmdir(paths.chained.chain)
    os.rename(f"{paths.chained.chain}.kept", paths.chained.chain)
    for _ in range(2):
        audit.record(paths, TOLD, later, connected={"edge": "http"}, only_missing=True)
    assert [row.get("connected") for row in rows(paths.chained.chain)] == [None, {"edge": "http"}]
    assert counts(paths) == [2, 2, 2]


def test_file_in_place_of_the_directory_is_refused(paths: AuditFiles, tmp_path: Path) -> None:
    (tmp_path / "ops").write_text("")
    assert refusal(paths).message.endswith("; nothing was run")


def test_full_disk_is_refused(paths: AuditFiles, tmp_path: Path) -> None:
    audit.record(paths, TOLD, FACTS)
    with largest_file(100_000):
        refusal(paths)
    check_writable(paths)
    assert len(list((tmp_path / "ops").rglob("*.tmp"))) == 0


def test_trial_that_another_user_left_is_let_alone(
    paths: AuditFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root, who runs the tests, may open any."""
    check_writable(paths)
    left = [
        tmp_path / "ops" / "alpha" / ".audit.tmp",
        tmp_path / "ops" / "alpha" / "telemetry" / ".audit.tmp",
    ]
    for path in left:
        path.write_text("")
    opened = os.open

    def refuse(path: str, *how: int) -> int:
        if Path(path) in left:
            raise PermissionError(13, "Permission denied", path)
        return opened(path, *how)

    monkeypatch.setattr(os, "open", refuse)
    check_writable(paths)
    assert sorted((tmp_path / "ops").rglob("*.tmp")) == sorted(left)


def test_rows_are_synced(paths: AuditFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        fsync(handle)
        synced.append(os.fstat(handle).st_ino)

    monkeypatch.setattr(os, "fsync", note)
    row = audit.record(paths, TOLD, FACTS)
    written = (paths.intents, paths.control, paths.invocations, paths.chained.head, paths.chained.chain)
    assert synced == [os.stat(path).st_ino for path in written]
    assert rows(paths.intents) == [row]


def test_refusal_is_told_of_by_invocations_alone(paths: AuditFiles) -> None:
    audit.record(paths, told_by_refusal("nothing_pending", ""), FACTS)
    assert counts(paths) == [0, 0, 1]


def test_failure_tells_what_became_of_the_request(paths: AuditFiles) -> None:
    os.makedirs(paths.control)
    with pytest.raises(OpsError) as caught:
        audit.record(paths, TOLD, FACTS)
    assert caught.value.reason == "audit_unavailable"
    assert "the request with key key ended: failed_command" in caught.value.message
    assert "nothing was run" not in caught.value.message
    assert len(rows(paths.intents)) == 1
    os.rmdir(paths.control)
    audit.record(paths, TOLD, FACTS, only_missing=True)
    assert counts(paths) == [1, 1, 1]


def test_rows_of_other_executions_are_no_reason_to_leave_one_out(paths: AuditFiles) -> None:
    # Refused first; then not run, which freed the key; then run, by the same trace.
    audit.record(paths, told_by_refusal("control_in_progress", ""), FACTS)
    audit.record(paths, TOLD, FACTS._replace(started_at=AT - 60, finished_at=AT - 50))
    audit.record(paths, TOLD, FACTS._replace(idempotency_key="other"))
    for _ in range(2):
        audit.record(paths, TOLD, FACTS, only_missing=True)
    assert counts(paths) == [3, 3, 4]


def test_damaged_rows_are_passed_over(paths: AuditFiles) -> None:
    audit.record(paths, TOLD, FACTS)
    with open(paths.intents, "ab") as file:
        file.write(b"\xff{torn\n[]\n7")
    audit.record(paths, TOLD, FACTS, only_missing=True)
    assert [len(rows(path)) for path in paths[1:]] == [1, 1]
    audit.record(paths, TOLD, FACTS._replace(idempotency_key="next"))
    lines = Path(paths.intents).read_bytes().splitlines()
    assert len(lines) == 5
    assert json.loads(lines[-1])["idempotencyKey"] == "next"
