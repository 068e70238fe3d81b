"""Both ways to a loop, opened as the commands open them."""

from collections.abc import Callable, Iterator

import pytest

from manager.transport import Retry, Transport, open_transport
from tests.harness.agents import Agent
from tests.harness.loops import Repo

OpenLocal = Callable[[], Transport]
OpenRemote = Callable[..., Transport]


@pytest.fixture
def local(repo: Repo) -> Iterator[OpenLocal]:
    """Opens transports that read the repository's files."""
    opened: list[Transport] = []

    def open_it() -> Transport:
        opened.append(open_transport("local", repo=str(repo.root)))
        return opened[-1]

    yield open_it
    for transport in opened:
        transport.close()


@pytest.fixture
def remote(repo: Repo) -> Iterator[OpenRemote]:
    """Opens transports to an agent, or to an address where there may be none."""
    opened: list[Transport] = []

    def open_it(to: Agent | str, *, token: str | None = None, retry: Retry | None = None) -> Transport:
        url = to if isinstance(to, str) else to.url
        known = "" if isinstance(to, str) else to.token
        opened.append(
            open_transport(
                "sprite_service",
                repo=str(repo.root),
                base_url=url,
                token=known if token is None else token,
                retry=retry or Retry(attempts=1, backoff_seconds=0.01),
            )
        )
        return opened[-1]

    yield open_it
    for transport in opened:
        transport.close()
