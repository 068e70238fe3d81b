"""The fleet as a JSON document, and the few numbers that everybody wants of a view.

Pure: the time is given. Members mirror LoopView in camel case; what is not known is null.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from manager.core.session_record import state_word
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc
from superloop.ops.v1 import manager_pb2 as pb

SCHEMA_VERSION = "v1"


class Fleet(NamedTuple):
    """A fleet at one moment. at: the manager's clock, epoch seconds. views: in order of loop ids."""

    fleet_id: str
    at: float
    views: list[pb.LoopView]


class Summary(NamedTuple):
    """How many loops there are of each kind; a loop may count in several.

    up to disabled: by connection. healthy to critical: by health. frozen: control is closed.
    """

    loops: int
    up: int
    down: int
    connecting: int
    waiting: int
    disabled: int
    healthy: int
    degraded: int
    critical: int
    awaiting_approval: int
    frozen: int


def summarize(views: Iterable[pb.LoopView]) -> Summary:
    """The counts of these loops."""
    found = list(views)
    connections = [connection_word(view) for view in found]
    healths = [view.health_status for view in found]
    return Summary(
        loops=len(found),
        up=connections.count("up"),
        down=connections.count("down"),
        connecting=connections.count("connecting"),
        waiting=connections.count("waiting"),
        disabled=connections.count("disabled"),
        healthy=healths.count("healthy"),
        degraded=healths.count("degraded"),
        critical=healths.count("critical"),
        awaiting_approval=sum(view.awaits_approval for view in found),
        frozen=sum(bool(view.control_frozen) for view in found),
    )


def connection_word(view: pb.LoopView) -> str:
    """`up`, `down`, `connecting`, `waiting`, `disabled`, or `unspecified` when it was never set."""
    return _word(_CONNECTION_WORDS, view.connection.state)


def agent_word(view: pb.LoopView) -> str:
    """`alive`, `silent`, `draining`, `unknown`, or `unspecified`."""
    return _word(_AGENT_WORDS, view.agent.state)


def runtime_word(view: pb.LoopView) -> str:
    """`alive`, `dead`, `idle`, `unknown`, or `unspecified`."""
    return _word(_RUNTIME_WORDS, view.runtime.state)


def lag_lines(view: pb.LoopView) -> int:
    """Lines of the log, as far as told, that have not been applied."""
    return max(0, view.head_line - view.applied_line)


def heartbeat_age(view: pb.LoopView, at: float) -> float | None:
    """Seconds since the agent's last heartbeat on the manager's clock; None when there was none."""
    if not view.agent.HasField("heartbeat_at"):
        return None
    return max(0.0, at - view.agent.heartbeat_at.ToNanoseconds() / 1e9)


def fleet_document(fleet: Fleet) -> dict[str, JSON]:
    """What `ops-manager fleet status` prints."""
    return {
        "schemaVersion": SCHEMA_VERSION,
        "fleetId": fleet.fleet_id or None,
        "generatedAt": format_utc(fleet.at),
        "summary": {_camel(name): count for name, count in summarize(fleet.views)._asdict().items()},
        "loops": [_loop(view, fleet.at) for view in fleet.views],
    }


def _loop(view: pb.LoopView, at: float) -> dict[str, JSON]:
    age = heartbeat_age(view, at)
    return {
        "loopId": view.loop_id,
        "spriteId": view.sprite_id or None,
        "transport": view.transport or None,
        "connection": {
            "state": connection_word(view),
            "reason": view.connection.reason or None,
            "since": _time(view.connection, "since"),
            "failures": view.connection.failures,
            "retryAt": _time(view.connection, "retry_at"),
            "target": view.connection.target or None,
        },
        "agent": {
            "state": agent_word(view),
            "bootId": view.agent.boot_id or None,
            "version": view.agent.version or None,
            "heartbeatAt": _time(view.agent, "heartbeat_at"),
            "heartbeatAgeSeconds": None if age is None else int(age),
            "clockOffsetSeconds": _seconds(view.agent, "clock_offset"),
            "eventLoopLagSeconds": _seconds(view.agent, "event_loop_lag"),
            "rssBytes": view.agent.rss_bytes or None,
        },
        "runtime": {
            "state": runtime_word(view),
            "pid": view.runtime.pid or None,
            "stage": view.runtime.stage or None,
            "aliveAt": _time(view.runtime, "alive_at"),
        },
        "state": view.state or None,
        "awaitsApproval": view.awaits_approval,
        "runId": view.run_id or None,
        "iteration": view.iteration or None,
        "appliedLine": view.applied_line,
        "committedLine": view.committed_line,
        "headLine": view.head_line,
        "lagLines": lag_lines(view),
        "lastEventName": view.last_event_name or None,
        "lastEventAt": view.last_event_at or None,
        "sequenceStatus": view.sequence_status or None,
        "healthStatus": view.health_status or None,
        "reasonCodes": list(view.reason_codes),
        "controlFrozen": view.control_frozen or None,
        "lastTraceId": view.last_trace_id or None,
        "updatedAt": _time(view, "updated_at"),
        "counts": {
            _camel(field.name): getattr(view.counts, field.name) for field in view.counts.DESCRIPTOR.fields
        },
    }


def _words(states: Any) -> dict[int, str]:
    """The numbers of an enum of states, and their names in lower case."""
    return {number: state_word(name) for name, number in states.items()}


_CONNECTION_WORDS = _words(pb.ConnectionView.State)
_AGENT_WORDS = _words(pb.AgentView.State)
_RUNTIME_WORDS = _words(pb.RuntimeView.State)


def _word(words: Mapping[int, str], state: int) -> str:
    """The word for a state; for one that is newer than this program, its number."""
    return words.get(state) or str(state)


def _time(message: Any, field: str) -> str | None:
    if not message.HasField(field):
        return None
    value: Timestamp = getattr(message, field)
    return format_utc(value.seconds)


def _seconds(message: Any, field: str) -> float | None:
    if not message.HasField(field):
        return None
    value: Duration = getattr(message, field)
    return round(value.ToNanoseconds() / 1e9, 3)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
