"""refusals.jsonl: what was refused before it could be put on a loop's record.

Nothing ran, so it fails open; and whoever sends rubbish without end must not fill the disk.
"""

import os

from sprite_agent.connected import connected_document
from sprite_agent.provenance import Provenance
from sprite_agent.runtime.layout import agent_directory
from spritemesh import rotation
from spritemesh.control import ControlRequest
from spritemesh.errors import OpsError, one_line
from spritemesh.times import format_utc
from spritemesh.values import drop, nz

# Then it becomes refusals.jsonl.1, in the place of the one before.
MAX_BYTES = 4 * 1024 * 1024
_MESSAGE_CHARS = 500
_WORD_CHARS = 128


def append_refusal(
    repo: str, request: ControlRequest, provenance: Provenance, error: OpsError, now: float
) -> None:
    """Append a row, unsynced. request: as far as it is known."""
    path = os.path.join(agent_directory(repo), "refusals.jsonl")
    row = drop(
        {
            "timestamp": format_utc(now),
            "transport": provenance.edge,
            "reasonCode": error.reason,
            "field": nz(error.field),
            "message": one_line(error.message[:_MESSAGE_CHARS]),
            "loopId": _shown(request.loop_id),
            "intent": _shown(request.intent),
            "requestedBy": _shown(request.requested_by),
            "traceId": _shown(request.trace_id),
            "connected": connected_document(provenance._replace(edge="")) or None,
        }
    )
    try:
        rotation.append_rows(path, [row], limit=MAX_BYTES, keep=1)
    except OSError:
        return


def _shown(word: str) -> str | None:
    return nz(one_line(word[:_WORD_CHARS]))
