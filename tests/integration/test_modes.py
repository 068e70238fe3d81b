"""What the programs leave behind is their owner's alone, under any umask; the runtime's is as it wants."""

import subprocess
import sys
from pathlib import Path

from spritemesh.control import Confirmation
from tests.harness.agents import TOKEN, StartAgent, environment
from tests.harness.control import Runtime, client_of, refusals_path, request
from tests.harness.http import ask, get, post
from tests.harness.live_fleet import Fleet, entry, recent, running_loop
from tests.harness.loops import Repo
from tests.harness.manager import command
from tests.harness.waiting import wait_for


def openly(words: list[str]) -> list[str]:
    """The same command line, where everybody may read everything unless the program objects."""
    return ["sh", "-c", 'umask 0; exec "$@"', "sh", *words]


def everything(*roots: Path) -> dict[Path, int]:
    """The permissions of all that is below some directories, and of what is no link only."""
    below = (path for root in roots for path in root.rglob("*"))
    return {path: path.lstat().st_mode & 0o777 for path in below if not path.is_symlink()}


def test_nobody_else_may_read_what_agent_and_manager_write(
    tmp_path: Path, repo: Repo, socket_path: Path, start: StartAgent
) -> None:
    runtime = Runtime(tmp_path / "runtime")
    made = runtime.directory / "made"
    runtime.does(f"mkdir -p {made}", f": > {made}/file", "umask")
    loop = running_loop(repo, data=recent(1, 3))
    fleet = Fleet(tmp_path / "manager")
    url = f"unix://{socket_path}"
    fleet.register(entry("alpha", url))
    before = everything(tmp_path)

    agent = start(
        *runtime.flags,
        *("--http", "127.0.0.1:0", "--heartbeat-interval", "0.25"),
        grpc_at=url,
        under=openly,
    )
    wait_for(loop.heartbeat.exists, what="a heartbeat")
    with client_of(agent) as client:
        outcome = client.ask(request(confirmation=Confirmation(timeout_seconds=0)))
    assert outcome.output_tail == "0000"
    address = agent.http_url.removeprefix("http://")
    body = {"loopId": "alpha", "intent": "cancel", "by": "op", "idempotencyKey": "k", "noConfirm": True}
    assert ask(address, post("/ops/control", body)).status == 200
    # What concerns no loop is noted apart.
    ask(address, post("/ops/control", body | {"loopId": "nowhere", "idempotencyKey": "n"}))
    assert refusals_path(repo).exists()
    assert ask(address, get("/ops/snapshot?loopId=alpha")).status == 200

    manager = fleet.start(under=openly)
    manager.wait_for_line("alpha", 3)
    loop.append(recent(4, 4))
    fleet.wait_until_read("alpha", 4)
    assert manager.stop() == 0
    for words in (
        ("reconcile", "--repo", str(repo.root), "--loop", "alpha"),
        ("control", "--repo", str(repo.root), "--loop", "alpha", "--intent", "cancel", "--no-confirm"),
        ("poll-events", "--repo", str(repo.root), "--loop", "alpha"),
    ):
        done = subprocess.run(
            openly(command(*words)),
            env=environment() | {"SUPERLOOP_BIN": str(runtime.path), "TOKEN_OF_SPRITES": TOKEN},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")

    written = {path: mode for path, mode in everything(tmp_path).items() if path not in before}
    # The harness redirected standard errors.
    for path in (tmp_path / "agent-0.txt", fleet.root / "manager.txt"):
        del written[path]
    # The runtime got the umask that its agent was started with.
    assert (written.pop(made), written.pop(made / "file")) == (0o777, 0o666)
    assert len(written) > 40
    assert {path: mode for path, mode in written.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}
    assert socket_path.stat().st_mode & 0o777 == 0o700


def test_the_demo_writes_as_its_user_wants(repo: Repo) -> None:
    words = [sys.executable, "-m", "sprite_agent", "demo-loop", "--repo", str(repo.root), "--loop", "demo"]
    subprocess.run(
        ["sh", "-c", 'umask 027; exec "$@"', "sh", *words, "--iterations", "1", "--pace", "0"],
        env=environment(),
        capture_output=True,
        timeout=30,
        check=True,
    )
    found = everything(repo.root / ".superloop" / "loops" / "demo")
    assert {mode for path, mode in found.items() if path.is_file()} == {0o640}
