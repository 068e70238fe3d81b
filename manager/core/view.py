"""A loop as it is now, for whoever watches the fleet: LoopView of manager.proto."""

from manager.core.health import CRITICAL
from manager.core.live import LiveLoop
from spritemesh.bridge.parts import storable
from spritemesh.jsontext import JSON
from spritemesh.values import first, get, text
from superloop.ops.v1 import manager_pb2 as pb

# Of each text that a sprite sets. A message of WatchFleet holds a hundred views, and 4 MiB at most.
_MAX_CHARS = 256


def loop_view(loop: LiveLoop, *, target: str, sprite_id: str, now: float) -> pb.LoopView:
    """The view. target: where its sprite is. sprite_id: of the registry, "" for the agent's own word."""
    liveness, known, intake, counts = loop.liveness, loop.shown, loop.intake, loop.counts
    projection, heartbeat = get(known.state, "projection"), liveness.heartbeat
    view = pb.LoopView(
        loop_id=loop.settings.loop_id,
        sprite_id=sprite_id or _short(liveness.sprite_id) or target,
        transport=loop.settings.transport,
        state=_short(loop.lifecycle),
        run_id=_word(get(known.state, "run", "runId")),
        iteration=_word(get(known.state, "run", "iteration")),
        applied_line=intake.place.line,
        committed_line=loop.committed_line,
        head_line=max(loop.head_line, intake.place.line),
        last_event_name=_word(get(projection, "lastEventName")),
        last_event_at=_word(get(projection, "lastEventAt")),
        sequence_status=_word(get(known.sequence, "status")),
        health_status=_word(get(known.health, "status")),
        reason_codes=_reasons(known.health),
        last_trace_id=_last_trace(loop),
        control_frozen=loop.frozen,
        awaits_approval=get(projection, "hasPendingApproval") is True,
        counts=counts,
    )
    view.updated_at.FromNanoseconds(int(now * 1e9))
    connection = view.connection
    connection.state, connection.reason = liveness.connection, liveness.connection_reason
    connection.failures, connection.target = liveness.failures, target
    connection.since.FromNanoseconds(int(liveness.connection_since * 1e9))
    if liveness.retry_at is not None and liveness.connection != pb.ConnectionView.STATE_UP:
        connection.retry_at.FromNanoseconds(int(liveness.retry_at * 1e9))
    view.agent.state = liveness.agent
    view.runtime.state = liveness.runtime
    if heartbeat is not None and liveness.heartbeat_at is not None:
        _describe(view, heartbeat, liveness.heartbeat_at)
    if liveness.clock_offset is not None:
        view.agent.clock_offset.FromNanoseconds(int(liveness.clock_offset * 1e9))
    if liveness.alive_at is not None:
        view.runtime.alive_at.FromNanoseconds(int(liveness.alive_at * 1e9))
    return view


def _describe(view: pb.LoopView, heartbeat: JSON, heartbeat_at: float) -> None:
    agent = heartbeat.agent
    view.agent.boot_id, view.agent.version = _short(heartbeat.boot_id), _short(agent.version)
    view.agent.heartbeat_at.FromNanoseconds(int(heartbeat_at * 1e9))
    view.agent.event_loop_lag.CopyFrom(agent.event_loop_lag)
    view.agent.rss_bytes = agent.rss_bytes
    if heartbeat.HasField("runtime"):
        view.runtime.pid, view.runtime.stage = heartbeat.runtime.pid, _short(heartbeat.runtime.stage)


def _reasons(health: JSON) -> list[str]:
    """The reason codes of a health document, critical ones first."""
    codes, rows = get(health, "reasonCodes"), get(health, "reasons")
    if not isinstance(codes, list):
        return []
    rows = rows if isinstance(rows, list) else []
    critical = {_word(get(row, "code")) for row in rows if get(row, "severity") == CRITICAL}
    return sorted((_word(code) for code in codes), key=lambda code: code not in critical)


def _last_trace(loop: LiveLoop) -> str:
    """Of the last control intent when that is newer than the state, else of the session."""
    intent, state = loop.known.last_intent, loop.known.state
    at, ours = get(intent, "timestamp"), get(state, "generatedAt")
    if isinstance(at, str) and isinstance(ours, str) and at > ours:
        return _word(get(intent, "traceId"))
    return loop.settings.trace_id or ""


def _word(value: JSON) -> str:
    """A value as people read it; "" for none. Half a character, which JSON can spell, is no text."""
    found = first(value, None)
    return "" if found is None else _short(storable(text(found)))


def _short(found: str) -> str:
    """A text that is not too long for a view."""
    return found if len(found) <= _MAX_CHARS else f"{found[: _MAX_CHARS - 1]}…"
