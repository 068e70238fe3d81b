"""Heartbeats of a real agent about a real process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise

import psutil
import pytest
from google.protobuf.duration_pb2 import Duration

from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc
from tests.harness.agents import BEARER, CALL_SECONDS, StartAgent
from tests.harness.loops import LoopFiles, Repo, event, events
from tests.harness.streams import place
from tests.harness.waiting import wait_for

Stub = sprite_pb2_grpc.SpriteServiceStub
# The agent looks at the runtime's process four times a second.
AT_ONCE_SECONDS = 1.5


@pytest.fixture
def runtime() -> Iterator["subprocess.Popen[bytes]"]:
    """A process in the place of the runtime."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def beats(stub: Stub, seconds: float | None = None, loop_id: str = "") -> Iterator[sprite_pb2.Heartbeat]:
    request = sprite_pb2.WatchHeartbeatsRequest(loop_id=loop_id)
    if seconds is not None:
        request.interval.CopyFrom(Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9)))
    call = stub.WatchHeartbeats(request, metadata=BEARER, timeout=CALL_SECONDS)
    try:
        for message in call:
            yield message.heartbeat
    finally:
        call.cancel()


def test_heartbeats_are_numbered_and_come_at_the_granted_interval(repo: Repo, start: StartAgent) -> None:
    with start().stub() as stub:
        stream = beats(stub, 0.25)
        found = [next(stream) for _ in range(3)]
        stream.close()  # type: ignore[attr-defined]
    assert [beat.sequence for beat in found] == [1, 2, 3]
    assert len({beat.boot_id for beat in found}) == 1
    times = [beat.sent_at.ToNanoseconds() / 1e9 for beat in found]
    assert all(0.2 < later - earlier < 1 for earlier, later in pairwise(times))


def test_interval_is_granted_within_bounds(repo: Repo, start: StartAgent) -> None:
    with start().stub() as stub:
        for wanted, granted in ((None, 5.0), (0, 0.25), (0.01, 0.25), (3.5, 3.5), (999, 60.0)):
            assert next(beats(stub, wanted)).granted_interval.ToMilliseconds() / 1000 == granted


def test_agent_tells_of_itself(repo: Repo, start: StartAgent) -> None:
    agent = start()
    with agent.stub() as stub:
        beat = next(beats(stub))
    facts = beat.agent
    assert facts.pid == agent.process.pid
    assert facts.started_at.ToNanoseconds() / 1e9 == pytest.approx(
        psutil.Process(agent.process.pid).create_time(), abs=1
    )
    assert facts.rss_bytes > 1 << 20
    assert facts.cpu_time.ToMilliseconds() > 0
    assert facts.event_loop_lag.ToMilliseconds() < 1000
    assert not facts.draining
    assert facts.version
    assert not beat.HasField("runtime")
    assert not beat.HasField("head")


def test_boot_id_tells_starts_apart(repo: Repo, start: StartAgent) -> None:
    repo.loop("alpha")
    seen = set()
    for _ in range(2):
        with start().stub() as stub:
            first, second = next(beats(stub)).boot_id, next(beats(stub)).boot_id
            assert first == second
            seen.add(first)
    assert len(seen) == 2


def test_runtime_and_its_loop_are_told(
    repo: Repo, loop: LoopFiles, start: StartAgent, runtime: "subprocess.Popen[bytes]"
) -> None:
    loop.append(events(1, 2) + b"torn")
    repo.loop("other", event(1))
    repo.running(runtime.pid, "alpha", stage="loop_start")
    with start().stub() as stub:
        beat = next(beats(stub))
        named = next(beats(stub, loop_id="other"))
        missing = next(beats(stub, loop_id="none"))
    assert (beat.runtime.pid, beat.runtime.alive) == (runtime.pid, True)
    assert (beat.runtime.loop_id, beat.runtime.stage) == ("alpha", "loop_start")
    assert beat.runtime.rss_bytes > 0
    assert (beat.loop_id, beat.head.position) == ("alpha", place(events(1, 2)))
    assert beat.head.torn_tail_bytes == 4
    assert (named.loop_id, named.head.position.line, named.runtime.loop_id) == ("other", 1, "alpha")
    assert (missing.loop_id, missing.HasField("head")) == ("none", False)


def test_death_and_birth_of_the_runtime_are_told_at_once(
    repo: Repo, loop: LoopFiles, start: StartAgent, runtime: "subprocess.Popen[bytes]"
) -> None:
    repo.running(runtime.pid)
    with start().stub() as stub:
        stream = beats(stub, 60)
        assert next(stream).runtime.alive
        started = time.monotonic()
        # Killed and not waited for: a zombie does no work.
        runtime.send_signal(signal.SIGKILL)
        dead = next(stream)
        assert time.monotonic() - started < AT_ONCE_SECONDS
        assert (dead.sequence, dead.runtime.alive, dead.runtime.pid) == (2, False, runtime.pid)
        assert not dead.runtime.HasField("started_at")
        repo.running(os.getpid())
        reborn = next(stream)
        assert (reborn.runtime.pid, reborn.runtime.alive) == (os.getpid(), True)
        (repo.root / ".superloop" / "active-run.json").unlink()
        assert not next(stream).HasField("runtime")
        assert time.monotonic() - started < 3 * AT_ONCE_SECONDS
        stream.close()  # type: ignore[attr-defined]


def test_heartbeats_go_on_whatever_the_runtimes_files_hold(
    repo: Repo, loop: LoopFiles, start: StartAgent
) -> None:
    with start().stub() as stub:
        stream = beats(stub, 0.25)
        next(stream)
        active = repo.root / ".superloop" / "active-run.json"
        for content in ("{half", "[]", '{"pid":1,"loop_id":"../.."}', '{"pid":1,"stage":"\\ud800"}'):
            active.write_text(content)
            next(stream)
        loop.log.unlink()
        active.write_text(json.dumps({"pid": os.getpid(), "loop_id": "alpha"}))
        wait_for(lambda: next(stream).runtime.alive)
        stream.close()  # type: ignore[attr-defined]


def test_file_is_kept_while_the_loop_runs_and_no_longer(
    repo: Repo, loop: LoopFiles, start: StartAgent, runtime: "subprocess.Popen[bytes]"
) -> None:
    agent = start("--heartbeat-interval", "0.25")

    def sequence() -> int:
        return int(json.loads(loop.heartbeat.read_bytes())["sequence"]) if loop.heartbeat.exists() else 0

    with agent.stub() as stub:
        next(beats(stub))
    assert sequence() == 0
    repo.running(runtime.pid)
    first = wait_for(sequence, what="a heartbeat file")
    wait_for(lambda: sequence() > first + 1, what="further heartbeats")
    document = json.loads(loop.heartbeat.read_bytes())
    assert document["writer"] == "sprite-agent"
    assert document["process"]["pid"] == runtime.pid
    runtime.kill()
    runtime.wait()
    stopped = sequence()
    # The write that was under way may still come, and none after it.
    time.sleep(0.8)
    assert sequence() <= stopped + 1


def test_foreign_heartbeat_reaches_the_snapshot_untouched(
    repo: Repo, loop: LoopFiles, start: StartAgent
) -> None:
    loop.append(event(1))
    foreign = '{"timestamp":"2026-02-22T03:45:00Z"}'
    loop.heartbeat.write_text(foreign)
    repo.running(os.getpid())
    agent = start("--heartbeat-interval", "0.25")
    with agent.stub() as stub:
        stream = beats(stub, 0.25)
        for _ in range(3):
            next(stream)
        stream.close()  # type: ignore[attr-defined]
        snapshot = stub.GetSnapshot(sprite_pb2.GetSnapshotRequest(loop_id="alpha"), metadata=BEARER).snapshot
    assert snapshot.runtime.heartbeat.json == foreign
    assert loop.heartbeat.read_text() == foreign


def test_disk_that_refuses_the_file_stops_nothing(repo: Repo, loop: LoopFiles, start: StartAgent) -> None:
    """A directory in the place of the temporary file: every write fails, as on a full disk."""
    repo.running(os.getpid())
    agent = start("--heartbeat-interval", "0.25")
    (loop.directory / "heartbeat.v1.json.tmp").mkdir()
    with agent.stub() as stub:
        wait_for(lambda: "state_unwritable" in agent.said(), what="the failure to be logged")
        assert next(beats(stub)).agent.pid == agent.process.pid
    assert "Traceback" not in agent.said()
