"""One pass over one loop: transport, then manager.core.observe, then the files (contract G).

Order on disk, so that a crash anywhere loses nothing: documents are written beside their places;
telemetry is appended, failing open; quarantined lines and escalations are appended and synced, failing
closed; the documents are put in place, the cursor last. What a crash repeats is read again from the old
cursor and gives the same documents.
"""

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from manager.core.cursor import Cursor, Place
from manager.core.facts import Arrived, Known, Outcome, Settings
from manager.core.intake import Intake
from manager.core.observe import observe
from manager.store import LoopStore
from manager.transport.base import LOCAL
from spritemesh import traced, traceindex
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.values import text

if TYPE_CHECKING:
    from manager.transport import Transport
    from superloop.ops.v1 import envelope_pb2 as pb

_FILE = "reconcile.py"  # in traces
# Failures that keep their own code whatever request met them; health knows what they mean (G.6).
_OWN_CODES = frozenset({"projection_failed", "event_sequence_gap"})


class Request(NamedTuple):
    """What a pass is to do. quarantine: pass lines that are no events instead of failing at them."""

    settings: Settings
    quarantine: bool = False


def reconcile(
    store: LoopStore,
    transport: "Transport",
    request: Request,
    *,
    clock: Callable[[], float] = time.time,
) -> Outcome:
    """Run one pass and return what came of it; a loop that cannot be read is an outcome, too.

    clock: epoch seconds.
    Raises OpsError `state_locked` or `state_unwritable`: then the files are as they were.
    """
    settings = request.settings
    with traced.step(
        "reconcile",
        _FILE,
        settings.loop_id,
        transport=settings.transport,
        ops_trace_id=settings.trace_id,
    ) as step:
        outcome = _pass(store, transport, request, clock)
        status = text(outcome.health.get("status"))
        step.tell(status, health=status, reason_codes=outcome.health.get("reasonCodes"))
        if outcome.failure_code:
            step.fail(outcome.failure_code)
    return outcome


def _pass(store: LoopStore, transport: "Transport", request: Request, clock: Callable[[], float]) -> Outcome:
    settings = request.settings
    with store.lock():
        started_at = clock()
        known, arrived = _ingest(store, transport, request)
        now = clock()

        def judge(*, telemetry_writable: bool) -> Outcome:
            return observe(
                known,
                arrived,
                settings,
                started_at=started_at,
                now=now,
                telemetry_writable=telemetry_writable,
            )

        with traced.step("observe", _FILE, settings.loop_id):
            outcome = judge(telemetry_writable=True)
        with traced.step("commit", _FILE, settings.loop_id, escalations=len(outcome.escalations)):
            outcome = _commit(store, outcome, judge)
    index_pass(store, outcome, settings, started_at=started_at, now=now, ended_at=clock())
    return outcome


def _commit(store: LoopStore, outcome: Outcome, judge: Callable[..., Outcome]) -> Outcome:
    """Put a pass on disk; it as it stands there: where telemetry cannot be written, `judge` says so."""
    staging = store.stage(outcome)
    try:
        if not _tell_first(store, outcome):
            staging.discard()
            outcome = judge(telemetry_writable=False)
            staging = store.stage(outcome)
            _tell_last(store, outcome)
        elif not _tell_last(store, outcome):
            staging.discard()
            outcome = judge(telemetry_writable=False)
            staging = store.stage(outcome)
        store.append_quarantine(outcome.quarantine_rows)
        store.append_escalations(outcome.escalations)
    except BaseException:
        staging.discard()
        raise
    staging.commit()
    return outcome


def index_pass(
    store: LoopStore,
    outcome: Outcome,
    settings: Settings,
    *,
    now: float,
    started_at: float | None = None,
    ended_at: float | None = None,
    whole: bool = True,
) -> None:
    """Tell the trace index of a pass and its escalations; without them it still is a whole pass.

    whole False: of the escalations only, since they came of a step that is no pass.
    """
    if settings.trace_id is None:
        return

    def entry(kind: str, at: float, path: str, row: JSON) -> traceindex.Entry:
        return traceindex.Entry(
            settings.trace_id or "",
            at,
            settings.loop_id,
            kind,
            file=os.path.relpath(path, settings.repo_path),
            detail={name: row[name] for name in traceindex.DETAIL_MEMBERS[kind] if name in row},
        )

    entries = [entry("escalation", now, store.paths.escalations, row) for row in outcome.escalations]
    if whole:
        row = outcome.reconcile_row
        start = now if started_at is None else started_at
        told = entry("reconcile", start, store.paths.reconcile_telemetry, row)
        seconds = (now if ended_at is None else ended_at) - start
        entries.insert(0, told._replace(status=row["status"], seconds=seconds))
    traceindex.append(settings.repo_path, entries)


def _tell_first(store: LoopStore, outcome: Outcome) -> bool:
    """Telemetry that does not depend on whether telemetry works."""
    paths = store.paths
    told = (
        store.write_transport_health(outcome.transport_health),
        store.append_telemetry(paths.heartbeat_telemetry, outcome.heartbeat_row),
        store.append_telemetry(paths.sequence_telemetry, outcome.sequence_row),
    )
    return all(told)


def _tell_last(store: LoopStore, outcome: Outcome) -> bool:
    """Telemetry that holds the health of the pass."""
    paths = store.paths
    told = (
        store.append_telemetry(paths.reconcile_telemetry, outcome.reconcile_row),
        store.append_telemetry(paths.drift_history, outcome.drift_row),
    )
    return all(told)


# --- what the transport brings ----------------------------------------------------------------------


def _ingest(store: LoopStore, transport: "Transport", request: Request) -> tuple[Known, Arrived]:
    """What was known and what arrived. The cursor is read where v1 does: after the snapshot."""
    settings = request.settings
    known = store.read_known(settings.window)
    cursor_error: OpsError | None = None
    try:
        known = known._replace(cursor=store.read_cursor())
    except OpsError as error:
        cursor_error = error
        known = known._replace(
            damaged_documents=(*known.damaged_documents, os.path.basename(store.paths.cursor))
        )
    snapshot: pb.LoopRunSnapshot | None = None
    step = "snapshot_unavailable"
    intake = _intake(known.cursor, request)
    try:
        with traced.step("fetch", _FILE, settings.loop_id) as fetching:
            snapshot = transport.snapshot(
                settings.loop_id, trace_id=settings.trace_id, pass_invalid_lines=request.quarantine
            )
            step = "events_unavailable"
            # v1 reads on from 0 over the service when the cursor cannot be read, and fails locally.
            if cursor_error is not None and settings.transport == LOCAL and not settings.from_start:
                raise cursor_error
            _drain(transport, intake, settings)
            last_event = intake.last_event  # parses what a peer sent, so it may fail, too
            fetching.tell(f"{intake.numbers.events} events", events=intake.numbers.events)
    except OpsError as error:
        return known, Arrived(
            snapshot=snapshot,
            numbers=intake.numbers,
            change=intake.change,
            replayed=intake.replayed,
            failure_code=_failure_code(error, step, settings.transport),
            failure_message=f"{error.reason}: {error.message}",
        )
    return known, Arrived(
        # The stream's own snapshot, when it sent one, holds exactly where the events end.
        snapshot=snapshot if intake.snapshot is None else intake.snapshot,
        last_event=last_event,
        numbers=intake.numbers,
        offset=intake.offset,
        place=intake.place,
        line_count=intake.line_count,
        change=intake.change,
        bad_lines=tuple(intake.bad_lines),
        replayed=intake.replayed,
    )


def _intake(cursor: Cursor, request: Request) -> Intake:
    if request.settings.from_start:
        return Intake(Place(), start_line=0, quarantine=request.quarantine)
    return Intake(cursor.place, start_line=cursor.offset, quarantine=request.quarantine)


def _drain(transport: "Transport", intake: Intake, settings: Settings) -> None:
    """Read all there is; a gap is answered by one more stream from the last applied line."""
    try:
        _read_stream(transport, intake, settings)
    except OpsError as error:
        if error.reason != "event_sequence_gap":
            raise
        intake.reopen()
        _read_stream(transport, intake, settings)


def _read_stream(transport: "Transport", intake: Intake, settings: Settings) -> None:
    wanted = settings.max_events
    if wanted:
        # After a gap, some of them are already here.
        wanted -= intake.numbers.events
        if wanted <= 0:
            return
    for message in transport.events(
        settings.loop_id, intake.resume(), max_events=wanted, trace_id=settings.trace_id
    ):
        intake.accept(message)
    # A connection that broke after the last event wanted needs no goodbye.
    if not settings.max_events or intake.numbers.events < settings.max_events:
        intake.finish()


def _failure_code(error: OpsError, step: str, transport: str) -> str:
    """The coarse code of contract G.1 for a failure."""
    if error.reason in _OWN_CODES:
        return error.reason
    if transport == LOCAL:
        return step
    return (
        "service_response_invalid" if error.reason == "service_response_invalid" else "service_request_failed"
    )
