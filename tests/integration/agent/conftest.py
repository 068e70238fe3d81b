"""One agent for the tests that only talk to it; each test gets a loop of its own."""

import itertools
from collections.abc import Callable, Iterator

import grpc
import pytest

from superloop.ops.v1 import sprite_pb2_grpc
from tests.harness.agents import Agent, start_agent
from tests.harness.loops import LoopFiles, Repo

MakeLoop = Callable[..., LoopFiles]
Stub = sprite_pb2_grpc.SpriteServiceStub


@pytest.fixture(scope="session")
def shared_repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return Repo(tmp_path_factory.mktemp("shared") / "repo")


@pytest.fixture(scope="session")
def shared_agent(shared_repo: Repo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent that lives as long as the test run."""
    agent = start_agent(shared_repo.root, tmp_path_factory.mktemp("agent") / "errors.txt")
    yield agent
    agent.end()


_numbers = itertools.count(1)


@pytest.fixture
def make_loop(shared_repo: Repo) -> MakeLoop:
    """Makes loops of the shared agent's repository, with ids never used before."""

    def make(data: bytes | None = b"") -> LoopFiles:
        return shared_repo.loop(f"loop-{next(_numbers)}", data)

    return make


@pytest.fixture
def channel(shared_agent: Agent) -> Iterator[grpc.Channel]:
    """A connection of the test's own to the shared agent."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.insecure_channel(shared_agent.address, options=options) as found:
        yield found


@pytest.fixture
def stub(channel: grpc.Channel) -> Stub:
    return sprite_pb2_grpc.SpriteServiceStub(channel)
