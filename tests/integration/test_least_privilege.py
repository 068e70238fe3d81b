"""Agent and manager do their work without any right, on a disk that is read-only but for one directory."""

from pathlib import Path

import pytest

from tests.harness.agents import StartAgent
from tests.harness.confined import USER, confined, facts, why_not, writable_mounts
from tests.harness.control import Runtime, audit_of, client_of, request
from tests.harness.live_fleet import Fleet, entry, recent, running_loop
from tests.harness.loops import Repo
from tests.harness.waiting import wait_for


def check(pid: int, writable: Path) -> None:
    """Whether a process is confined as deploy/ has it."""
    told = facts(pid)
    assert {told[f"Cap{kind}"] for kind in ("Eff", "Prm", "Inh", "Amb")} == {"0" * 16}
    assert told["NoNewPrivs"] == "1"
    assert writable_mounts(pid) == {str(writable)}


def test_they_need_no_rights_and_no_disk_but_their_own(tmp_path: Path, repo: Repo, start: StartAgent) -> None:
    if reason := why_not(tmp_path):
        pytest.skip(f"nothing can be confined here: {reason}")
    loop = running_loop(repo, data=recent(1, 3))
    runtime = Runtime(repo.root / "runtime")
    runtime.does("id -u", "touch /tmp/nobody-may 2>/dev/null || echo refused")
    agent = start(
        *runtime.flags,
        *("--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--heartbeat-interval", "0.25"),
        under=confined(repo.root),
    )
    check(agent.process.pid, repo.root)
    with client_of(agent) as client:
        outcome = client.ask(request(key="k"))
    assert outcome.output_tail == f"{USER}\nrefused"
    assert audit_of(repo).of("k") == ["executed_unconfirmed"] * 3
    wait_for(loop.heartbeat.exists, what="a heartbeat")

    fleet = Fleet(tmp_path / "manager")
    fleet.register(entry("alpha", agent.url))
    manager = fleet.start("--metrics", "127.0.0.1:0", under=confined(fleet.root))
    manager.wait_for_line("alpha", 3)
    check(manager.process.pid, fleet.root)
    loop.append(recent(4, 4))
    fleet.wait_until_read("alpha", 4)
    assert manager.stop() == 0
    agent.signal()
    assert agent.wait() == 0
