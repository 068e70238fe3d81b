"""The one step of a loop: what was known and what arrived become what is known now (contract G.1).

A one-shot pass takes it once; a live session takes it whenever something arrived, in brief most of the time.
It decides everything and does nothing: the caller writes the documents, appends the rows and moves the
cursor, in that order.
"""

from typing import NamedTuple

from manager.core import drift as profile_drift
from manager.core import escalation, sequence
from manager.core.cursor import Cursor, cursor_document
from manager.core.facts import Arrived, Known, Outcome, Settings
from manager.core.health import evaluate_health
from manager.core.heartbeat import HeartbeatOutcome, evaluate_heartbeat
from manager.core.intake import BadLine
from manager.core.projection import project, seen_in_message
from manager.core.sequence import LogChange, evaluate_sequence
from manager.core.summary import summarize
from manager.core.transport_health import evaluate_transport
from spritemesh.bridge.parts import json_value
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc
from spritemesh.values import digits, drop, get, with_member


def observe(
    known: Known,
    arrived: Arrived,
    settings: Settings,
    *,
    started_at: float,
    now: float,
    telemetry_writable: bool = True,
    brief: bool = False,
) -> Outcome:
    """Take one step.

    started_at, now: epoch seconds; the step is dated `now`. telemetry_writable: False when rows could not
    be appended, which degrades health and nothing else. brief: the step is no pass of its own: it neither
    sums up telemetry nor judges profile drift, and what it did not touch stays as it was.
    """
    arrived = _checked_lineage(known, arrived, settings)
    state, heartbeat, code, message = _project(known, arrived, settings, now)
    transport_health = arrived.transport_health or evaluate_transport(
        known.transport_health,
        now=now,
        trace_id=settings.trace_id,
        transport=settings.transport,
        failure_code=code,
    )
    beat = None if code else _heartbeat(heartbeat, settings, now)
    order = _sequence(known, arrived, settings, now, failed=bool(code), brief=brief)
    status = "failed" if code else "success"
    health = evaluate_health(
        state=known.state if state is None else state,
        heartbeat=known.heartbeat if beat is None or beat.document is None else beat.document,
        sequence=known.sequence if order is None else order,
        transport_health=transport_health,
        last_intent=known.last_intent,
        now=now,
        trace_id=settings.trace_id,
        mode=settings.transport,
        profile=settings.profile,
        ingest_status=status,
        failure_code=code,
        thresholds=settings.thresholds,
        telemetry_writable=telemetry_writable,
        conditions=arrived.conditions,
    )
    source = escalation.EscalationSource(
        format_utc(now), settings.loop_id, settings.trace_id, settings.transport, settings.evidence
    )
    rows = [
        escalation.divergence_row(source, state) if arrived.projects else None,
        escalation.ordering_row(source, order),
        escalation.health_row(source, health, known.health, ingest_status=status, failure_code=code),
    ]
    reconcile_row = _reconcile_row(
        known,
        arrived,
        settings,
        started_at=started_at,
        now=now,
        failure=(code, message),
        streak=digits(get(transport_health, "failureStreak")) or 0,
        order=order,
        health=health,
    )
    drift, tuning = ({}, None) if brief else _tuning(known, settings, reconcile_row, now)
    rows.append(escalation.profile_drift_row(source, drift))
    merged = _merged_state(known, settings, state, health=health, order=order)
    if merged is not None and brief:
        merged |= {name: get(known.state, name) for name in ("drift", "tuning") if get(known.state, name)}
    elif merged is not None:
        merged["drift"] = drift | {"traceId": settings.trace_id}
        if tuning is not None:
            merged["tuning"] = tuning
    return Outcome(
        failure_code=code,
        state=merged,
        health=health,
        heartbeat=None if beat is None else beat.document,
        sequence=order,
        transport_health=transport_health,
        drift=drift,
        cursor=None if code else _cursor(known, arrived, settings, order, now),
        heartbeat_row=None if beat is None else beat.row,
        sequence_row=None if order is None else sequence.telemetry_row(order),
        reconcile_row=reconcile_row,
        drift_row=None if brief else profile_drift.history_row(drift),
        quarantine_rows=[] if code else [_quarantine_row(settings, bad, now) for bad in arrived.bad_lines],
        escalations=[row for row in rows if row is not None],
    )


def _checked_lineage(known: Known, arrived: Arrived, settings: Settings) -> Arrived:
    """A requested replay asks for no place, so no stream tells that the log is another one: compare."""
    snapshot, before = arrived.snapshot, known.cursor.place
    if not settings.from_start or arrived.change is not None or snapshot is None:
        return arrived
    if not before.line or not before.first_line_digest or not snapshot.HasField("position"):
        return arrived
    if snapshot.position.first_line_digest == before.first_line_digest:
        return arrived
    return arrived._replace(change=LogChange("log_replaced", before.line, snapshot.position.line))


class _Projected(NamedTuple):
    """state: None when the pass failed. heartbeat: content of heartbeat.v1.json, None when there is none."""

    state: dict[str, JSON] | None
    heartbeat: JSON
    failure_code: str
    failure_message: str


def _project(known: Known, arrived: Arrived, settings: Settings, now: float) -> _Projected:
    """What the snapshot says. Everything that it carries as JSON text is parsed here: a peer that sends
    what is none fails the pass, which goes on to tell so (contract G.1)."""
    if not arrived.projects and not arrived.failure_code:
        return _Projected(_carried(known.state, arrived), arrived.heartbeat, "", "")
    if arrived.failure_code or arrived.snapshot is None:
        return _Projected(None, None, arrived.failure_code or "reconcile_failed", arrived.failure_message)
    runtime = arrived.snapshot.runtime
    try:
        state = project(
            seen_in_message(arrived.snapshot),
            arrived.last_event,
            known.state,
            now=now,
            repo_path=settings.repo_path,
            loop_id=settings.loop_id,
            snapshot_file=settings.snapshot_file,
            events_file=settings.events_file,
            new_lineage=arrived.change is not None and arrived.change.is_replacement,
        )
        heartbeat = arrived.heartbeat or json_value(runtime.heartbeat, runtime.HasField("heartbeat"))
    except OpsError as error:
        return _Projected(None, None, error.reason, f"{error.reason}: {error.message}")
    return _Projected(state, heartbeat, "", "")


def _carried(state: JSON, arrived: Arrived) -> dict[str, JSON] | None:
    """The state before, with what is certain without a snapshot: the last event, which another log has not
    got, and that a replaced log starts at 0, so that its first projection is no regression."""
    if not isinstance(state, dict):
        return None
    carried = dict(state)
    if arrived.last_event is not None or arrived.change is not None:
        carried = with_member(carried, "evidence", "lastEventEnvelope", arrived.last_event)
    if arrived.change is not None and arrived.change.is_replacement:
        carried = with_member(carried, "cursor", "eventLineOffset", 0)
    return carried


def _heartbeat(heartbeat: JSON, settings: Settings, now: float) -> HeartbeatOutcome | None:
    return evaluate_heartbeat(
        heartbeat,
        now=now,
        loop_id=settings.loop_id,
        trace_id=settings.trace_id,
        transport=settings.transport,
        thresholds=settings.thresholds,
    )


def _sequence(
    known: Known, arrived: Arrived, settings: Settings, now: float, *, failed: bool, brief: bool
) -> dict[str, JSON] | None:
    """sequence-state.json; None in a failed pass, unless that pass proved a truncation, and in a brief step
    that brought nothing to judge."""
    truncated = arrived.change is not None and "log_truncated" in arrived.change.verdicts
    snapshot = arrived.snapshot
    if (snapshot is None and arrived.projects) or (failed and not truncated):
        return None
    value = None
    if snapshot is not None and snapshot.HasField("sequence_value"):
        value = snapshot.sequence_value
    nothing_new = snapshot is None or value == get(known.sequence, "snapshot", "current")
    if brief and nothing_new and arrived.change is None and not arrived.numbers.events:
        return None
    return evaluate_sequence(
        known.sequence,
        known.cursor.memory,
        snapshot_value=value,
        numbers=arrived.numbers,
        now=now,
        loop_id=settings.loop_id,
        trace_id=settings.trace_id,
        transport=settings.transport,
        replay=settings.from_start,
        change=arrived.change,
        snapshot_came=snapshot is not None,
    )


def _reconcile_row(
    known: Known,
    arrived: Arrived,
    settings: Settings,
    *,
    started_at: float,
    now: float,
    failure: tuple[str, str],
    streak: JSON,
    order: JSON,
    health: JSON,
) -> dict[str, JSON]:
    """The row of telemetry/reconcile.jsonl (contract G.8); what v1 does not know comes last."""
    code, message = failure
    before = known.cursor.offset
    return drop(
        {
            "timestamp": format_utc(now),
            "startedAt": format_utc(started_at),
            "loopId": settings.loop_id,
            "traceId": settings.trace_id,
            "transport": settings.transport,
            "status": "failed" if code else "success",
            "failureCode": code or None,
            "failureMessage": message if code else None,
            "cursorOffsetBefore": 0 if settings.from_start else before,
            "cursorOffsetAfter": before if code else arrived.offset,
            "eventsIngested": arrived.numbers.events,
            "maxEvents": settings.max_events,
            "fromStart": settings.from_start,
            "retryAttempts": settings.retry_attempts,
            "retryBackoffSeconds": settings.retry_backoff_seconds,
            "thresholdProfile": settings.profile,
            "durationSeconds": max(0, int(now) - int(started_at)),
            "transportFailureStreak": streak,
            "sequenceStatus": "skipped_ingest_failed" if order is None else get(order, "status"),
            "sequenceReasonCode": get(order, "reasonCode"),
            "healthStatus": get(health, "status"),
            "healthReasonCodes": get(health, "reasonCodes"),
            "eventsReplayed": arrived.replayed or None,
            "linesQuarantined": len(arrived.bad_lines) or None if not code else None,
            "logReset": None if arrived.change is None else arrived.change.document(),
            "damagedDocuments": list(known.damaged_documents) or None,
        }
    )


def _tuning(
    known: Known, settings: Settings, reconcile_row: JSON, now: float
) -> tuple[dict[str, JSON], dict[str, JSON] | None]:
    """profile-drift.json and the state's `tuning`, over a window that includes this pass (H.3)."""
    summary: JSON = None
    if known.reconcile_rows is not None:
        # The window counts lines, and this pass is one of them.
        earlier = known.reconcile_rows[-(settings.window - 1) :] if settings.window > 1 else []
        summary = summarize(
            [*earlier, reconcile_row],
            known.control_rows or [],
            now=now,
            repo_path=settings.repo_path,
            loop_id=settings.loop_id,
            reconcile_file=settings.reconcile_file,
            control_file=settings.control_file,
            window=settings.window,
            damaged=known.damaged_lines,
        )
    recommended = get(summary, "recommendedProfile")
    drift = profile_drift.evaluate_drift(
        known.drift,
        now=now,
        loop_id=settings.loop_id,
        applied=settings.profile,
        recommended=recommended if recommended in settings.profiles else "",
        confidence=get(summary, "confidence") or "low",
        min_confidence=settings.min_confidence,
        required_streak=settings.required_streak,
        window=settings.window,
        rationale=get(summary, "rationale") or "",
    )
    if summary is None:
        return drift, None
    return drift, {
        "appliedProfile": settings.profile,
        "recommendedProfile": recommended,
        "confidence": summary["confidence"],
        "rationale": summary["rationale"],
        "summaryWindow": settings.window,
        "telemetrySummary": {"observed": summary["observed"], "source": summary["source"]},
    }


def _merged_state(
    known: Known,
    settings: Settings,
    state: dict[str, JSON] | None,
    *,
    health: JSON,
    order: JSON,
) -> dict[str, JSON] | None:
    """state.json (contract G.2): the new one, or after a failure the old one with new judgements."""
    if state is None and not isinstance(known.state, dict):
        return None
    merged: dict[str, JSON] = dict(known.state if state is None else state)
    merged["health"] = health
    merged["trace"] = {"reconcileTraceId": settings.trace_id}
    if state is not None:
        merged["sequence"] = get(known.state, "sequence") if order is None else order
    return merged


def _cursor(known: Known, arrived: Arrived, settings: Settings, order: JSON, now: float) -> dict[str, JSON]:
    memory = sequence.next_memory(known.cursor.memory, order)
    return cursor_document(
        Cursor(arrived.offset, arrived.place, memory),
        now=now,
        repo_path=settings.repo_path,
        loop_id=settings.loop_id,
        line_count=arrived.line_count,
    )


def _quarantine_row(settings: Settings, bad: BadLine, now: float) -> dict[str, JSON]:
    """The row of telemetry/quarantine.jsonl for a line that was passed (L4)."""
    return {
        "timestamp": format_utc(now),
        "loopId": settings.loop_id,
        "traceId": settings.trace_id,
        "transport": settings.transport,
        "category": "invalid_line",
        "reasonCode": bad.reason,
        "line": bad.line,
        "sizeBytes": bad.size_bytes,
        "sha256": bad.sha256,
        "prefix": bad.prefix,
    }
