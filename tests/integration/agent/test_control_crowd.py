"""Many clients ask for the same at once, in every way there is: each key runs once, and all hear of it.

1,000 calls with 100 keys from 20 clients, each of which asks for keys that others ask for at that moment.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from sprite_agent.control import ControlPlane
from sprite_agent.runtime.repository import Repository
from spritemesh.control import ControlRequest
from spritemesh.errors import OpsError
from superloop.ops.v1 import control_pb2 as pb
from tests.harness.agents import Agent, start_agent
from tests.harness.control import Runtime, audit_of, client_of, request
from tests.harness.http import WITH_TOKEN, HttpWire, post
from tests.harness.loops import Repo, event
from tests.harness.refusals import taken_apart

KEYS, CALLS, LOOPS = 100, 1000, 10
_RETRY_SECONDS = 0.05


class Answer(NamedTuple):
    """What a client heard. content: the same for all who hear it in the same way."""

    replayed: bool
    status: str
    content: Any


Ask = Callable[[ControlRequest], Answer | None]
Way = Callable[[Agent, Repo, Runtime], Any]


def answer_of(outcome: pb.ControlOutcome) -> Answer:
    content = pb.ControlOutcome()
    content.CopyFrom(outcome)
    content.ClearField("replayed")
    return Answer(outcome.replayed, pb.ControlStatus.Name(outcome.status), content.SerializeToString())


def refused(reason: str) -> Answer | None:
    """No answer: a client asks again when another request of the loop is under way."""
    assert reason == "control_in_progress"
    return None


@contextmanager
def over_grpc(agent: Agent, _repo: Repo, _runtime: Runtime) -> Iterator[Ask]:
    with client_of(agent) as client:

        def ask(asked: ControlRequest) -> Answer | None:
            try:
                return answer_of(client.ask(asked))
            except grpc.RpcError as error:
                return refused(taken_apart(error).reason)

        yield ask


@contextmanager
def over_http(agent: Agent, _repo: Repo, _runtime: Runtime) -> Iterator[Ask]:
    with HttpWire(str(agent.ready["http"])) as wire:

        def ask(asked: ControlRequest) -> Answer | None:
            body = {
                "loopId": asked.loop_id,
                "intent": asked.intent,
                "by": asked.requested_by,
                "note": asked.note,
                "traceId": asked.trace_id,
                "idempotencyKey": asked.idempotency_key,
                "noConfirm": True,
            }
            answer = wire.ask(post("/ops/control", body, WITH_TOKEN))
            if answer.status != 200:
                return refused(answer.error[1])
            document = answer.document
            status = f"CONTROL_STATUS_{document['result']['status'].upper()}"
            return Answer(document.pop("replayed"), status, document)

        yield ask


@contextmanager
def beside_the_agent(_agent: Agent, repo: Repo, runtime: Runtime) -> Iterator[Ask]:
    """As `ops-manager control` does on the machine itself."""
    repository = Repository(str(repo.root))
    plane = ControlPlane(repository, runtime=str(runtime.path))

    def ask(asked: ControlRequest) -> Answer | None:
        try:
            return answer_of(plane.execute(asked))
        except OpsError as error:
            return refused(error.reason)

    try:
        yield ask
    finally:
        plane.close()
        repository.close()


WAYS: list[Way] = [over_grpc] * 12 + [over_http] * 6 + [beside_the_agent] * 2


@pytest.fixture
def agent(repo: Repo, runtime: Runtime, tmp_path: Path) -> Iterator[Agent]:
    found = start_agent(repo.root, tmp_path / "agent.txt", "--http", "127.0.0.1:0", *runtime.flags)
    yield found
    found.end()


@pytest.fixture
def runtime(repo: Repo, tmp_path: Path) -> Runtime:
    for number in range(LOOPS):
        repo.loop(f"loop-{number}", event(1))
    return Runtime(tmp_path / "runtime")


def asked_for(number: int) -> ControlRequest:
    key = f"key-{number}"
    members = {"note": key, "trace_id": f"trace-{number}", "even_if_nothing_pending": True}
    return request("reject", key, f"loop-{number % LOOPS}", **members)


def test_a_thousand_calls_with_a_hundred_keys_are_a_hundred_executions(
    repo: Repo, runtime: Runtime, agent: Agent
) -> None:
    # Dealt out in turn, so that those of one key come from as many clients at about the same time.
    calls = [number for number in range(KEYS) for _ in range(CALLS // KEYS)]

    def work(place: int) -> list[tuple[int, Way, Answer]]:
        heard = []
        with WAYS[place](agent, repo, runtime) as ask:
            for number in calls[place :: len(WAYS)]:
                while (answer := ask(asked_for(number))) is None:
                    time.sleep(_RETRY_SECONDS)
                heard.append((number, WAYS[place], answer))
        return heard

    with ThreadPoolExecutor(len(WAYS)) as pool:
        heard = [item for items in pool.map(work, range(len(WAYS))) for item in items]

    runs = Counter(line.rsplit(" ", 1)[1] for line in runtime.calls)
    assert runs == {f"key-{number}": 1 for number in range(KEYS)}
    assert len(heard) == CALLS
    firsts = Counter(number for number, _, answer in heard if not answer.replayed)
    assert firsts == dict.fromkeys(range(KEYS), 1)
    assert {answer.status for _, _, answer in heard} == {"CONTROL_STATUS_EXECUTED_UNCONFIRMED"}
    contents = defaultdict(list)
    for number, way, answer in heard:
        contents[number, way is over_http].append(answer.content)
    assert all(content == found[0] for found in contents.values() for content in found)
    # And so says the audit, one row in each of its three files.
    for place in range(LOOPS):
        audit = audit_of(repo, f"loop-{place}")
        rows = [*audit.intents, *audit.control]
        rows += [row for row in audit.invocations if row["outcome"]["status"] != "refused"]
        told = Counter(row["traceId"] for row in rows)
        assert told == {f"trace-{number}": 3 for number in range(place, KEYS, LOOPS)}
