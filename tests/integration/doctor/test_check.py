"""`sprite-agent check`: the sprite as it is, and the agent in it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sprite_agent.cli import main
from tests.harness import secrets
from tests.harness.agents import ROOT, TOKEN, StartAgent, environment
from tests.harness.disk import SmallDisk
from tests.harness.loops import Repo, event, events
from tests.harness.peers import peer, unused_address
from tests.integration.doctor.conftest import Doctor

RUNTIME = ("--runtime-command", sys.executable)
HOST_STEPS = {
    "layout",
    "loops",
    "events",
    "permissions",
    "secrets",
    "tls files",
    "signing key",
    "disk",
    "runtime",
    "inotify",
    "open files",
}
QUICK = ("--timeout", "0.5")


def test_sprite_that_is_well_passes_every_step(
    repo: Repo, start: StartAgent, tmp_path: Path, check: Doctor
) -> None:
    repo.loop("alpha", events(1, 30))
    token = secrets.write(tmp_path / "token", TOKEN + "\n")
    token.chmod(0o600)
    agent = start("--http", "127.0.0.1:0")
    words = ("--repo", str(repo.root), "--grpc", agent.address, "--http", agent.ready["http"], "--running")
    found = check(*words, *RUNTIME, "--token-file", str(token))
    assert found.troubles == set()
    assert found.ran.code == 0
    assert set(found.results(within=str(repo.root))) == {*HOST_STEPS, "clock"}
    assert found.step("loops", within=str(repo.root))["detail"] == "1 of 1 can be read, with 30 lines"
    assert found.step("stream", within="grpc://")["result"] == "ok"
    # Over HTTP the loop is that of the files.
    assert found.step("snapshot", within="http://")["detail"].startswith("loop alpha")

    wrong = check(*words, *RUNTIME, "--token", "not-the-token")
    assert wrong.lost == ["token", "token"]
    assert "not-the-token" not in wrong.ran.out + wrong.ran.err

    token.chmod(0o644)
    exposed = check(*words, *RUNTIME, "--token-file", str(token))
    assert exposed.troubles == {("secrets", "file_exposed")}
    assert f"{token} (0644)" in exposed.step("secrets")["detail"]


def test_broken_files_are_told_by_loop_and_line(repo: Repo, check: Doctor) -> None:
    repo.loop("alpha", event(1) + b'{"no":"event"}\n\nnonsense\n' + event(5))
    repo.loop("beta", events(1, 2)).directory.joinpath("approval.json").write_text("{")
    repo.loop("fresh", None)
    found = check("--repo", str(repo.root), "--grpc", "127.0.0.1:0", *RUNTIME)
    assert found.lost == ["loop beta"]
    assert found.step("loop beta")["reasonCode"] == "artifact_invalid"
    assert "approval.json" in found.step("loop beta")["detail"]
    assert found.step("loop fresh")["reasonCode"] == "events_missing"
    assert found.step("events")["reasonCode"] == "missing_event_name"
    assert "no events: 2; the first is line 2 of" in found.step("events")["detail"]
    assert found.ran.err.endswith("[artifact_invalid]\n")


def test_log_that_would_take_too_long_is_left_out(repo: Repo, check: Doctor) -> None:
    repo.loop("alpha", events(1, 3))
    os.truncate(repo.loop("large").log, 1 << 36)  # takes no space
    begun = time.monotonic()
    found = check("--repo", str(repo.root), "--grpc", "127.0.0.1:0", *RUNTIME)
    assert time.monotonic() - begun < 4
    assert found.troubles == {("loops", "deadline_exceeded")}
    assert "1 of 2 can be read, with 3 lines; without the time to read 1" in found.step("loops")["detail"]


@pytest.mark.parametrize("running", [True, False])
def test_absent_agent_fails_only_where_one_is_expected(repo: Repo, check: Doctor, *, running: bool) -> None:
    repo.loop("alpha", events(1, 2))
    with unused_address() as address:
        words = ("--repo", str(repo.root), "--grpc", address, *RUNTIME, *(["--running"] if running else []))
        # Whoever holds the port without listening keeps others from it, too.
        taken = check(*words)
    free = check(*words)
    assert taken.troubles == {("listening", "address_unavailable")}
    assert free.troubles == {("listening", "agent_unreachable")}
    assert free.ran.code == int(running)
    assert "the address is free" in free.step("listening")["detail"]
    assert set(free.results(within="grpc")) == {"exposure", "listening"}


@pytest.mark.parametrize("says", [None, b"nonsense\r\n"])
def test_port_of_somebody_else_is_found_in_time(repo: Repo, says: bytes | None, check: Doctor) -> None:
    begun = time.monotonic()
    with peer(says) as address:
        found = check("--repo", str(repo.root), "--grpc", address, *RUNTIME, *QUICK)
    assert time.monotonic() - begun < 4
    assert found.lost == ["health"]


def test_what_the_host_lacks_is_warned_of(repo: Repo, tmp_path: Path, check: Doctor) -> None:
    program = tmp_path / "runtime"
    program.write_text("#!/bin/sh\n")
    ahead = repo.root / ".superloop" / "state.json"
    ahead.write_text("{}")
    os.utime(ahead, (time.time() + 3600, time.time() + 3600))
    agent_files = repo.root / ".superloop" / "sprite-agent"
    agent_files.mkdir()
    agent_files.joinpath("ledger.db").write_text("")
    agent_files.joinpath("ledger.db").chmod(0o644)
    agent_files.chmod(0o755)
    words = ("--repo", str(repo.root), "--grpc", "127.0.0.1:0")
    found = check(*words, "--runtime-command", str(program))
    assert found.troubles == {
        ("permissions", "file_exposed"),
        ("runtime", "runtime_not_executable"),
        ("clock", "clock_implausible"),
    }
    assert "ledger.db (0644)" in found.step("permissions")["detail"]
    missing = check(*words, "--runtime-command", "no-such-program")
    assert missing.step("runtime")["reasonCode"] == "runtime_not_found"


def test_full_disk_fails(repo: Repo, tmp_path: Path, check: Doctor) -> None:
    with SmallDisk(repo.root, 1024 * 1024) as disk:
        words = ("--repo", str(repo.root), "--grpc", "127.0.0.1:0", *RUNTIME)
        assert ("disk", "disk_low") in check(*words).troubles
        disk.fill()
        full = check(*words)
    assert {("permissions", "state_unwritable"), ("disk", "state_unwritable")} <= full.troubles
    assert "No space left" in full.step("permissions")["detail"]


def test_probe_of_another_process_ends_with_its_code(repo: Repo) -> None:
    words = [sys.executable, "-m", "sprite_agent", "check", "--repo", str(repo.root), "--grpc", "127.0.0.1:0"]
    ran = subprocess.run(
        words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=30, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout)["ok"] is True


def test_flags_are_refused_by_name(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    for words, reason in (
        (("--repo", "/nowhere"), "repo_not_found"),
        (("--repo", str(repo.root), "--timeout", "0"), "invalid_request"),
        (("--repo", str(repo.root), "--grpc", "nonsense"), "invalid_request"),
        (("--repo", str(repo.root), "--loop", "../x"), "invalid_loop_id"),
    ):
        assert main(["check", *words]) == 1
        assert capsys.readouterr().err.endswith(f"[{reason}]\n")
