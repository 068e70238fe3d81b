"""The agent's metrics, read when they are scraped (docs/metrics.md)."""

import os
from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import PROCESS_COLLECTOR

from sprite_agent.counts import OK, AnsweredControl, Counts, EndedCall
from sprite_agent.desk import ControlDesk
from sprite_agent.drain import Drain
from sprite_agent.heartbeat import HeartbeatSource
from sprite_agent.lag import LagProbe
from sprite_agent.runtime.layout import loop_paths
from sprite_agent.runtime.repository import Repository
from sprite_agent.usage import Usage, UsageMoment
from spritemesh import __version__

# Loops with series of their own: those whose logs were written last. The others are summed.
MAX_LOOPS = 50
# No loop has this id, since no directory has this name.
OTHER_LOOPS = "/other"


class AgentMetrics:
    """Takes snapshots of an agent; of its event loop."""

    def __init__(
        self,
        repository: Repository,
        heartbeats: HeartbeatSource,
        lag: LagProbe,
        drain: Drain,
        desk: ControlDesk,
        counts: Counts,
        methods: tuple[str, ...],
        usage: Usage,
    ) -> None:
        """methods: full names of the gRPC methods served, whose calls that ended well are told from 0 on."""
        self._repository = repository
        self._heartbeats = heartbeats
        self._lag = lag
        self._drain = drain
        self._desk = desk
        self._counts = counts
        self._methods = methods
        self._usage = usage

    def snapshot(self) -> "AgentCollector":
        """The agent as it is now; its files are read when this is collected."""
        calls = {EndedCall("grpc", method, OK): 0 for method in self._methods}
        moment = Moment(
            draining=self._drain.started,
            lag_seconds=self._lag.seconds,
            usage=self._usage.moment(),
            operations=self._desk.running,
            operations_limit=self._desk.max_operations,
            calls=calls | self._counts.calls,
            controls=dict(self._counts.controls),
        )
        return AgentCollector(moment, self._repository, self._heartbeats)


class Moment(NamedTuple):
    """What the event loop knows at one moment."""

    draining: bool
    lag_seconds: float
    usage: UsageMoment
    operations: int
    operations_limit: int
    calls: dict[EndedCall, int]
    controls: dict[AnsweredControl, int]


class AgentCollector:
    """Makes metrics of a moment and of the repository's files; of any thread."""

    def __init__(self, moment: Moment, repository: Repository, heartbeats: HeartbeatSource) -> None:
        self._moment = moment
        self._repository = repository
        self._heartbeats = heartbeats

    def collect(self) -> Iterator[Metric]:
        """All families, in the order of docs/metrics.md."""
        now = self._moment
        yield InfoMetricFamily("sprite_agent", "Version of this program; always 1.", {"version": __version__})
        yield _gauge("draining", "1 once the agent is shutting down.", now.draining)
        yield _gauge(
            "event_loop_lag_seconds",
            "How late the event loop woke up, the worst of the last few seconds.",
            now.lag_seconds,
        )
        yield _gauge("streams", "Streams open now.", now.usage.streams)
        yield _gauge("streams_limit", "Streams that may be open.", now.usage.limits.streams)
        yield _gauge(
            "connection_calls_max",
            "Calls open now on the connection with the most.",
            now.usage.connection_calls,
        )
        yield _gauge(
            "loop_subscribers_max",
            "Event streams, or trace streams, open now of the loop with the most.",
            now.usage.subscribers,
        )
        yield _gauge("http_connections", "Connections over HTTP open now.", now.usage.http_connections)
        limits = _gauge("limit", "A limit, by its name in --limit.", labels=("limit",))
        for name, value in now.usage.named_limits():
            limits.add_metric((name,), value)
        yield limits
        calls = CounterMetricFamily(
            "sprite_agent_calls", "Calls that ended, streams included.", labels=EndedCall._fields
        )
        for call in sorted(now.calls):
            calls.add_metric(call, now.calls[call])
        yield calls
        controls = CounterMetricFamily(
            "sprite_agent_control_requests",
            "Control requests by how they ended.",
            labels=AnsweredControl._fields,
        )
        for control in sorted(now.controls):
            controls.add_metric(control, now.controls[control])
        yield controls
        yield _gauge("control_operations", "Control operations under way.", now.operations)
        yield _gauge(
            "control_operations_limit", "Control operations that may be under way.", now.operations_limit
        )
        yield self._runtime()
        yield from self._loops()
        yield from PROCESS_COLLECTOR.collect()

    def _runtime(self) -> Metric:
        run = self._heartbeats.active_run()
        alive = None if run is None else run.process is not None
        return _gauge("runtime_alive", "1: the process of the run on record lives; 0: it is dead.", alive)

    def _loops(self) -> Iterator[Metric]:
        """Sizes of the logs. A log that nobody asked for is not read for its lines: it may be large."""
        logs = sorted(self._logs(), key=lambda log: (-log.written_at, log.loop_id))
        counted = self._repository.counted_lines()
        sizes = _gauge("loop_log_bytes", "Size of the event log.", labels=("loop",))
        lines = _gauge(
            "loop_log_lines", "Complete lines of the event log when it was last read.", labels=("loop",)
        )
        for log in logs[:MAX_LOOPS]:
            sizes.add_metric((log.loop_id,), log.size)
            if log.loop_id in counted:
                lines.add_metric((log.loop_id,), counted[log.loop_id])
        rest = logs[MAX_LOOPS:]
        if rest:
            sizes.add_metric((OTHER_LOOPS,), sum(log.size for log in rest))
            lines.add_metric((OTHER_LOOPS,), sum(counted.get(log.loop_id, 0) for log in rest))
        yield _gauge("loops", "Loops on disk.", len(logs))
        yield sizes
        yield lines

    def _logs(self) -> Iterator["_Log"]:
        for loop_id in self._repository.loop_ids():
            try:
                status = os.stat(os.path.join(self._repository.path, loop_paths(loop_id).events))
            except OSError:
                yield _Log(loop_id, 0, 0)  # a loop that has not begun
            else:
                yield _Log(loop_id, status.st_mtime_ns, status.st_size)


class _Log(NamedTuple):
    """An event log. written_at: nanoseconds since 1970. size: bytes."""

    loop_id: str
    written_at: int
    size: int


def _gauge(
    name: str, documentation: str, value: float | None = None, *, labels: tuple[str, ...] | None = None
) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"sprite_agent_{name}", documentation, value, labels)
