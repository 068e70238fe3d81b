"""The v1 envelope `loop_run_event` (contract C.3) to its messages and back.

On the wire the events of a batch share a header; the v1 document repeats it in every event. So a
document becomes a batch of one, and a batch becomes as many documents as it has events.
"""

from collections.abc import Iterator

from spritemesh import jsontext
from spritemesh.bridge.parts import (
    SCHEMA_VERSION,
    SEQUENCE_SOURCE,
    Members,
    json_value,
    number_fields,
    number_value,
    parse_carried,
)
from spritemesh.jsontext import JSON
from spritemesh.values import first
from superloop.ops.v1 import envelope_pb2 as pb

ENVELOPE_TYPE = "loop_run_event"


def event_documents(batch: pb.EventBatch) -> Iterator[dict[str, JSON]]:
    """The v1 documents of a batch, in order."""
    for event in batch.events:
        yield event_to_json(batch, event)


def event_to_json(batch: pb.EventBatch, event: pb.LoopRunEvent) -> dict[str, JSON]:
    """The v1 document of one event under the header of its batch, members in the order of C.3.

    Raises OpsError `service_response_invalid` when JSON text in the event is none.
    """
    if event.HasField("envelope"):
        envelope: dict[str, JSON] = parse_carried(event.envelope.json, f"envelope of line {event.line}")
        return envelope
    raw = parse_carried(event.raw, f"raw of line {event.line}")
    return {
        "schemaVersion": SCHEMA_VERSION,
        "envelopeType": ENVELOPE_TYPE,
        "emittedAt": batch.emitted_at,
        "traceId": batch.trace_id if batch.HasField("trace_id") else None,
        "source": {"repoPath": batch.source.repo_path, "loopId": batch.source.loop_id},
        "sequence": _sequence(event.line),
        "cursor": _cursor(event.line, batch.line_count),
        "run": {
            "runId": event.run_id,
            "iteration": number_value(event.iteration, event.iteration_literal),
        },
        "event": {
            "timestamp": event.timestamp,
            "name": event.name,
            "role": event.role if event.HasField("role") else None,
            "status": event.status if event.HasField("status") else None,
            "message": event.message if event.HasField("message") else None,
            "payload": json_value(event.payload, True) if event.HasField("payload") else _data(raw),
            "raw": raw,
        },
    }


def event_from_json(
    document: JSON, *, what: str = "event", reason: str = "projection_failed"
) -> pb.EventBatch:
    """A batch of the one event of a v1 document.

    Raises OpsError with `reason`, naming the member and the kind of its value, as snapshot_from_json.
    `end_digest` stays empty: v1 has none.
    """
    members = Members(document, what, reason)
    members.require(SCHEMA_VERSION, "schemaVersion")
    members.require(ENVELOPE_TYPE, "envelopeType")
    members.check_objects("source", "sequence", "cursor", "run", "event")
    name = members.required_text("event", "name")
    if not name:
        raise members.error("event.name", None, "a non-empty string")
    line = members.count("sequence", "value") or 0
    iteration, literal = number_fields(members.number("run", "iteration"))
    raw = members.value("event", "raw")
    payload = members.value("event", "payload")
    event = pb.LoopRunEvent(
        line=line,
        timestamp=members.text("event", "timestamp") or "",
        name=name,
        run_id=members.text("run", "runId") or "",
        iteration=iteration,
        iteration_literal=literal,
        role=members.text("event", "role"),
        status=members.text("event", "status"),
        message=members.text("event", "message"),
        raw=jsontext.encode(raw).decode(),
    )
    if jsontext.encode(payload) != jsontext.encode(_data(raw)):
        event.payload.json = jsontext.encode(payload).decode()
    line_count = members.count("cursor", "eventLineCount") or 0
    if (members.value("sequence"), members.value("cursor")) != (_sequence(line), _cursor(line, line_count)):
        event.envelope.json = jsontext.encode(document).decode()
    return pb.EventBatch(
        source=pb.Source(
            repo_path=members.text("source", "repoPath") or "",
            loop_id=members.required_text("source", "loopId"),
        ),
        trace_id=members.text("traceId"),
        emitted_at=members.text("emittedAt") or "",
        first_line=line,
        last_line=line,
        line_count=line_count,
        events=[event],
    )


def _sequence(line: int) -> dict[str, JSON]:
    return {"source": SEQUENCE_SOURCE, "value": line or None}


def _cursor(line: int, line_count: int) -> dict[str, JSON]:
    return {"eventLineOffset": line or None, "eventLineCount": line_count}


def _data(raw: JSON) -> JSON:
    """What v1 makes of the member `data` of a line (contract C.3)."""
    return first(raw.get("data"), None) if isinstance(raw, dict) else None
