"""The manager's metrics, read from the board when they are scraped (docs/metrics.md)."""

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import PROCESS_COLLECTOR

from manager.core.health import CRITICAL, DEGRADED
from manager.core.session_record import state_word
from manager.fleet.board import Board
from manager.fleet.document import heartbeat_age, lag_lines
from sprite_agent.counts import Counts, EndedCall
from sprite_agent.usage import Usage, UsageMoment
from spritemesh import __version__
from spritemesh.reasons import REASONS
from superloop.ops.v1 import manager_pb2 as pb

# Loops with series of their own: those in worst health.
MAX_LOOPS = 500
_HEALTHY = "healthy"
_UNKNOWN_HEALTH = "unknown"
# Worst first. What is not known may be bad, what is known to be bad is.
_HEALTH = (CRITICAL, DEGRADED, _UNKNOWN_HEALTH, _HEALTHY)
_UNKNOWN_LABEL = "_unknown"
_CONNECTION = pb.ConnectionView.State.items()
_AGENT = pb.AgentView.State.items()
_RUNTIME = pb.RuntimeView.State.items()
# By field of SessionCounts.
_TOTALS = {
    "events": ("events_applied", "Events applied."),
    "replayed": ("events_replayed", "Events that came again and were dropped."),
    "quarantined": ("lines_quarantined", "Lines that are no events."),
    "gaps": ("batch_gaps", "Batches that did not follow the one before."),
    "resets": ("log_resets", "Logs that were replaced, rewritten or truncated."),
    "disconnects": ("disconnects", "Connections lost."),
    "commits": ("commits", "Commits to disk."),
    "commit_failures": ("commit_failures", "Commits that failed."),
    "trace_lines": ("trace_lines", "Lines of the runtimes' traces that were stored."),
    "trace_failures": (
        "trace_failures",
        "Streams of traces that were lost, lines of them that are no trace events, and writes that failed.",
    ),
}


class FleetMetrics:
    """Takes snapshots of a board; of its event loop. clock: seconds since 1970. counts, usage: of the server
    that tells of the fleet; None without one."""

    def __init__(
        self,
        board: Board,
        clock: Callable[[], float] = time.time,
        *,
        counts: Counts | None = None,
        usage: Usage | None = None,
    ) -> None:
        self._board = board
        self._clock = clock
        self._counts = counts or Counts()
        self._usage = usage

    def snapshot(self) -> "FleetCollector":
        """The fleet as it is now."""
        departed = pb.SessionCounts()
        departed.CopyFrom(self._board.departed)
        usage = None if self._usage is None else self._usage.moment()
        served = Served(dict(self._counts.calls), usage)
        return FleetCollector(self._board.views(), departed, self._clock(), served)


class Served(NamedTuple):
    """What the manager's own server did and does. usage None: there is none."""

    calls: dict[EndedCall, int]
    usage: UsageMoment | None


class FleetCollector:
    """Makes metrics of views that nobody changes any more; of any thread.

    departed: what sessions counted that are no more. now: seconds since 1970.
    """

    def __init__(
        self, views: list[pb.LoopView], departed: pb.SessionCounts, now: float, served: Served
    ) -> None:
        self._views = views
        self._departed = departed
        self._now = now
        self._served = served

    def collect(self) -> Iterator[Metric]:
        """All families, in the order of docs/metrics.md."""
        yield InfoMetricFamily("ops_manager", "Version of this program; always 1.", {"version": __version__})
        yield _gauge("loops", "Loops of the fleet.", len(self._views))
        yield from self._by_state()
        yield from self._by_reason()
        yield from self._distances()
        for field, (name, documentation) in _TOTALS.items():
            total = sum((getattr(view.counts, field) for view in self._views), getattr(self._departed, field))
            yield CounterMetricFamily(f"ops_manager_{name}", documentation, total)
        yield from self._server()
        yield from self._loops()
        yield from PROCESS_COLLECTOR.collect()

    def _by_state(self) -> Iterator[Metric]:
        views = self._views
        connection = (view.connection.state for view in views)
        yield _states("connection", "Loops by state of the way to them.", _CONNECTION, connection)
        agent = (view.agent.state for view in views)
        yield _states("agent", "Loops by state of their agent.", _AGENT, agent)
        runtime = (view.runtime.state for view in views)
        yield _states("runtime", "Loops by state of their runtime's process.", _RUNTIME, runtime)
        health = Counter(_health(view) for view in views)
        family = _gauge("loops_by_health", "Loops by health.", labels=("status",))
        for status in _HEALTH:
            family.add_metric((status,), health[status])
        yield family

    def _by_reason(self) -> Iterator[Metric]:
        named = Counter(code for view in self._views for code in {_label(code) for code in view.reason_codes})
        frozen = Counter(_label(view.control_frozen) for view in self._views if view.control_frozen)
        for name, documentation, counts in (
            ("loops_by_reason", "Loops whose health names the reason.", named),
            ("loops_control_frozen", "Loops whose control is frozen, by why.", frozen),
        ):
            family = _gauge(name, documentation, labels=("reason",))
            for code in sorted(counts):
                family.add_metric((code,), counts[code])
            yield family
        waiting = sum(view.awaits_approval for view in self._views)
        yield _gauge("loops_awaiting_approval", "Loops whose runtime waits for an approval.", waiting)

    def _distances(self) -> Iterator[Metric]:
        views = self._views
        lags = [lag_lines(view) for view in views]
        uncommitted = sum(max(0, view.applied_line - view.committed_line) for view in views)
        enabled = (view for view in views if view.connection.state != pb.ConnectionView.STATE_DISABLED)
        ages = [age for age in (heartbeat_age(view, self._now) for view in enabled) if age is not None]
        yield _gauge("lag_lines", "Lines that wait to be applied, of all loops.", sum(lags))
        yield _gauge(
            "lag_lines_max", "Lines that wait to be applied, of the loop with the most.", max(lags, default=0)
        )
        yield _gauge(
            "uncommitted_lines", "Lines applied that are not on disk yet, of all loops.", uncommitted
        )
        yield _gauge(
            "oldest_heartbeat_age_seconds",
            "Age of the oldest last heartbeat of the enabled loops.",
            max(ages, default=None),
        )

    def _server(self) -> Iterator[Metric]:
        calls = CounterMetricFamily(
            "ops_manager_calls",
            "Calls of the manager that ended, streams included.",
            labels=EndedCall._fields,
        )
        for call in sorted(self._served.calls):
            calls.add_metric(call, self._served.calls[call])
        yield calls
        usage = self._served.usage
        streams = None if usage is None else usage.streams
        most = None if usage is None else usage.connection_calls
        yield _gauge("streams", "Streams that subscribers of the fleet have open now.", streams)
        yield _gauge("connection_calls_max", "Calls open now on the connection with the most.", most)
        limits = _gauge("limit", "A limit, by its name in --limit.", labels=("limit",))
        for name, value in () if usage is None else usage.named_limits():
            limits.add_metric((name,), value)
        yield limits

    def _loops(self) -> Iterator[Metric]:
        shown = heapq.nsmallest(MAX_LOOPS, self._views, key=_urgency)
        health = _gauge(
            "loop_health", "1 for the loop's health, 0 for the others.", labels=("loop", "status")
        )
        connected = _gauge("loop_connected", "1: both streams of the loop are open.", labels=("loop",))
        lag = _gauge("loop_lag_lines", "Lines that wait to be applied.", labels=("loop",))
        age = _gauge("loop_heartbeat_age_seconds", "Age of the last heartbeat.", labels=("loop",))
        for view in shown:
            loop, found = (view.loop_id,), _health(view)
            for status in _HEALTH:
                health.add_metric((view.loop_id, status), status == found)
            connected.add_metric(loop, view.connection.state == pb.ConnectionView.STATE_UP)
            lag.add_metric(loop, lag_lines(view))
            seconds = heartbeat_age(view, self._now)
            if seconds is not None:
                age.add_metric(loop, seconds)
        yield _gauge("loops_shown", "Loops with series of their own.", len(shown))
        yield _gauge("loops_not_shown", "Loops of the fleet without.", len(self._views) - len(shown))
        yield from (health, connected, lag, age)


def _health(view: pb.LoopView) -> str:
    return view.health_status if view.health_status in _HEALTH else _UNKNOWN_HEALTH


def _urgency(view: pb.LoopView) -> tuple[int, str]:
    return _HEALTH.index(_health(view)), view.loop_id


def _label(code: str) -> str:
    """A code as a label: few values, whatever agents say."""
    return code if code in REASONS else _UNKNOWN_LABEL


def _states(
    what: str, documentation: str, states: Iterable[tuple[str, int]], found: Iterable[int]
) -> GaugeMetricFamily:
    """Loops by state, those of no loop included. What was never said counts as the first state."""
    counts = Counter[int](found)
    family = _gauge(f"loops_by_{what}", documentation, labels=("state",))
    for name, number in states:
        if number:
            count = counts[number] + (counts[0] if number == 1 else 0)
            family.add_metric((state_word(name),), count)
    return family


def _gauge(
    name: str, documentation: str, value: float | None = None, *, labels: tuple[str, ...] | None = None
) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"ops_manager_{name}", documentation, value, labels)
