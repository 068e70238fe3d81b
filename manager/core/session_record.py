"""What a live session leaves in files: session.json, and rows of telemetry/session.jsonl."""

from manager.core.facts import Settings
from manager.core.live import LiveLoop
from manager.core.liveness import Agent, Connection, Record, Runtime
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc
from spritemesh.values import drop

_DOWN, _CONNECTING = Connection.STATE_DOWN, Connection.STATE_CONNECTING


def state_word(name: str) -> str:
    """A state of a liveness as documents and labels spell it: `STATE_UP` is `up`."""
    return name.removeprefix("STATE_").lower()


def record_row(record: Record, settings: Settings, now: float) -> dict[str, JSON]:
    """The row of a record, dated when it is written."""
    return drop(
        {
            "timestamp": format_utc(now),
            "loopId": settings.loop_id,
            "traceId": settings.trace_id,
            "transport": settings.transport,
            "category": "session",
            "reasonCode": record.reason,
            **record.detail,
        }
    )


def session_document(loop: LiveLoop, now: float) -> dict[str, JSON]:
    """The document session.json: the three livenesses, and how far the log is read."""
    liveness, settings, counts = loop.liveness, loop.settings, loop.counts
    heartbeat, start = liveness.heartbeat, liveness.start

    def moment(at: float | None) -> JSON:
        return None if at is None else format_utc(at)

    return {
        "schemaVersion": "v1",
        "updatedAt": format_utc(now),
        "loopId": settings.loop_id,
        "traceId": settings.trace_id,
        "transport": settings.transport,
        "spriteId": liveness.sprite_id or None,
        "connection": {
            "state": state_word(Connection.Name(liveness.connection)),
            "reasonCode": liveness.connection_reason or None,
            "since": format_utc(liveness.connection_since),
            "failures": liveness.failures,
        },
        "agent": {
            "state": state_word(Agent.Name(liveness.agent)),
            "bootId": None if start is None else start.boot_id,
            "version": None if heartbeat is None else heartbeat.agent.version,
            "lastHeartbeatAt": moment(liveness.heartbeat_at),
            "clockOffsetSeconds": None if liveness.clock_offset is None else round(liveness.clock_offset, 1),
        },
        "runtime": {
            "state": state_word(Runtime.Name(liveness.runtime)),
            "pid": None if heartbeat is None else heartbeat.runtime.pid or None,
            "stage": None if heartbeat is None else heartbeat.runtime.stage or None,
            "lastAliveAt": moment(liveness.alive_at),
        },
        "log": {"appliedLine": loop.intake.place.line, "headLine": loop.head_line},
        "controlFrozen": loop.frozen or None,
        "counts": {
            "events": counts.events,
            "replayed": counts.replayed,
            "quarantined": counts.quarantined,
            "gaps": counts.gaps,
            "resets": counts.resets,
            "disconnects": counts.disconnects,
            "traceLines": counts.trace_lines,
            "traceFailures": counts.trace_failures,
        },
    }


def session_judgement(loop: LiveLoop) -> tuple[JSON, ...]:
    """What must differ for session.json to be worth writing at once."""
    liveness, heartbeat = loop.liveness, loop.liveness.heartbeat
    connection = liveness.connection
    return (
        # A try between two failures is no news.
        _DOWN if connection == _CONNECTING else connection,
        liveness.connection_reason,
        liveness.agent,
        liveness.runtime,
        liveness.start,
        0 if heartbeat is None else heartbeat.runtime.pid,
        liveness.sprite_id,
        loop.frozen,
    )
