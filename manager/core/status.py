"""The status document: what is known of one loop, in one place (contract J)."""

from collections.abc import Mapping
from typing import NamedTuple

from spritemesh.jsontext import JSON
from spritemesh.values import drop, first, get

SCHEMA_VERSION = "v1"


class Known(NamedTuple):
    """What the manager's files of one loop say; None stands for a file, or a row, that is not there.

    The `last_` members are the last rows of logs, None also when that line is damaged. summary: the
    telemetry summary (contract H.2) over the wanted window.
    """

    state: JSON = None
    cursor: JSON = None
    health: JSON = None
    heartbeat: JSON = None
    sequence: JSON = None
    drift: JSON = None
    dispatch: JSON = None
    last_intent: JSON = None
    last_reconcile: JSON = None
    last_control: JSON = None
    last_invocation: JSON = None
    last_heartbeat: JSON = None
    last_sequence: JSON = None
    last_alert: JSON = None
    summary: JSON = None


def status_document(
    known: Known, *, now_text: str, repo_path: str, loop_id: str, window: int, files: Mapping[str, str]
) -> dict[str, JSON]:
    """The document of contract J.

    now_text: `generatedAt`, in the form of contract 0.3. window: rows that `known.summary` was asked to
    take in. files: the member `files`, absolute paths in contract order.
    """
    state, health = known.state, known.health
    traces = _traces(known)
    return drop(
        {
            "schemaVersion": SCHEMA_VERSION,
            "generatedAt": now_text,
            "source": {"repoPath": repo_path, "loopId": loop_id},
            "lifecycle": {
                "state": _pick(
                    "unknown", (state, "transition", "currentState"), (state, "projection", "status")
                ),
                "confidence": _pick(None, (state, "transition", "confidence")),
                "runId": _pick(None, (state, "run", "runId")),
                "iteration": _pick(None, (state, "run", "iteration")),
            },
            "health": first(get(state, "health"), health, {}),
            "cursor": {
                name: _pick(0, (known.cursor, name), (state, "cursor", name))
                for name in ("eventLineOffset", "eventLineCount")
            },
            "control": {
                "lastIntent": _pick(None, (known.last_intent, "intent")),
                "lastStatus": _pick(None, (known.last_intent, "status")),
                "lastRequestedBy": _pick(None, (known.last_intent, "requestedBy")),
                "lastTimestamp": _pick(None, (known.last_intent, "timestamp")),
                "lastTraceId": traces["controlTraceId"],
            },
            "reconcile": {
                "lastStatus": _pick(None, (known.last_reconcile, "status")),
                "lastTimestamp": _pick(None, (known.last_reconcile, "timestamp")),
                "lastTransport": _pick(None, (known.last_reconcile, "transport")),
                "lastFailureCode": _pick(None, (known.last_reconcile, "failureCode")),
                "lastDurationSeconds": _pick(None, (known.last_reconcile, "durationSeconds")),
                "lastTraceId": traces["reconcileTraceId"],
            },
            "visibility": drop(
                {
                    "heartbeat": _heartbeat(known),
                    "sequence": _sequence(known),
                    "invocationAudit": _invocation(known),
                    "trace": drop({**traces, "sharedTraceId": _one_trace(traces)}),
                }
            ),
            "tuning": {
                "summaryWindow": window,
                "appliedProfile": _pick(
                    None, (state, "health", "thresholds", "profile"), (health, "thresholds", "profile")
                ),
                "recommendedProfile": _pick(None, (known.summary, "recommendedProfile")),
                "confidence": _pick(None, (known.summary, "confidence")),
                "rationale": _pick(None, (known.summary, "rationale")),
                "telemetrySummary": known.summary
                and {name: get(known.summary, name) for name in ("observed", "source")},
            },
            "drift": first(known.drift, get(state, "drift"), None),
            "alerts": drop({"dispatch": _dispatch(known), "lastDelivery": _delivery(known)}) or None,
            "traceLinkage": {**traces, "sharedTraceId": _linked_trace(traces)},
            "files": dict(files),
        }
    )


def _pick(default: JSON, *places: tuple[JSON, *tuple[str, ...]]) -> JSON:
    """The first value at `places` (a document and a path in it) that counts, else `default`."""
    return first(*(get(document, *path) for document, *path in places), default)


def _traces(known: Known) -> dict[str, JSON]:
    """The trace ids of the last doings, null where there is none."""

    def trace(*documents: JSON) -> JSON:
        return _pick(None, *((document, "traceId") for document in documents))

    return {
        "controlTraceId": trace(known.last_intent, known.last_control),
        "controlInvocationTraceId": trace(known.last_invocation),
        "reconcileTraceId": trace(known.last_reconcile),
        "heartbeatTraceId": trace(known.heartbeat, known.last_heartbeat),
        "sequenceTraceId": trace(known.sequence, known.last_sequence),
        "alertTraceId": trace(known.last_alert, known.dispatch),
    }


def _one_trace(traces: Mapping[str, JSON]) -> JSON:
    """The trace that all have which have one; the invocation's is the control's in other words."""
    own = (value for name, value in traces.items() if name != "controlInvocationTraceId")
    values = [value for value in own if value is not None]
    return values[0] if values and all(value == values[0] for value in values) else None


def _linked_trace(traces: Mapping[str, JSON]) -> JSON:
    """The trace that leads from pass to alert, if a control intent does not contradict (L26: kept)."""
    control, reconcile = traces["controlTraceId"], traces["reconcileTraceId"]
    linked = reconcile is not None and reconcile == traces["alertTraceId"] and control in (None, reconcile)
    return reconcile if linked else None


def _heartbeat(known: Known) -> JSON:
    state, row = known.heartbeat, known.last_heartbeat
    if state is None and row is None:
        return None
    return drop(
        {
            "freshnessStatus": _pick(None, (state, "freshnessStatus")),
            "reasonCode": _pick(None, (state, "reasonCode"), (row, "reasonCode")),
            "lastHeartbeatAt": _pick(None, (state, "lastHeartbeatAt"), (row, "heartbeatAt")),
            "heartbeatLagSeconds": _pick(None, (state, "heartbeatLagSeconds"), (row, "heartbeatLagSeconds")),
            "updatedAt": _pick(None, (state, "updatedAt"), (row, "timestamp")),
            "transport": _pick(None, (state, "transport"), (row, "transport")),
            "traceId": _pick(None, (state, "traceId"), (row, "traceId")),
        }
    )


def _sequence(known: Known) -> JSON:
    state, row = known.sequence, known.last_sequence
    if state is None and row is None:
        return None

    def both(*path: str) -> JSON:
        return _pick(None, (state, *path), (row, *path))

    return drop(
        {
            "status": both("status"),
            "reasonCode": both("reasonCode"),
            "driftActive": both("driftActive"),
            "violations": both("violations"),
            "snapshotCurrent": both("snapshot", "current"),
            "eventsLast": both("events", "last"),
            "updatedAt": _pick(None, (state, "updatedAt"), (row, "timestamp")),
            "transport": both("transport"),
            "traceId": both("traceId"),
        }
    )


def _invocation(known: Known) -> JSON:
    row = known.last_invocation
    if row is None:
        return None
    return drop(
        {
            "timestamp": _pick(None, (row, "timestamp")),
            "intent": _pick(None, (row, "intent")),
            "transport": _pick(None, (row, "transport")),
            "idempotencyKey": _pick(None, (row, "idempotencyKey")),
            "executionStatus": _pick(None, (row, "execution", "status")),
            "confirmationStatus": _pick(None, (row, "confirmation", "status")),
            "outcomeStatus": _pick(None, (row, "outcome", "status")),
            "replayed": _pick(None, (row, "execution", "replayed")),
            "traceId": _pick(None, (row, "traceId")),
        }
    )


def _dispatch(known: Known) -> JSON:
    state = known.dispatch
    if state is None:
        return None
    return drop(
        {
            "status": _pick(None, (state, "status")),
            "updatedAt": _pick(None, (state, "updatedAt")),
            "processedCount": _pick(0, (state, "processedCount")),
            "dispatchedCount": _pick(0, (state, "dispatchedCount")),
            "skippedCount": _pick(0, (state, "skippedCount")),
            "failedCount": _pick(0, (state, "failedCount")),
            "failureReasonCodes": _pick([], (state, "failureReasonCodes")),
            "escalationsLineOffset": _pick(0, (state, "escalationsLineOffset")),
            "escalationsLineCount": _pick(0, (state, "escalationsLineCount")),
            "lastTraceId": _pick(None, (state, "traceId")),
        }
    )


def _delivery(known: Known) -> JSON:
    row = known.last_alert
    if row is None:
        return None
    names = (
        "timestamp",
        "status",
        "reasonCode",
        "escalationCategory",
        "eventSeverity",
        "sinkCount",
        "dispatchedSinkCount",
        "failedSinkCount",
        "traceId",
        "escalationTraceId",
    )
    return drop({name: _pick(None, (row, name)) for name in names})
