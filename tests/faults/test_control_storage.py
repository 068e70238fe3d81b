"""Control fails closed: what cannot be recorded or audited is not run, and reads go on."""

import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from superloop.ops.v1 import control_pb2 as pb
from superloop.ops.v1 import sprite_pb2
from tests.harness.agents import BEARER, Agent, StartAgent
from tests.harness.control import LOOK, Runtime, audit_directory, audit_of, client_of, request
from tests.harness.loops import LoopFiles, Repo, event
from tests.harness.refusals import Refusal, refusal
from tests.harness.waiting import wait_for

INTERNAL = grpc.StatusCode.INTERNAL
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
# More than a trial of the audit reserves, less than the ledger's log is made to hold.
ROOM_BYTES = 600 * 1024


@pytest.fixture
def runtime(tmp_path: Path, loop: LoopFiles) -> Runtime:
    loop.append(event(1))
    return Runtime(tmp_path / "runtime")


@pytest.fixture
def ledger(repo: Repo) -> Path:
    return repo.root / ".superloop" / "sprite-agent" / "ledger.db"


@contextmanager
def no_file_beyond(agent: Agent, size: int) -> Iterator[None]:
    """A disk that is full for the agent while the block runs."""
    pid = agent.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def refused(agent: Agent, runtime: Runtime, key: str) -> Refusal:
    """A refusal; nothing ran for it, and the loop is told of as ever."""
    before = runtime.calls
    with client_of(agent) as client:
        found = refusal(lambda: client.ask(request(key=key)))
    assert runtime.calls == before
    with agent.stub() as stub:
        asked = sprite_pb2.GetSnapshotRequest(loop_id="alpha")
        assert stub.GetSnapshot(asked, metadata=BEARER).snapshot.sequence_value == 1
    assert "Traceback" not in agent.said()
    return found


def executes(agent: Agent, key: str) -> bool:
    """Whether the agent executes a request, now that all is well again."""
    with client_of(agent) as client:
        return not client.ask(request(key=key)).replayed


def fill_disk(agent: Agent, runtime: Runtime, repo: Repo) -> None:
    with no_file_beyond(agent, 100_000):
        found = refused(agent, runtime, "wanted")
    assert (found.code, found.reason) == (INTERNAL, "audit_unavailable")
    assert "ops-manager" in found.message
    assert audit_of(repo).of("wanted") == []


def take_directory(agent: Agent, runtime: Runtime, repo: Repo) -> None:
    ops = audit_directory(repo)
    hidden = ops.with_name("hidden")
    if ops.exists():
        ops.rename(hidden)
    ops.write_text("no directory")
    found = refused(agent, runtime, "wanted")
    assert (found.code, found.reason) == (INTERNAL, "audit_unavailable")
    ops.unlink()
    if hidden.exists():
        hidden.rename(ops)


@pytest.mark.parametrize("trouble", [fill_disk, take_directory])
def test_nothing_is_run_that_cannot_be_audited(
    repo: Repo, runtime: Runtime, start: StartAgent, trouble: Callable[[Agent, Runtime, Repo], None]
) -> None:
    agent = start(*runtime.flags)
    assert executes(agent, "before")
    trouble(agent, runtime, repo)
    assert executes(agent, "wanted")
    assert audit_of(repo).of("wanted") == ["executed_unconfirmed"] * 3


def test_audit_that_fails_after_the_command_is_told_and_made_good(
    repo: Repo, runtime: Runtime, start: StartAgent
) -> None:
    agent = start(*runtime.flags)
    runtime.does(runtime.waits())
    asked = request(key="late", confirmation=LOOK)
    with client_of(agent) as client:
        under_way = client.future(asked)
        runtime.wait_until_it_runs()
        telemetry = audit_directory(repo) / "telemetry"
        telemetry.rename(telemetry.with_name("away"))
        telemetry.write_text("no directory")
        runtime.go()
        found = refusal(under_way.result)
        assert (found.code, found.reason) == (INTERNAL, "audit_unavailable")
        telemetry.unlink()
        telemetry.with_name("away").rename(telemetry)
        outcome = client.ask(asked)
    assert (outcome.status, outcome.replayed) == (pb.CONTROL_STATUS_CONFIRMED, True)
    assert len(runtime.calls) == 1
    assert audit_of(repo).of("late") == ["confirmed"] * 3


def test_ledger_that_cannot_be_opened_refuses_control_and_nothing_else(
    ledger: Path, runtime: Runtime, start: StartAgent
) -> None:
    ledger.mkdir(parents=True)
    agent = start(*runtime.flags)
    found = refused(agent, runtime, "wanted")
    assert (found.code, found.reason) == (INTERNAL, "ledger_unavailable")
    assert "ledger.db" in found.message
    ledger.rmdir()
    assert executes(agent, "wanted")


@pytest.mark.parametrize("when", ["at the start", "under a running agent"])
def test_damaged_ledger_refuses_control_and_nothing_else(
    ledger: Path, runtime: Runtime, start: StartAgent, when: str
) -> None:
    garbage = b"this is no ledger\n" * 4096
    if when == "at the start":
        ledger.parent.mkdir(parents=True)
        ledger.write_bytes(garbage)
        agent = start(*runtime.flags)
        wait_for(lambda: "ledger_corrupt" in agent.said(), what="the agent to tell of it")
    else:
        agent = start(*runtime.flags)
        assert executes(agent, "before")
        for name in ("ledger.db-wal", "ledger.db-shm"):
            ledger.with_name(name).unlink(missing_ok=True)
        fresh = ledger.with_name("fresh")
        fresh.write_bytes(garbage)
        fresh.replace(ledger)
    found = refused(agent, runtime, "wanted")
    assert (found.code, found.reason) == (PRECONDITION, "ledger_corrupt")
    with client_of(agent) as client:
        assert refusal(lambda: client.invocation("wanted")).reason == "ledger_corrupt"
    # As the runbook says: move it away.
    ledger.rename(ledger.with_name("kept"))
    assert executes(agent, "wanted")


def test_ledger_that_is_taken_away_is_not_written_to_any_more(
    ledger: Path, runtime: Runtime, start: StartAgent
) -> None:
    agent = start(*runtime.flags)
    assert executes(agent, "before")
    for path in list(ledger.parent.glob("ledger.db*")):
        path.rename(path.with_name(f"kept-{path.name}"))
    assert executes(agent, "wanted")
    assert ledger.exists()
    with client_of(start(*runtime.flags)) as client:
        assert client.invocation("wanted").outcome.exit_code == 0
        assert refusal(lambda: client.invocation("before")).reason == "invocation_not_found"


@contextmanager
def full_ledger(agent: Agent, ledger: Path) -> Iterator[None]:
    """No room for the ledger while the block runs; the audit has some."""
    reader, writer = (sqlite3.connect(ledger, isolation_level=None) for _ in range(2))
    try:
        # A reader keeps the log from being taken over, so that it grows.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        writer.execute("CREATE TABLE filler (data BLOB)")
        writer.execute("INSERT INTO filler VALUES (zeroblob(?))", (ROOM_BYTES + 100_000,))
        with no_file_beyond(agent, ROOM_BYTES):
            yield
        writer.execute("DROP TABLE filler")
    finally:
        reader.close()
        writer.close()


def test_ledger_on_a_full_disk_refuses_control(
    repo: Repo, ledger: Path, runtime: Runtime, start: StartAgent
) -> None:
    agent = start(*runtime.flags)
    assert executes(agent, "before")
    with full_ledger(agent, ledger):
        found = refused(agent, runtime, "wanted")
    assert (found.code, found.reason) == (INTERNAL, "ledger_unavailable")
    assert executes(agent, "wanted")
    done = "executed_unconfirmed"
    assert audit_of(repo).of("wanted") == [done, done, "refused", done]


def test_ledger_that_fails_after_the_command_is_told_and_made_good(
    repo: Repo, ledger: Path, runtime: Runtime, start: StartAgent
) -> None:
    agent = start(*runtime.flags)
    runtime.does(runtime.waits())
    asked = request(key="late", confirmation=LOOK)
    with client_of(agent) as client:
        under_way = client.future(asked)
        runtime.wait_until_it_runs()
        with full_ledger(agent, ledger):
            runtime.go()
            found = refusal(under_way.result)
        # Not the ledger's own reason, which says that nothing was run.
        assert (found.code, found.reason) == (INTERNAL, "audit_unavailable")
        assert "was run" in found.message
        again = client.ask(asked)
        assert (again.status, again.replayed) == (pb.CONTROL_STATUS_CONFIRMED, True)
        assert client.invocation("late").outcome.status == pb.CONTROL_STATUS_CONFIRMED
    assert len(runtime.calls) == 1
    assert audit_of(repo).of("late") == ["confirmed"] * 3


def test_ledger_that_makes_wait_holds_up_no_reads(ledger: Path, runtime: Runtime, start: StartAgent) -> None:
    agent = start(*runtime.flags)
    assert executes(agent, "before")
    holder = sqlite3.connect(ledger, isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        with client_of(agent) as client, agent.stub() as stub:
            under_way = client.future(request(key="waits"))
            locks = ledger.with_name("locks")
            wait_for(lambda: any(path.name.startswith("key-") for path in locks.iterdir()), what="the lock")
            asked = pb.GetInvocationRequest(idempotency_key="before")
            looks = [client.stub.GetInvocation.future(asked, metadata=BEARER) for _ in range(12)]
            wanted = sprite_pb2.GetSnapshotRequest(loop_id="alpha")
            for _ in range(20):
                stub.GetSnapshot(wanted, metadata=BEARER, timeout=1)
            holder.execute("ROLLBACK")
            assert under_way.result().outcome.exit_code == 0
            assert all(look.result().outcome.exit_code == 0 for look in looks)
    finally:
        holder.close()
