"""heartbeat.v1.json as an agent keeps it in the runtime's place: its shape, and the mark that tells it from a
runtime's own.

The agent writes it while the runtime's process lives; a manager that hears the agent's heartbeats knows
the same, and says it in the same words.
"""

from typing import NamedTuple

from spritemesh import jsontext
from spritemesh.jsontext import JSON
from spritemesh.names import HEARTBEAT_WRITER
from spritemesh.times import format_utc
from spritemesh.values import get


class RuntimeFacts(NamedTuple):
    """A runtime's process. started_at: epoch seconds. cpu_seconds: used so far."""

    pid: int
    started_at: float
    rss_bytes: int
    cpu_seconds: float


def heartbeat_document(
    runtime: RuntimeFacts,
    *,
    now: float,
    agent_version: str,
    boot_id: str,
    sequence: int,
    interval: float,
    loop_id: str,
    stage: str,
) -> dict[str, JSON]:
    """The document. now: when the runtime was seen alive, epoch seconds. interval: seconds to the next."""
    return {
        "timestamp": format_utc(now),
        "writer": HEARTBEAT_WRITER,
        "agent_version": agent_version,
        "boot_id": boot_id,
        "sequence": sequence,
        "interval_seconds": interval,
        "loop_id": loop_id,
        "stage": stage,
        "process": {
            "pid": runtime.pid,
            "started_at": format_utc(runtime.started_at),
            "rss_bytes": runtime.rss_bytes,
            "cpu_seconds": round(runtime.cpu_seconds, 2),
        },
    }


def is_marked(document: JSON) -> bool:
    """Whether a heartbeat is an agent's."""
    return bool(get(document, "writer") == HEARTBEAT_WRITER)


def bears_mark(text: str | bytes) -> bool:
    """As is_marked, of its text."""
    try:
        return is_marked(jsontext.parse(text))
    except jsontext.JSONError:
        return False
