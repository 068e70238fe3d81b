"""Commands that show the fleet of a running manager."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from manager.fleet import presence
from manager.fleet.registry import registry_path
from spritemesh.names import LISTEN_TOKEN_VARIABLE
from superloop.ops.v1 import manager_pb2 as pb
from tests.harness import secrets
from tests.harness.agents import ROOT, TOKEN, environment
from tests.harness.fleet import DOWN, ServedFleet, loop_view, served_fleet
from tests.harness.loops import Repo
from tests.harness.manager import Ran, command
from tests.harness.terminal import OnTerminal
from tests.harness.waiting import wait_for
from tests.integration.test_buf_curl import BUF, documents

MANAGER = "superloop.ops.v1.ManagerService"
Start = Callable[..., OnTerminal]


@pytest.fixture
def fleet(repo: Repo) -> Iterator[ServedFleet]:
    """A manager that runs the repository's fleet of two loops."""
    with presence.hold(str(repo.root)), served_fleet(repo.root) as found:
        found.put(
            loop_view("alpha"),
            loop_view("beta", connection=pb.ConnectionView(state=DOWN, reason="agent_unreachable")),
        )
        announce(repo, found)
        yield found


@pytest.fixture
def on_terminal() -> Iterator[Start]:
    """Starts commands, and ends them with the test."""
    started: list[OnTerminal] = []

    def start(*words: str, variables: dict[str, str] | None = None, **settings: Any) -> OnTerminal:
        variables = {LISTEN_TOKEN_VARIABLE: TOKEN} | (variables or {})
        found = OnTerminal(command(*words), variables, **settings)
        started.append(found)
        return found

    yield start
    for found in started:
        found.close()


def announce(repo: Repo, fleet: ServedFleet) -> None:
    presence.announce(
        str(repo.root), fleet_id="test fleet", started_at=time.time(), listen=fleet.address, metrics=None
    )


def run(*words: str, token: str = TOKEN, **variables: str) -> Ran:
    """A command as a process: the server of this one has an event loop that gRPC must not share."""
    done = subprocess.run(
        command(*words),
        capture_output=True,
        cwd=ROOT,
        env=environment() | ({LISTEN_TOKEN_VARIABLE: token} if token else {}) | variables,
        timeout=30,
        check=False,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_fleet_status_is_one_document(fleet: ServedFleet, repo: Repo) -> None:
    found = run("fleet", "status", "--repo", str(repo.root))
    assert (found.code, found.err) == (0, "")
    (document,) = found.documents
    assert document["fleetId"] == "test fleet"
    assert (document["summary"]["loops"], document["summary"]["up"], document["summary"]["down"]) == (2, 1, 1)
    assert [loop["loopId"] for loop in document["loops"]] == ["alpha", "beta"]
    assert document["loops"][1]["connection"]["reason"] == "agent_unreachable"
    assert document["loops"][0]["agent"]["heartbeatAgeSeconds"] < 60


def test_fleet_status_comes_in_the_usual_forms(fleet: ServedFleet, repo: Repo, tmp_path: Path) -> None:
    token = secrets.write(tmp_path / "token", f"{TOKEN}\n")
    words = ("fleet", "status", "--manager", fleet.address, "--token-file", str(token))
    pretty = run(*words, "--pretty", token="").out
    assert pretty.startswith('{\n  "schemaVersion": "v1"')
    table = run(*words, "--output", "table", token="", COLUMNS="160").out.splitlines()
    assert "2 loops: 1 up, 1 down" in table[0]
    assert [line.split()[:2] for line in table[1:]] == [["loop", "conn"], ["beta", "down"], ["alpha", "up"]]


def test_top_prints_one_table_where_there_is_no_terminal(fleet: ServedFleet, repo: Repo) -> None:
    found = run("top", "--repo", str(repo.root), COLUMNS="160")
    assert (found.code, found.err) == (0, "")
    assert "\x1b" not in found.out
    assert found.out.splitlines()[2].startswith("beta   down")
    assert len(run("top", "--repo", str(repo.root), "--output", "json").documents[0]["loops"]) == 2


@pytest.mark.parametrize("words", [("fleet", "status"), ("top",), ("top", "--once")])
def test_missing_manager_is_an_error(repo: Repo, words: tuple[str, ...]) -> None:
    for where in (("--repo", str(repo.root)), ("--manager", "127.0.0.1:1")):
        found = run(*words, *where)
        assert (found.code, found.out) == (1, "")
        assert found.err.endswith("[fleet_not_running]\n")
        assert found.err.count("\n") == 1


@pytest.mark.parametrize(("token", "reason"), [("", "token_missing"), ("wrong", "token_wrong")])
def test_stranger_sees_nothing(fleet: ServedFleet, repo: Repo, token: str, reason: str) -> None:
    found = run("fleet", "status", "--repo", str(repo.root), token=token)
    assert (found.code, found.out) == (1, "")
    assert found.err.endswith(f"[{reason}]\n")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("fleet",), "status"),
        (("fleet", "list", "--manager", "127.0.0.1:1"), "status"),
        (("fleet", "status"), "--repo"),
        (("fleet", "status", "--manager", "nowhere"), "--manager"),
        (("top", "--manager", "127.0.0.1:1", "--interval", "0"), "--interval"),
        (("top", "--manager", "127.0.0.1:1", "--interval", "nan"), "--interval"),
        (("top", "--manager", "127.0.0.1:1", "--token-file", "/nonexistent"), "--token-file"),
    ],
)
def test_wrong_command_line_is_refused(words: tuple[str, ...], named: str) -> None:
    found = run(*words)
    assert (found.code, found.out) == (1, "")
    assert named in found.err
    assert found.err.endswith("[invalid_request]\n")


def test_top_on_a_terminal_follows_changes_until_q(
    fleet: ServedFleet, repo: Repo, on_terminal: Start
) -> None:
    top = on_terminal("top", "--repo", str(repo.root), "--interval", "0.1")
    top.wait_for("alpha")
    assert top.is_drawing
    fleet.put(loop_view("gamma", state="awaiting_approval"))
    top.wait_for("gamma")
    fleet.put(*(loop_view(f"loop {number:04}") for number in range(1000)))
    top.wait_for("… and 982 more")
    top.type("q")
    assert top.wait() == 0
    wait_for(lambda: not top.is_drawing)
    assert top.modes_now == top.modes
    assert "Traceback" not in top.drawn


@pytest.mark.parametrize("number", [None, signal.SIGTERM])
def test_top_ends_well_by_a_signal(
    fleet: ServedFleet, repo: Repo, on_terminal: Start, number: int | None
) -> None:
    top = on_terminal("top", "--repo", str(repo.root), "--interval", "0.1")
    top.wait_for("alpha")
    if number is None:
        top.type("\x03")
    else:
        top.process.send_signal(number)
    assert top.wait() == 0
    wait_for(lambda: not top.is_drawing)
    assert top.modes_now == top.modes


def test_top_finds_a_manager_that_was_restarted(repo: Repo, on_terminal: Start) -> None:
    with presence.hold(str(repo.root)):
        with served_fleet(repo.root) as first:
            first.put(loop_view("alpha"), loop_view("leaves"))
            announce(repo, first)
            top = on_terminal("top", "--repo", str(repo.root), "--interval", "0.1")
            top.wait_for("leaves")
        top.wait_for("trying again")
        assert top.is_drawing
        with served_fleet(repo.root) as second:
            second.put(loop_view("alpha"), loop_view("comes"))
            announce(repo, second)
            top.wait_for("comes")
            top.wait_for("2 loops")
            top.type("q")
            assert top.wait() == 0


def test_top_once_on_a_terminal_shows_as_many_rows_as_fit(
    fleet: ServedFleet, repo: Repo, on_terminal: Start
) -> None:
    fleet.put(*(loop_view(f"loop {number:04}") for number in range(2000)))
    top = on_terminal("top", "--repo", str(repo.root), "--once", lines=12)
    assert top.wait() == 0
    wait_for(lambda: " more" in top.drawn)
    assert "… and 1,994 more" in top.drawn, top.drawn
    assert not top.is_drawing


@pytest.mark.parametrize("kind", ["dumb", "unknown"])
def test_top_shows_the_fleet_once_where_nothing_can_be_drawn_over(
    fleet: ServedFleet, repo: Repo, on_terminal: Start, kind: str
) -> None:
    top = on_terminal("top", "--repo", str(repo.root), variables={"TERM": kind})
    assert top.wait() == 0
    wait_for(lambda: "beta" in top.drawn)
    assert "\x1b" not in top.drawn


def test_top_draws_where_terminals_are_said_to_take_no_colours(
    fleet: ServedFleet, repo: Repo, on_terminal: Start
) -> None:
    top = on_terminal("top", "--repo", str(repo.root), variables={"TTY_COMPATIBLE": "0"})
    top.wait_for("alpha")
    assert top.is_drawing
    top.type("q")
    assert top.wait() == 0


def test_run_on_a_terminal_draws_its_fleet_and_tells_of_a_registry_that_cannot_be_used(
    repo: Repo, on_terminal: Start
) -> None:
    registry = Path(registry_path(str(repo.root)))
    registry.parent.mkdir(parents=True)
    loop = {"loopId": "resting", "transport": "local", "enabled": False}
    registry.write_text(json.dumps({"schemaVersion": "v1", "loops": [loop]}))
    manager = on_terminal("run", "--repo", str(repo.root))
    manager.wait_for("resting")
    assert manager.is_drawing
    (registry.parent / "new.json").write_text("{half")
    (registry.parent / "new.json").rename(registry)
    manager.wait_for("registry_invalid")
    assert manager.is_drawing
    manager.type("q")
    assert manager.wait() == 0
    wait_for(lambda: not manager.is_drawing)
    assert manager.modes_now == manager.modes
    assert "Traceback" not in manager.drawn


def test_live_table_needs_a_terminal(repo: Repo) -> None:
    found = run("run", "--repo", str(repo.root), "--output", "table")
    assert (found.code, found.out) == (1, "")
    assert "--output" in found.err
    assert found.err.endswith("[invalid_request]\n")


@pytest.mark.skipif(not Path(BUF).exists(), reason="buf is not installed")
def test_foreign_client_reads_the_fleet_by_reflection(fleet: ServedFleet) -> None:
    def curl(path: str, data: dict[str, Any] | None, *flags: str) -> str:
        words = [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *flags]
        words += ["-H", f"authorization: Bearer {TOKEN}", "--reflect-header", "*"]
        words += [] if data is None else ["-d", json.dumps(data)]
        url = f"http://{fleet.address}{path}"
        done = subprocess.run([*words, url], capture_output=True, env=environment(), timeout=30, check=True)
        return done.stdout.decode()

    assert MANAGER in curl("", None, "--list-services").split()
    (page,) = documents(curl(f"/{MANAGER}/ListLoops", {}))
    assert [loop["loopId"] for loop in page["loops"]] == ["alpha", "beta"]
    assert page["loops"][1]["connection"]["state"] == "STATE_DOWN"
    (health,) = documents(curl("/grpc.health.v1.Health/Check", {"service": MANAGER}))
    assert health == {"status": "SERVING"}
