"""What all tests share: repositories with logs, and agents that serve them."""

import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.harness.agents import Agent, StartAgent, start_agent
from tests.harness.leakage import no_secret_is_left, pytest_runtest_makereport  # noqa: F401 - for all tests
from tests.harness.loops import LoopFiles, Repo

if TYPE_CHECKING:
    from tests.harness.pki import Authority


def pytest_configure() -> None:
    """What a shell starts in the background ignores SIGINT, and so would all that the tests start."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
