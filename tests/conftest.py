"""What all tests share: repositories with logs, and agents that serve them."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.agents import Agent, StartAgent, start_agent
from tests.harness.leakage import no_secret_is_left, pytest_runtest_makereport  # noqa: F401 - for all tests
from tests.harness.loops import LoopFiles, Repo

if TYPE_CHECKING:
    from tests.harness.pki import Authority


# A shell's background jobs ignore the first two, and `nohup` the last.
_ENDING: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGQUIT: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}


def pytest_configure() -> None:
    for number, handler in _ENDING.items():
        # Else all that the tests start would ignore it, too.
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)
    # Some tests fork, in a process where gRPC's threads of other tests are at work: it may abort the child.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """An empty repository."""
    return Repo(tmp_path / "repo")


@pytest.fixture
def loop(repo: Repo) -> LoopFiles:
    """A loop of it with an empty log."""
    return repo.loop()


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path that a Unix socket may have, wherever the tests' own files are: the kernel takes 107 bytes."""
    with TemporaryDirectory(prefix="s-") as short:
        yield Path(short) / "s"


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> "Authority":
    """Certifies whoever a test wants."""
    # Late: most tests need no cryptography.
    from tests.harness.pki import Authority

    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def start(repo: Repo, tmp_path: Path) -> Iterator[StartAgent]:
    """Starts agents for the repository, and ends them with the test."""
    started: list[Agent] = []

    def start(*flags: str, **settings: object) -> Agent:
        errors = tmp_path / f"agent-{len(started)}.txt"
        found = start_agent(repo.root, errors, *flags, **settings)  # type: ignore[arg-type]
        started.append(found)
        return found

    yield start
    for found in started:
        found.end()
