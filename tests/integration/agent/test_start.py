"""How the agent starts, and how it refuses to: one clear line, and no traceback."""

import socket
import subprocess
from pathlib import Path

import pytest

from superloop.ops.v1 import sprite_pb2
from tests.harness import secrets
from tests.harness.agents import BEARER, ROOT, TOKEN, StartAgent, environment, serve_words
from tests.harness.loops import Repo, events

LOOPBACK = ("--grpc", "127.0.0.1:0")
WITH_TOKEN = ("--token", TOKEN)


def refused(repo: Path, *flags: str, **variables: str) -> str:
    """The error line of an agent that does not start."""
    done = subprocess.run(
        serve_words(repo, *flags),
        capture_output=True,
        cwd=ROOT,
        env=environment() | variables,
        timeout=20,
        check=False,
    )
    errors = done.stderr.decode()
    assert done.returncode == 1, errors
    assert done.stdout == b""
    assert "Traceback" not in errors
    *_, last = errors.splitlines()
    assert last.startswith("error: ")
    assert errors.count("error:") == 1
    return last


def test_first_line_says_where_calls_are_taken(repo: Repo, start: StartAgent) -> None:
    agent = start()
    assert set(agent.ready) == {"ready", "grpc", "http", "metrics"}
    assert agent.ready["ready"] is True
    host, _, port = agent.address.rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0


def test_token_may_come_from_file_or_environment(repo: Repo, start: StartAgent, tmp_path: Path) -> None:
    file = tmp_path / "token"
    secrets.write(file, TOKEN + "\n")
    with start(token=("--token-file", str(file))).stub() as stub:
        stub.ListLoops(sprite_pb2.ListLoopsRequest(), metadata=BEARER)


def test_agent_listens_on_a_unix_socket(repo: Repo, start: StartAgent, socket_path: Path) -> None:
    repo.loop("alpha", events(1, 2))
    address = f"unix://{socket_path}"
    agent = start(grpc_at=address)
    assert agent.address == address
    with agent.stub() as stub:
        request = sprite_pb2.GetSnapshotRequest(loop_id="alpha")
        assert stub.GetSnapshot(request, metadata=BEARER).snapshot.sequence_value == 2


def test_socket_of_an_agent_that_was_killed_can_be_used_again(
    repo: Repo, start: StartAgent, socket_path: Path
) -> None:
    address = f"unix://{socket_path}"
    first = start(grpc_at=address)
    first.process.kill()
    first.wait()
    with start(grpc_at=address).stub() as stub:
        stub.ListLoops(sprite_pb2.ListLoopsRequest(), metadata=BEARER)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_agent_listens_on_any_loopback_address(repo: Repo, start: StartAgent, host: str) -> None:
    if host == "[::1]" and not _has_ipv6():
        pytest.skip("no IPv6 here")
    agent = start(grpc_at=f"{host}:0")
    with agent.stub() as stub:
        stub.ListLoops(sprite_pb2.ListLoopsRequest(), metadata=BEARER)


def test_other_addresses_may_be_listened_on_with_a_token(repo: Repo, start: StartAgent) -> None:
    agent = start(grpc_at="0.0.0.0:0")
    assert agent.address.startswith("0.0.0.0:")


def test_agent_without_token_does_not_start(repo: Repo) -> None:
    message = refused(repo.root, *LOOPBACK)
    assert "--token-file" in message
    assert "--allow-unauthenticated" in message


def test_empty_token_is_no_token(repo: Repo) -> None:
    assert "--token" in refused(repo.root, *LOOPBACK, "--token", " ")
    assert "no token" in refused(repo.root, *LOOPBACK, OPS_MANAGER_SERVICE_TOKEN="")


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.org:0"])
def test_open_agent_does_not_start_where_others_can_reach_it(repo: Repo, address: str) -> None:
    message = refused(repo.root, "--grpc", address, "--allow-unauthenticated")
    assert address in message
    assert "loopback" in message


def test_busy_port_is_told_with_its_address(repo: Repo, start: StartAgent) -> None:
    agent = start()
    assert agent.address in refused(repo.root, "--grpc", agent.address, *WITH_TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        assert taken in refused(repo.root, "--grpc", taken, *WITH_TOKEN)


def test_socket_of_a_living_agent_is_not_taken_over(repo: Repo, start: StartAgent, socket_path: Path) -> None:
    address = f"unix://{socket_path}"
    agent = start(grpc_at=address)
    assert address in refused(repo.root, "--grpc", address, *WITH_TOKEN)
    with agent.stub() as stub:
        stub.ListLoops(sprite_pb2.ListLoopsRequest(), metadata=BEARER)


def test_file_in_the_place_of_the_socket_is_not_removed(repo: Repo, socket_path: Path) -> None:
    socket_path.write_text("kept")
    refused(repo.root, "--grpc", f"unix://{socket_path}", *WITH_TOKEN)
    assert socket_path.read_text() == "kept"


def test_path_that_no_socket_can_have_is_told_with_its_size(repo: Repo) -> None:
    address = "unix:///" + "d/" * 60
    assert "107 bytes at most, this one 121" in refused(repo.root, "--grpc", address, *WITH_TOKEN)


@pytest.mark.parametrize(
    "address", ["nonsense", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", ":1", "unix:"]
)
def test_address_that_is_none_is_told_by_flag(repo: Repo, address: str) -> None:
    assert "--grpc" in refused(repo.root, "--grpc", address, *WITH_TOKEN)


@pytest.mark.parametrize("address", ["192.0.2.1:1", "no-such-host.invalid:1", "unix:///no/such/directory/s"])
def test_address_that_cannot_be_listened_on_is_told(repo: Repo, address: str) -> None:
    assert address in refused(repo.root, "--grpc", address, *WITH_TOKEN)


def test_missing_repository_is_told_by_path(repo: Repo, tmp_path: Path) -> None:
    for path in (tmp_path / "missing", repo.loop("a").log):
        assert str(path) in refused(path, *LOOPBACK, *WITH_TOKEN)


@pytest.mark.parametrize("content", [b"", b"two words", b"x" * 5000, b"\xff\n"])
def test_token_file_without_a_token_is_told_by_flag(repo: Repo, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    message = refused(repo.root, *LOOPBACK, "--token-file", str(file))
    assert "--token-file" in message


def test_missing_token_file_is_told_by_path(repo: Repo, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert str(missing) in refused(repo.root, *LOOPBACK, "--token-file", str(missing))


@pytest.mark.parametrize("interval", ["0", "0.1", "nan", "inf", "-1", "soon", ""])
def test_heartbeat_interval_out_of_bounds_is_told_by_flag(repo: Repo, interval: str) -> None:
    assert "--heartbeat-interval" in refused(
        repo.root, *LOOPBACK, *WITH_TOKEN, "--heartbeat-interval", interval
    )


@pytest.mark.parametrize("seconds", ["0", "3601", "nan", "inf", "-1", "soon", ""])
def test_runtime_timeout_out_of_bounds_is_told_by_flag(repo: Repo, seconds: str) -> None:
    assert "--runtime-timeout" in refused(repo.root, *LOOPBACK, *WITH_TOKEN, "--runtime-timeout", seconds)


def test_secret_is_in_no_message_of_a_refusal(repo: Repo, tmp_path: Path) -> None:
    assert TOKEN not in refused(tmp_path / "missing", *LOOPBACK, "--token", TOKEN)
    assert TOKEN not in refused(repo.root, *LOOPBACK, "--token", f"{TOKEN} two")


def test_agent_starts_where_nothing_ever_ran(tmp_path: Path, start: StartAgent, repo: Repo) -> None:
    for path in (repo.root / ".superloop" / "loops", repo.root / ".superloop"):
        path.rmdir()
    with start().stub() as stub:
        assert not stub.ListLoops(sprite_pb2.ListLoopsRequest(), metadata=BEARER).loops
    left = [path.relative_to(repo.root) for path in repo.root.rglob("*") if path.is_file()]
    assert left == [Path(".superloop/sprite-agent/sprite-id")]


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False
