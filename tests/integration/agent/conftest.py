"""One agent for the tests that only talk to it; each test gets a loop of its own."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from spritemesh.control import ControlRequest
from superloop.ops.v1 import control_pb2 as pb
from superloop.ops.v1 import envelope_pb2, sprite_pb2, sprite_pb2_grpc
from tests.harness.agents import BEARER, CALL_SECONDS, Agent, start_agent
from tests.harness.control import Audit, Client, Runtime, audit_of, client_of, request
from tests.harness.loops import LoopFiles, Repo, event

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


class Sprite:
    """A loop of the agent that controls, with its runtime."""

    def __init__(self, agent: Agent, runtime: Runtime, loop: LoopFiles, repo: Repo, client: Client) -> None:
        self.agent = agent
        self.runtime = runtime
        self.loop = loop
        self.repo = repo
        self.client = client

    def request(self, intent: str, key: str | None = None, **members: Any) -> ControlRequest:
        """A request for the loop."""
        return request(intent, key, self.loop.loop_id, **members)

    def ask(self, intent: str, key: str | None = None, **members: Any) -> pb.ControlOutcome:
        """Ask for the loop, and have the outcome."""
        return self.client.ask(self.request(intent, key, **members))

    def audit(self) -> Audit:
        """The audit of the loop."""
        return audit_of(self.repo, self.loop.loop_id)

    def runs(self) -> None:
        """Say that the loop runs."""
        self.repo.put("state.json", {"active": True, "current_loop_id": self.loop.loop_id})

    def waits_for_approval(self, **members: Any) -> None:
        """Say that the loop waits for a decision."""
        approval = {"status": "pending", "run_id": "run-1", "iteration": 1, "candidate": {"text": "done"}}
        self.loop.put("approval.json", approval | members)

    def snapshot(self) -> envelope_pb2.LoopRunSnapshot:
        """What an operator sees."""
        with self.agent.stub() as stub:
            wanted = sprite_pb2.GetSnapshotRequest(loop_id=self.loop.loop_id)
            return stub.GetSnapshot(wanted, metadata=BEARER, timeout=CALL_SECONDS).snapshot


@pytest.fixture(scope="session")
def control_repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return Repo(tmp_path_factory.mktemp("control") / "repo")


@pytest.fixture(scope="session")
def control_runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return Runtime(tmp_path_factory.mktemp("runtime") / "program")


@pytest.fixture(scope="session")
def control_agent(
    control_repo: Repo, control_runtime: Runtime, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Agent]:
    """An agent with a runtime, that lives as long as the test run."""
    errors = tmp_path_factory.mktemp("agent") / "errors.txt"
    agent = start_agent(control_repo.root, errors, *control_runtime.flags)
    yield agent
    agent.end()


@pytest.fixture
def sprite(control_agent: Agent, control_runtime: Runtime, control_repo: Repo) -> Iterator[Sprite]:
    """A loop never used before, in a repository where nothing runs and whose runtime does nothing."""
    loop = control_repo.loop(f"loop-{next(_numbers)}", event(1, "iteration_start"))
    (control_repo.root / ".superloop" / "state.json").unlink(missing_ok=True)
    control_runtime.does("")
    for name in ("began", "go"):
        control_runtime.file(name).unlink(missing_ok=True)
    with client_of(control_agent) as client:
        yield Sprite(control_agent, control_runtime, loop, control_repo, client)
