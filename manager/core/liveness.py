"""Three livenesses of a loop that is watched: connection, agent, runtime; never merged into one.

Pure: times come in. `now` is epoch seconds of the manager's clock; what an agent says of its own clock is
compared with it, never used in its place.
"""

from typing import NamedTuple

from manager.core.health import CRITICAL, DEGRADED, Condition
from spritemesh.heartbeat import RuntimeFacts, heartbeat_document
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc
from superloop.ops.v1 import manager_pb2, sprite_pb2

Connection = manager_pb2.ConnectionView.State
Agent = manager_pb2.AgentView.State
Runtime = manager_pb2.RuntimeView.State
# Looked up once: a wrapper of an enum looks each name up anew, and heartbeats come by hundreds a second.
_UP, _DOWN, _CONNECTING = Connection.STATE_UP, Connection.STATE_DOWN, Connection.STATE_CONNECTING
_RUNTIME_UNKNOWN, _IDLE = Runtime.STATE_UNKNOWN, Runtime.STATE_IDLE
_ALIVE, _DEAD = Runtime.STATE_ALIVE, Runtime.STATE_DEAD

# Heartbeats missing in a row that make an agent silent.
SILENT_INTERVALS = 3
# An agent's clock may differ by so much, seconds.
SKEW_SECONDS = 5.0
# A run whose process has just ended may be about to say so in its files, seconds.
DEAD_GRACE_SECONDS = 3.0
# Heartbeats that a slow way delays look like a clock that is behind; so often it is asked for proof, seconds.
PROBE_SECONDS = 30.0
_DEFAULT_INTERVAL = 5.0


class Record(NamedTuple):
    """Something worth a line in telemetry/session.jsonl."""

    reason: str
    detail: dict[str, JSON]


class AgentStart(NamedTuple):
    """Which start of an agent is heard. started_at: on its own clock."""

    boot_id: str
    pid: int
    started_at: float


class Liveness:
    """What heartbeats, connections and their absence say of one loop."""

    def __init__(self, loop_id: str, now: float) -> None:
        self.loop_id = loop_id
        self.connection: Connection.ValueType = Connection.STATE_WAITING
        self.connection_reason = ""
        self.connection_since = now
        self.failures = 0
        self.retry_at: float | None = None
        self.heartbeat: sprite_pb2.Heartbeat | None = None
        self.heartbeat_at: float | None = None
        self.interval = _DEFAULT_INTERVAL  # seconds between heartbeats, as granted
        self.draining = False
        self.start: AgentStart | None = None
        self.sprite_id = ""
        # Bounds of the agent's clock less ours, as proven by a round trip; then by heartbeats from below.
        self.clock_offset: float | None = None
        self.alive_at: float | None = None
        self._alive: sprite_pb2.Heartbeat | None = None  # the last that said that the runtime lives
        self._dead_since: float | None = None
        self._resumed_at = 0.0
        self._probe_due = 0.0
        self.silent = False
        # As the last heartbeat tells; nobody knows of it while the agent is silent.
        self.runtime: Runtime.ValueType = _RUNTIME_UNKNOWN

    # --- connection ---------------------------------------------------------------------------------

    def connecting(self, now: float) -> None:
        self._connect(_CONNECTING, now)

    def up(self, now: float) -> int:
        """Both streams answer. Returns how many tries had failed before."""
        failures, self.failures, self.retry_at = self.failures, 0, None
        self.connection_reason = ""
        self._connect(_UP, now)
        return failures

    def down(self, reason: str, retry_at: float, now: float) -> None:
        self.failures += 1
        self.retry_at = retry_at
        self.connection_reason = reason
        self._connect(_DOWN, now)

    def waiting(self, reason: str, now: float) -> None:
        """For something of ours, such as the loop's lock."""
        self.connection_reason = reason
        self._connect(Connection.STATE_WAITING, now)

    def _connect(self, state: Connection.ValueType, now: float) -> None:
        down_and_up = {_DOWN, _CONNECTING}
        if state != self.connection:
            # A try between two failures does not make the connection any younger.
            if not {state, self.connection} <= down_and_up:
                self.connection_since = now
            self.connection = state

    # --- the agent's clock --------------------------------------------------------------------------

    def round_trip(self, sent: float, theirs: float, received: float) -> list[Record]:
        """The agent said `theirs` between our `sent` and `received`: that proves how its clock stands."""
        low, high = theirs - received, theirs - sent
        before = self.is_skewed
        self.clock_offset = low if low > 0 else high if high < 0 else 0.0
        return self._skew_record(before)

    @property
    def is_skewed(self) -> bool:
        return self.clock_offset is not None and abs(self.clock_offset) > SKEW_SECONDS

    def wants_probe(self, now: float) -> bool:
        """Whether a heartbeat looked older than it may be, so that only a round trip can tell why."""
        return self._probe_due > 0 and now >= self._probe_due

    def probed(self, now: float) -> None:
        """A round trip was tried."""
        self._probe_due = -(now + PROBE_SECONDS)

    def _learn_clock(self, ahead: float, now: float) -> list[Record]:
        """A heartbeat said a time `ahead` of ours: its clock is ahead by as much or more, never by less."""
        before = self.is_skewed
        if ahead > SKEW_SECONDS:
            self.clock_offset = ahead
        elif ahead >= -SKEW_SECONDS:
            # What is behind is delay or truth; within bounds both ways it is no skew.
            if before or self.clock_offset is None:
                self.clock_offset = max(0.0, ahead)
            self._probe_due = min(self._probe_due, 0.0)
        elif self._probe_due == 0 or (self._probe_due < 0 and now >= -self._probe_due):
            self._probe_due = now
        return self._skew_record(before)

    def _skew_record(self, before: bool) -> list[Record]:
        if self.is_skewed == before:
            return []
        seconds = round(self.clock_offset or 0.0, 1)
        return [Record("clock_skew", {"active": self.is_skewed, "offsetSeconds": seconds})]

    # --- heartbeats ---------------------------------------------------------------------------------

    def beat(self, heartbeat: sprite_pb2.Heartbeat, now: float) -> list[Record]:
        """Take a heartbeat; what it tells anew."""
        agent = heartbeat.agent
        sent_at = heartbeat.sent_at
        records = self._learn_clock(sent_at.seconds + sent_at.nanos / 1e9 - now, now)
        if self.start is None or self.start.boot_id != heartbeat.boot_id:
            records += self._learn_start(heartbeat)
        if self.silent:
            self.silent = False
            records.append(Record("agent_silent", {"active": False}))
        self.heartbeat, self.heartbeat_at = heartbeat, now
        granted = heartbeat.granted_interval
        self.interval = granted.seconds + granted.nanos / 1e9 or _DEFAULT_INTERVAL
        self.draining = agent.draining
        self.sprite_id = heartbeat.sprite_id or self.sprite_id
        self.runtime = self._runtime_in(heartbeat)
        if self.runtime == _ALIVE:
            self.alive_at, self._alive = now, heartbeat
        if self.runtime != _DEAD:
            self._dead_since = None
        elif self._dead_since is None:
            self._dead_since = now
        return records

    def _learn_start(self, heartbeat: sprite_pb2.Heartbeat) -> list[Record]:
        agent = heartbeat.agent
        start = AgentStart(heartbeat.boot_id, agent.pid, agent.started_at.ToNanoseconds() / 1e9)
        known, self.start = self.start, start
        resumed_at = agent.resumed_at.ToNanoseconds() / 1e9 if agent.HasField("resumed_at") else 0.0
        before, self._resumed_at = self._resumed_at, resumed_at
        if known is None:
            return []
        ids = {"bootId": start.boot_id, "previousBootId": known.boot_id}
        if known[1:] != start[1:]:
            return [Record("agent_restarted", {**ids, "version": agent.version})]
        # On its own clock, which may have been set back since.
        if resumed_at and resumed_at != before:
            seconds = round(agent.suspended_for.ToMilliseconds() / 1000, 1)
            return [Record("sprite_resumed", {**ids, "suspendedSeconds": seconds})]
        return []

    def tick(self, now: float) -> list[Record]:
        """What the passing of time tells."""
        deadline = self.silent_at
        if deadline is None or self.silent or now < deadline:
            return []
        self.silent = True
        self.runtime = _RUNTIME_UNKNOWN
        last = format_utc(self.heartbeat_at or 0)
        return [Record("agent_silent", {"active": True, "lastHeartbeatAt": last})]

    def shift(self, seconds: float) -> None:
        """The manager's own clock was set by so much: ages stay what they are."""
        self._probe_due = 0.0  # how the clocks stand is to be found out anew
        self.connection_since += seconds
        for name in ("retry_at", "heartbeat_at", "alive_at", "_dead_since"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, value + seconds)

    # --- what follows -------------------------------------------------------------------------------

    @property
    def silent_at(self) -> float | None:
        """When the agent counts as silent unless it is heard before; None: it was never heard."""
        return None if self.heartbeat_at is None else self.heartbeat_at + SILENT_INTERVALS * self.interval

    @property
    def agent(self) -> Agent.ValueType:
        if self.heartbeat_at is None:
            return Agent.STATE_UNKNOWN
        if self.silent:
            return Agent.STATE_SILENT
        return Agent.STATE_DRAINING if self.draining else Agent.STATE_ALIVE

    def _runtime_in(self, heartbeat: sprite_pb2.Heartbeat) -> Runtime.ValueType:
        if not heartbeat.HasField("runtime") or heartbeat.runtime.loop_id not in {"", self.loop_id}:
            return _IDLE
        return _ALIVE if heartbeat.runtime.alive else _DEAD

    @property
    def dead_at(self) -> float | None:
        """When a dead runtime counts as such; None: it is not dead."""
        return None if self._dead_since is None else self._dead_since + DEAD_GRACE_SECONDS

    def conditions(self, lifecycle: str, now: float) -> list[Condition]:
        """What health must tell. lifecycle: state of the loop, since only of one that runs a process is
        expected: one that awaits a decision, or has ended, has none."""
        found = []
        dead_at = self.dead_at
        if self.runtime == _DEAD and lifecycle == "running" and dead_at and now >= dead_at:
            found.append(Condition("runtime_process_dead", CRITICAL, "runtime.state", "dead", "alive"))
        if self.silent:
            age = int(now - (self.heartbeat_at or now))
            limit = SILENT_INTERVALS * self.interval
            found.append(
                Condition("agent_silent", DEGRADED, "agent.heartbeatAgeSeconds", str(age), f"{limit:g}")
            )
        if self.is_skewed:
            offset = f"{self.clock_offset:.1f}"
            found.append(
                Condition("clock_skew", DEGRADED, "agent.clockOffsetSeconds", offset, f"{SKEW_SECONDS:g}")
            )
        return found

    def runtime_document(self) -> JSON:
        """What the agent keeps in heartbeat.v1.json while the runtime lives, told by its heartbeats; None
        when the runtime was never seen alive."""
        heartbeat = self._alive
        if heartbeat is None or self.alive_at is None:
            return None
        runtime = heartbeat.runtime
        return heartbeat_document(
            RuntimeFacts(
                runtime.pid,
                runtime.started_at.ToNanoseconds() / 1e9,
                runtime.rss_bytes,
                runtime.cpu_time.ToMilliseconds() / 1000,
            ),
            now=self.alive_at,
            agent_version=heartbeat.agent.version,
            boot_id=heartbeat.boot_id,
            sequence=heartbeat.sequence,
            interval=self.interval,
            loop_id=self.loop_id,
            stage=runtime.stage,
        )
