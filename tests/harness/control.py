"""Control as a client sees it: a runtime of the test's own, calls with sensible defaults, and the audit."""

import itertools
import json
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from spritemesh.control import Confirmation, ControlRequest, RequestMessage, to_message
from superloop.ops.v1 import control_pb2 as pb
from superloop.ops.v1 import control_pb2_grpc
from tests.harness.agents import BEARER, CALL_SECONDS, Agent
from tests.harness.loops import LoopFiles, Repo, event
from tests.harness.waiting import wait_for

_keys = itertools.count(1)

SKIP = Confirmation(skip=True)
# One look.
LOOK = Confirmation(timeout_seconds=0)
Calls = tuple[tuple[str, str], ...]


class Runtime:
    """A program that notes the arguments of each call, and then does what the test said last."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.path = directory / "runtime"
        self._calls = directory / "calls"
        self._does = directory / "does"
        self.does("")
        lines = ("#!/bin/sh", f'printf "%s\\n" "$*" >> {_quoted(self._calls)}', f". {_quoted(self._does)}")
        self.path.write_text("\n".join(lines) + "\n")
        self.path.chmod(0o755)

    @property
    def flags(self) -> tuple[str, str]:
        """As `sprite-agent serve` takes it."""
        return ("--runtime-command", str(self.path))

    @property
    def calls(self) -> list[str]:
        """The arguments of each call since `does`."""
        return self._calls.read_text().splitlines()

    def does(self, *commands: str) -> None:
        """Shell commands of all calls from now on; forgets those before."""
        fresh = self._does.with_suffix(".new")
        fresh.write_text("\n".join(commands) + "\n")
        fresh.replace(self._does)
        self._calls.write_text("")

    def file(self, name: str) -> Path:
        """A file for signals between runtime and test."""
        return self.directory / name

    def logs(self, loop: LoopFiles, name: str, **members: Any) -> str:
        """Command that appends an event to a loop's log."""
        line = event(1, name, **members)[:-1].decode()
        return f"printf '%s\\n' {shlex.quote(line)} >> {_quoted(loop.log)}"

    def puts(self, path: Path, document: Any) -> str:
        """Command that replaces a JSON file."""
        fresh = path.with_suffix(".new")
        return (
            f"printf '%s' {shlex.quote(json.dumps(document))} > {_quoted(fresh)};"
            f" mv {_quoted(fresh)} {_quoted(path)}"
        )

    def waits(self, name: str = "go") -> str:
        """Command that says by the file `began` that it is there, and waits for the file `name`."""
        return (
            f": > {_quoted(self.file('began'))};"
            f" while [ ! -e {_quoted(self.file(name))} ]; do sleep 0.01; done"
        )

    def wait_until_it_runs(self) -> None:
        """Wait for a call that `waits`."""
        wait_for(self.file("began").exists, what="the runtime command to run")

    def go(self, name: str = "go") -> None:
        """Let it go on."""
        self.file(name).touch()


def wait_until_noted(repo: Repo, key: str) -> None:
    """Wait until the ledger knows which process a key's command is: where the agent is killed before that,
    nobody knows that the command still runs."""
    ledger = repo.root / ".superloop" / "sprite-agent" / "ledger.db"

    def noted() -> bool:
        with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as found:
            rows = found.execute("SELECT process FROM invocations WHERE key = ?", (key,)).fetchall()
        return rows not in ([], [("",)])

    wait_for(noted, what=f"the process of {key} to be on record")


def request(
    intent: str = "cancel", key: str | None = None, loop_id: str = "alpha", **members: Any
) -> ControlRequest:
    """A request with a key of its own, by an operator, that nobody confirms unless said so."""
    members = {"requested_by": "op", "confirmation": SKIP} | members
    return ControlRequest(loop_id, intent, f"key-{next(_keys)}" if key is None else key, **members)


class Client:
    """Calls on a connection of its own."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.stub = control_pb2_grpc.ControlServiceStub(channel)

    def future(self, asked: ControlRequest, metadata: Calls = BEARER, seconds: float = CALL_SECONDS) -> Any:
        """A call under way, whose answer holds an outcome."""
        return self._method(asked).future(to_message(asked), metadata=metadata, timeout=seconds)

    def ask(self, asked: ControlRequest, metadata: Calls = BEARER) -> pb.ControlOutcome:
        """The outcome."""
        return self.send(to_message(asked), metadata)

    def send(self, message: RequestMessage, metadata: Calls = BEARER) -> pb.ControlOutcome:
        """The outcome of a message as it is."""
        if isinstance(message, pb.CancelLoopRequest):
            method: Any = self.stub.CancelLoop
        elif isinstance(message, pb.ApprovePendingRequest):
            method = self.stub.ApprovePending
        else:
            method = self.stub.RejectPending
        outcome: pb.ControlOutcome = method(message, metadata=metadata, timeout=CALL_SECONDS).outcome
        return outcome

    def invocation(self, key: str) -> pb.GetInvocationResponse:
        """What became of a key."""
        return self.stub.GetInvocation(
            pb.GetInvocationRequest(idempotency_key=key), metadata=BEARER, timeout=CALL_SECONDS
        )

    def wait_for_state(self, key: str, state: "pb.InvocationState.ValueType") -> None:
        """Wait until a request has come so far."""

        def reached() -> bool:
            try:
                return self.invocation(key).state == state
            except grpc.RpcError:
                return False

        wait_for(reached, what=f"{key} to be {pb.InvocationState.Name(state)}")

    def _method(self, asked: ControlRequest) -> Any:
        names = {"cancel": "CancelLoop", "approve": "ApprovePending", "reject": "RejectPending"}
        return getattr(self.stub, names[asked.intent])


@contextmanager
def client_of(agent: Agent) -> Iterator[Client]:
    """A client of an agent."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.insecure_channel(agent.address, options=options) as channel:
        yield Client(channel)


class Audit(NamedTuple):
    """The rows that tell of control of one loop."""

    intents: list[dict[str, Any]]
    control: list[dict[str, Any]]
    invocations: list[dict[str, Any]]

    def of(self, key: str) -> list[str]:
        """The status that each of the three files gives for a key, all in one list."""
        return [
            *(row["status"] for row in self.intents if row["idempotencyKey"] == key),
            *(row["status"] for row in self.control if row["idempotencyKey"] == key),
            *(row["outcome"]["status"] for row in self.invocations if row["idempotencyKey"] == key),
        ]


def audit_directory(repo: Repo, loop_id: str = "alpha") -> Path:
    """The manager directory of a loop."""
    return repo.root / ".superloop" / "ops-manager" / loop_id


def audit_of(repo: Repo, loop_id: str = "alpha") -> Audit:
    """What has been written so far."""
    ops = audit_directory(repo, loop_id)
    names = ("intents.jsonl", "telemetry/control.jsonl", "telemetry/control-invocations.jsonl")
    return Audit(*(_rows(ops / name) for name in names))


def refusals_path(repo: Repo) -> Path:
    """Where refusals are noted that no loop has a record of."""
    return repo.root / ".superloop" / "sprite-agent" / "refusals.jsonl"


def refusals_of(repo: Repo) -> list[dict[str, Any]]:
    """What is noted there."""
    return _rows(refusals_path(repo))


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
