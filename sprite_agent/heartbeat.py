"""The agent's heartbeat: what it says on a stream, and what it leaves in heartbeat.v1.json.

No runtime writes that file today, though the manager's freshness rests on it (contract L11). So the
agent keeps it, for the loop that active-run.json names, as long as that process lives: the file then
says what it is read for, that the runtime is alive. It is marked, and a file without the mark is never
touched.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from sprite_agent.lag import LagProbe
from sprite_agent.runtime.feed import duration
from sprite_agent.runtime.layout import loop_paths
from sprite_agent.runtime.lines import log_head
from sprite_agent.runtime.ownheartbeat import is_own
from sprite_agent.runtime.process import ActiveRun, ProcessFacts, RunReader, own_facts
from sprite_agent.runtime.repository import Repository
from sprite_agent.runtime.statefiles import StateFiles
from sprite_agent.runtime.tracemark import trace_mark
from spritemesh import __version__, jsontext
from spritemesh.errors import OpsError
from spritemesh.files import write_atomic
from spritemesh.heartbeat import RuntimeFacts, heartbeat_document
from superloop.ops.v1 import sprite_pb2

DEFAULT_INTERVAL_SECONDS = 5.0
MIN_INTERVAL_SECONDS = 0.25
MAX_INTERVAL_SECONDS = 60.0
# Streams that are told of a change together share a look.
_SHARED_SECONDS = 0.2

_T = TypeVar("_T")
_log = logging.getLogger("sprite_agent")


class _Shared(Generic[_T]):
    """What `look` found, found anew when it is too old for who asks; whoever asks meanwhile waits for it."""

    def __init__(self, look: Callable[[], _T]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._found: tuple[float, _T] | None = None

    @property
    def latest(self) -> _T | None:
        """The last that was found, without looking."""
        found = self._found
        return None if found is None else found[1]

    def get(self, max_age: float = _SHARED_SECONDS) -> _T:
        with self._lock:
            if self._found is None or time.monotonic() - self._found[0] >= max_age:
                self._found = (time.monotonic(), self._look())
            return self._found[1]


class HeartbeatSource:
    """Makes heartbeats of one repository. traces: further trace files, as TelemetryService has them."""

    def __init__(self, repository: Repository, lag: LagProbe, traces: Sequence[str] = ()) -> None:
        self.repository = repository
        self._traces = traces
        self._lag = lag
        self._files = StateFiles(repository.path)
        self._active_path = loop_paths("any").active_run
        self._run = _Shared(RunReader(self._files, self._active_path).read)
        self._facts: _Shared[ProcessFacts] = _Shared(own_facts)
        self._started_at = own_facts().started_at

    @property
    def latest_run(self) -> ActiveRun | None:
        """The run as whoever looked last found it; never older than what a heartbeat has told."""
        return self._run.latest

    def active_run(self) -> ActiveRun | None:
        """The run that active-run.json named at most 0.2 s ago, and whether its process lived.

        All streams share the look, so that they cost no more together than one of them.
        """
        return self._run.get()

    def look_for_run(self) -> ActiveRun | None:
        """As active_run, of this moment."""
        return self._run.get(0)

    def is_quick(self, loop_id: str) -> bool:
        """Whether beat() takes a fraction of a millisecond now: no file that it tells of has changed."""
        run = self.latest_run
        named = loop_id or (run.loop_id if run is not None else "")
        return self._files.is_current(self._active_path) and (
            not named or self.repository.loop(named).log.refresh_if_idle() is not None
        )

    def beat(self, sequence: int, loop_id: str, interval: float, *, draining: bool) -> sprite_pb2.Heartbeat:
        """One heartbeat. loop_id "": the loop that active-run.json names. Reads files; call in a thread
        unless is_quick."""
        run = self.active_run()
        facts = self._facts.get()
        identity = self.repository.identity
        heartbeat = sprite_pb2.Heartbeat(
            sequence=sequence,
            boot_id=identity.boot_id,
            sprite_id=identity.sprite_id,
            granted_interval=duration(interval),
            agent=sprite_pb2.AgentFacts(
                version=__version__,
                pid=os.getpid(),
                rss_bytes=facts.rss_bytes,
                cpu_time=duration(facts.cpu_seconds),
                event_loop_lag=duration(self._lag.seconds),
                draining=draining,
            ),
            loop_id=loop_id or (run.loop_id if run is not None else ""),
        )
        heartbeat.sent_at.FromNanoseconds(time.time_ns())
        heartbeat.agent.started_at.FromNanoseconds(int(self._started_at * 1e9))
        resumption = self._lag.resumption
        if resumption is not None:
            heartbeat.agent.resumed_at.FromNanoseconds(int(resumption.at * 1e9))
            heartbeat.agent.suspended_for.CopyFrom(duration(resumption.seconds))
        if run is not None:
            _describe_runtime(heartbeat.runtime, run)
        if heartbeat.loop_id:
            try:
                heartbeat.head.CopyFrom(log_head(self.repository.loop(heartbeat.loop_id).head()))
            except OpsError:
                heartbeat.ClearField("head")
            with suppress(OpsError):
                heartbeat.trace_mark = trace_mark(self.repository.path, heartbeat.loop_id, self._traces)
        return heartbeat


class HeartbeatFile:
    """Keeps heartbeat.v1.json of the running loop."""

    def __init__(self, source: HeartbeatSource, interval: float) -> None:
        self._source = source
        self._interval = interval
        self._sequence = 0

    async def run(self) -> None:
        """Write at the interval until cancelled; a failure is logged and tried again."""
        while True:
            try:
                await asyncio.to_thread(self.write_once)
            except OpsError as error:
                _log.warning("%s: %s", error.reason, error.message)
            except Exception as error:
                # It would take the agent along, which can do all else without the file.
                _log.error("agent_fault: heartbeat.v1.json was not written", exc_info=error)
            # At multiples of the interval, when other timers of the event loop are due as well.
            await asyncio.sleep(self._interval - time.monotonic() % self._interval)

    def write_once(self) -> bool:
        """Write the file if a run lives and the file is ours or missing; say whether it was written."""
        run = self._source.look_for_run()
        if run is None or run.process is None or not run.loop_id:
            return False
        paths = loop_paths(run.loop_id)
        repo = self._source.repository.path
        if not os.path.isdir(os.path.join(repo, paths.directory)):
            return False
        path = os.path.join(repo, paths.heartbeat)
        if os.path.lexists(path) and not is_own(path):
            return False
        self._sequence += 1
        process = run.process
        document = heartbeat_document(
            RuntimeFacts(run.pid, process.started_at, process.rss_bytes, process.cpu_seconds),
            now=time.time(),
            agent_version=__version__,
            boot_id=self._source.repository.boot_id,
            sequence=self._sequence,
            interval=self._interval,
            loop_id=run.loop_id,
            stage=run.stage,
        )
        write_atomic(path, jsontext.encode(document) + b"\n")
        return True


def grant_interval(wanted: float | None, default: float = DEFAULT_INTERVAL_SECONDS) -> float:
    """The interval that is granted for a wanted one, seconds."""
    if wanted is None:
        return default
    return min(max(wanted, MIN_INTERVAL_SECONDS), MAX_INTERVAL_SECONDS)


def _describe_runtime(message: sprite_pb2.RuntimeProcess, run: ActiveRun) -> None:
    message.pid = run.pid
    message.loop_id = run.loop_id
    message.stage = run.stage
    if run.process is not None:
        message.alive = True
        message.started_at.FromNanoseconds(int(run.process.started_at * 1e9))
        message.rss_bytes = run.process.rss_bytes
        message.cpu_time.CopyFrom(duration(run.process.cpu_seconds))
