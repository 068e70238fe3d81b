"""`ops-manager doctor` over a fleet, and over a repository without one."""

import json
from pathlib import Path
from typing import Any

import pytest

from manager.store import loop_files
from spritemesh import files
from tests.harness.agents import TOKEN, StartAgent
from tests.harness.disk import SmallDisk
from tests.harness.fleet import served_fleet
from tests.harness.loops import Repo, events
from tests.harness.manager import run
from tests.harness.peers import unused_address
from tests.integration.doctor.conftest import Doctor


def put_registry(root: Path, *loops: dict[str, Any], **members: Any) -> Path:
    """The registry of a repository."""
    path = root / ".superloop" / "ops-manager" / "fleet" / "registry.v1.json"
    path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    path.parent.parent.chmod(0o700)
    path.write_text(json.dumps({"schemaVersion": "v1", "loops": loops, **members}))
    path.chmod(0o600)
    return path


def remote(loop_id: str, url: str, **service: Any) -> dict[str, Any]:
    return {"loopId": loop_id, "transport": "sprite_service", "service": {"baseUrl": url, **service}}


def test_fleet_is_looked_at_loop_by_loop(repo: Repo, start: StartAgent, doctor: Doctor) -> None:
    repo.loop("alpha", events(1, 3))
    repo.loop("here", events(1, 3))
    agent = start()
    with unused_address() as nobody:
        put_registry(
            repo.root,
            remote("alpha", agent.url, tokenEnv="ALPHA"),
            remote("gone", f"grpc://{nobody}", tokenEnv="ALPHA"),
            remote("tokenless", agent.url, tokenEnv="NOT_SET"),
            {"loopId": "here", "transport": "local"},
            {"loopId": "resting", "enabled": False},
        )
        found = doctor("--repo", str(repo.root), ALPHA=TOKEN)
        one = doctor("--repo", str(repo.root), "--loop", "alpha", ALPHA=TOKEN)
        table = run("doctor", "--repo", str(repo.root), "--output", "table", ALPHA=TOKEN)
    assert found.troubles == {("connect", "agent_unreachable"), ("entry", "missing_service_token_env")}
    assert found.step("connect", within="loop gone")["result"] == "failed"
    assert found.step("entry")["subject"].startswith("loop tokenless")
    assert found.results(within="loop alpha")["stream"] == "ok"
    assert found.results(within="loop here") == dict.fromkeys(("layout", "loops", "events"), "ok")
    assert "enabled: 4" in found.step("registry")["detail"]
    assert found.step("manager")["result"] == "skipped"
    assert found.step("alerts")["result"] == "ok"
    assert not any("resting" in step["subject"] for step in found.steps)

    assert one.lost == []
    assert {step["subject"].partition(",")[0] for step in one.steps} == {
        f"fleet of {repo.root}",
        "loop alpha",
    }
    # Of many subjects, those that are well take one line.
    assert f"loop alpha, {agent.url}: ok" in table.out
    assert "failed" in table.out
    missing = run("doctor", "--repo", str(repo.root), "--loop", "resting")
    assert missing.err.endswith("[loop_not_found]\n")


def test_registry_and_catalog_that_cannot_be_used_are_told(
    repo: Repo, tmp_path: Path, doctor: Doctor
) -> None:
    path = put_registry(repo.root, {"loopId": "here", "transprot": "local"})
    broken = doctor("--repo", str(repo.root))
    assert broken.troubles == {("registry", "registry_invalid")}
    assert "transprot" in broken.step("registry")["detail"]
    path.unlink()
    named = doctor("--repo", str(repo.root), "--registry", str(path))
    assert named.troubles == {("registry", "registry_missing")}

    repo.loop("here", b"")
    put_registry(repo.root, {"loopId": "here"})
    catalog = tmp_path / "sinks.json"
    catalog.write_text("{}")
    found = doctor("--repo", str(repo.root), OPS_MANAGER_ALERT_SINKS_FILE=str(catalog))
    assert found.troubles == {("alerts", "alert_catalog_invalid")}


def test_running_manager_is_asked(repo: Repo, doctor: Doctor) -> None:
    repo.loop("here", b"")
    directory = put_registry(repo.root, {"loopId": "here"}).parent
    note = {"schemaVersion": "v1", "pid": 1}
    with files.locked_directory(str(directory), wait_seconds=0):
        with served_fleet(repo.root) as fleet:
            files.write_atomic(
                str(directory / "manager.json"), json.dumps(note | {"listen": fleet.address}).encode()
            )
            known = doctor("--repo", str(repo.root), OPS_MANAGER_LISTEN_TOKEN=TOKEN)
            unknown = doctor("--repo", str(repo.root))
        gone = doctor("--repo", str(repo.root), "--timeout", "1")
    assert known.step("manager")["detail"] == f"one answers at {fleet.address}: loops: 0"
    assert unknown.step("manager")["result"] == "ok"
    assert "token_missing" in unknown.step("manager")["detail"]
    assert gone.lost == ["manager"]


def test_repository_without_registry_is_read_as_it_is(repo: Repo, doctor: Doctor) -> None:
    repo.loop("alpha", events(1, 3))
    repo.loop("beta", b"nonsense\n")
    found = doctor("--repo", str(repo.root))
    assert found.troubles == {("events", "invalid_json_line")}
    assert run("doctor", "--repo", str(repo.root), "--loop", "gone").err.endswith("[loop_not_found]\n")


def test_files_of_the_manager_are_its_own_and_can_be_written(repo: Repo, doctor: Doctor) -> None:
    repo.loop("alpha", events(1, 3))
    paths = loop_files(str(repo.root), "alpha")
    run("reconcile", "--repo", str(repo.root), "--loop", "alpha")
    assert doctor("--repo", str(repo.root)).troubles == set()
    Path(paths.ops).chmod(0o755)
    Path(paths.state).chmod(0o644)
    found = doctor("--repo", str(repo.root))
    assert found.troubles == {("permissions", "file_exposed")}
    assert f"{paths.state} (0644)" in found.step("permissions")["detail"]


@pytest.mark.parametrize("words", [(), ("--service-base-url", "grpc://127.0.0.1:1")])
def test_full_disk_fails(repo: Repo, words: tuple[str, ...], doctor: Doctor) -> None:
    repo.loop("alpha", events(1, 3))
    run("reconcile", "--repo", str(repo.root), "--loop", "alpha")
    ops = Path(loop_files(str(repo.root), "alpha").ops)
    with SmallDisk(ops.parent, 1024 * 1024) as disk:
        disk.fill()
        found = doctor("--repo", str(repo.root), "--loop", "alpha", *words)
    assert {("permissions", "state_unwritable"), ("disk", "state_unwritable")} <= found.troubles


def test_flags_that_name_nothing_are_refused(repo: Repo) -> None:
    for words, field in (
        ((), "--repo"),
        (("--registry", "x"), "--repo"),
        (("--service-base-url", "nonsense"), "--service-base-url"),
        (("--repo", str(repo.root), "--timeout", "nan"), "--timeout"),
    ):
        refused = run("doctor", *words)
        assert refused.code == 1
        assert refused.err.startswith(f"error: {field}")
        assert refused.err.endswith("[invalid_request]\n")
