"""What an agent tells of itself and of its loops."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sprite_agent.control import ControlPlane
from sprite_agent.counts import CANCELLED, OK, Counts
from sprite_agent.desk import ControlDesk
from sprite_agent.drain import Drain
from sprite_agent.heartbeat import HeartbeatSource
from sprite_agent.lag import LagProbe
from sprite_agent.limits import Limits
from sprite_agent.metrics import MAX_LOOPS, OTHER_LOOPS, AgentMetrics
from sprite_agent.runtime.repository import Repository
from sprite_agent.usage import Usage
from spritemesh.errors import OpsError
from spritemesh.ids import validate_loop_id
from tests.harness.control import Runtime, request
from tests.harness.loops import Repo, event, events
from tests.harness.metrics import Scrape, scrape_of


class Parts:
    """An agent's parts that metrics are read from."""

    def __init__(self, repo: Repo, runtime: Runtime) -> None:
        self.repository = Repository(str(repo.root))
        self.lag = LagProbe()
        self.heartbeats = HeartbeatSource(self.repository, self.lag)
        self.drain = Drain(lambda: None, 3)
        self.counts = Counts()
        plane = ControlPlane(self.repository, runtime=str(runtime.path))
        self.desk = ControlDesk(plane, max_operations=2, counts=self.counts)
        self._metrics = AgentMetrics(
            self.repository,
            self.heartbeats,
            self.lag,
            self.drain,
            self.desk,
            self.counts,
            ("a.B/C", "a.B/D"),
            Usage(
                Limits(streams=3),
                streams=lambda: self.drain.open_streams,
                connection_calls=lambda: 7,
                subscribers=lambda: 5,
                http_connections=lambda: 2,
            ),
        )

    def scrape(self) -> Scrape:
        return scrape_of(self._metrics.snapshot())

    def close(self) -> None:
        self.desk.close()
        self.repository.close()


@pytest.fixture
def parts(repo: Repo, tmp_path: Path) -> Iterator[Parts]:
    found = Parts(repo, Runtime(tmp_path / "program"))
    yield found
    found.close()


def test_an_idle_agent_tells_all_that_docs_tell(parts: Parts) -> None:
    found = parts.scrape()
    found.check("sprite_agent", "Agent")
    assert found.value("sprite_agent_loops") == 0
    assert not found.families["sprite_agent_runtime_alive"].samples


def test_the_first_control_request_of_each_kind_is_growth(parts: Parts) -> None:
    found = parts.scrape().families["sprite_agent_control_requests_total"].samples
    counts = {
        (sample.labels["intent"], sample.labels["status"]): sample.value
        for sample in found
        if sample.name.endswith("_total")
    }
    assert counts["approve", "ambiguous"] == counts["cancel", "refused"] == 0
    assert len(counts) == 3 * 6
    parts.counts.control_answered("approve", "ambiguous")
    assert (
        parts.scrape().value("sprite_agent_control_requests_total", intent="approve", status="ambiguous") == 1
    )


def test_a_busy_agent_tells_all_that_docs_tell(parts: Parts, repo: Repo) -> None:
    repo.loop("alpha", events(1, 3))
    repo.running(os.getpid())
    parts.counts.call_ended("grpc", "a.B/C", OK)
    parts.counts.control_answered("cancel", "confirmed")
    parts.scrape().check("sprite_agent", "Agent")


def test_streams_and_drain_are_those_of_now(parts: Parts) -> None:
    with parts.drain.stream(), parts.drain.stream():
        found = parts.scrape()
        assert found.value("sprite_agent_streams") == 2
        assert found.value("sprite_agent_streams_limit") == 3
        assert found.value("sprite_agent_draining") == 0
    parts.drain.start()
    found = parts.scrape()
    assert found.value("sprite_agent_streams") == 0
    assert found.value("sprite_agent_draining") == 1


def test_calls_are_counted_by_method_and_reason_from_0_on(parts: Parts) -> None:
    for reason in (OK, OK, CANCELLED, "token_wrong"):
        parts.counts.call_ended("grpc", "a.B/C", reason)
    found = parts.scrape()
    calls = "sprite_agent_calls_total"
    assert found.value(calls, edge="grpc", method="a.B/C", reason="ok") == 2
    assert found.value(calls, edge="grpc", method="a.B/D", reason="ok") == 0
    assert found.values(calls, "reason") == {"ok": 2, "cancelled": 1, "token_wrong": 1}


async def test_control_is_counted_by_how_it_ended(parts: Parts, repo: Repo) -> None:
    repo.loop("alpha", event(1, "iteration_start"))
    parts.desk.max_operations = 0
    with pytest.raises(OpsError):
        await parts.desk.execute(request("cancel", "key-0", even_if_nothing_pending=True))
    parts.desk.max_operations = 2
    asked = request("approve", "key-1", even_if_nothing_pending=True)
    await parts.desk.execute(asked)
    await parts.desk.execute(asked)
    with pytest.raises(OpsError):
        await parts.desk.execute(request("stop everything", "key-2"))
    found = parts.scrape()
    requests = "sprite_agent_control_requests_total"
    assert found.value(requests, intent="cancel", status="refused") == 1
    assert found.value(requests, intent="approve", status="executed_unconfirmed") == 1
    assert found.value(requests, intent="approve", status="replayed") == 1
    assert found.value(requests, intent="_unknown", status="refused") == 1
    assert found.value("sprite_agent_control_operations") == 0
    assert found.value("sprite_agent_control_operations_limit") == 2


def test_a_log_is_told_by_its_size_and_its_lines_once_somebody_asked_for_it(parts: Parts, repo: Repo) -> None:
    loop = repo.loop("alpha", events(1, 3))
    found = parts.scrape()
    assert found.value("sprite_agent_loop_log_bytes", loop="alpha") == len(events(1, 3))
    assert not found.families["sprite_agent_loop_log_lines"].samples
    parts.repository.loop("alpha").head()
    assert parts.scrape().value("sprite_agent_loop_log_lines", loop="alpha") == 3
    loop.append(events(4, 4))
    assert parts.scrape().value("sprite_agent_loop_log_bytes", loop="alpha") == len(events(1, 4))


def test_a_loop_without_a_log_counts(parts: Parts, repo: Repo) -> None:
    repo.loop("alpha", None)
    found = parts.scrape()
    assert found.value("sprite_agent_loops") == 1
    assert found.value("sprite_agent_loop_log_bytes", loop="alpha") == 0


def test_the_runtime_of_the_run_on_record_lives_or_is_dead(parts: Parts, repo: Repo) -> None:
    repo.running(os.getpid())
    assert parts.scrape().value("sprite_agent_runtime_alive") == 1
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    repo.running(dead.pid)
    parts.heartbeats.look_for_run()
    assert parts.scrape().value("sprite_agent_runtime_alive") == 0


def test_3000_loops_make_51_series_of_each_kind_the_newest_first(parts: Parts, repo: Repo) -> None:
    for number in range(3000):
        log = repo.loop(f"loop-{number:04}", b"12345\n").log
        os.utime(log, (number, number))
    found = parts.scrape()
    sizes = found.values("sprite_agent_loop_log_bytes", "loop")
    assert len(sizes) == MAX_LOOPS + 1
    assert next(iter(sizes)) == "loop-2999"
    assert sizes[OTHER_LOOPS] == 6 * (3000 - MAX_LOOPS)
    assert found.value("sprite_agent_loops") == 3000
    assert found.series() < 200


def test_no_loop_has_the_name_of_the_others() -> None:
    with pytest.raises(OpsError):
        validate_loop_id(OTHER_LOOPS)
