"""What the manager's files tell of one loop: the status document and the summary of its passes.

Nothing is written. `ops-manager` prints these documents, and a running manager sends them.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from manager.core.status import Known, status_document
from manager.core.summary import summarize
from manager.store import LoopFiles, LoopStore, loop_files
from spritemesh import files
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc
from spritemesh.values import get

DEFAULT_WINDOW = 200


class Place(NamedTuple):
    """One of the files of a status document. member: of its `files`. field: its name in LoopFiles."""

    member: str
    field: str


class Status(NamedTuple):
    """A status document. failure: why the last pass failed, which the document does not tell; None: it did
    not."""

    document: dict[str, JSON]
    failure: JSON


# In the order of contract J.
PLACES = (
    Place("stateFile", "state"),
    Place("cursorFile", "cursor"),
    Place("healthFile", "health"),
    Place("intentsFile", "intents"),
    Place("heartbeatStateFile", "heartbeat"),
    Place("heartbeatTelemetryFile", "heartbeat_telemetry"),
    Place("sequenceStateFile", "sequence_state"),
    Place("sequenceTelemetryFile", "sequence_telemetry"),
    Place("controlInvocationsFile", "control_invocations"),
    Place("driftStateFile", "drift_state"),
    Place("driftHistoryFile", "drift_history"),
    Place("alertDispatchStateFile", "alert_state"),
    Place("alertDispatchTelemetryFile", "alert_telemetry"),
    Place("reconcileTelemetryFile", "reconcile_telemetry"),
    Place("controlTelemetryFile", "control_telemetry"),
)


def loop_status(
    repo: str,
    loop_id: str,
    *,
    now: float,
    window: int = DEFAULT_WINDOW,
    overrides: Mapping[str, str | None] | None = None,
) -> Status:
    """The status document of a loop (contract J).

    repo: absolute. now: epoch seconds. window: passes to sum up, the last ones. overrides: member of `files`
    -> another file, None or "" for none. Raises OpsError: `document_missing` when the loop has not been
    reconciled yet, `document_invalid`, naming the path, for a damaged document.
    """
    own = loop_files(repo, loop_id)
    paths = {place.member: _path(place, own, (overrides or {}).get(place.member)) for place in PLACES}
    if not any(os.path.isfile(paths[member]) for member in ("stateFile", "healthFile")):
        raise OpsError(
            "document_missing",
            f"loop {loop_id} has neither {paths['stateFile']} nor {paths['healthFile']}:"
            " it has not been reconciled yet",
        )
    known = _known(paths)._replace(summary=_summary(own, repo, loop_id, window, now))
    document = status_document(
        known, now_text=format_utc(now), repo_path=repo, loop_id=loop_id, window=window, files=paths
    )
    return Status(document, get(known.last_reconcile, "failureMessage"))


def passes_summary(paths: LoopFiles, *, repo: str, loop_id: str, window: int, now: float) -> dict[str, JSON]:
    """The document of contract H.2 over the last `window` rows of the telemetry files.

    Raises OpsError, naming the file: `document_missing` without reconcile telemetry, `document_invalid`
    when a file cannot be read.
    """
    if not os.path.isfile(paths.reconcile_telemetry):
        raise OpsError("document_missing", f"reconcile telemetry {paths.reconcile_telemetry} does not exist")
    reconcile_rows, bad_rows = _rows(paths.reconcile_telemetry, window)
    control_rows, bad_controls = _rows(paths.control_telemetry, window)
    return summarize(
        reconcile_rows,
        control_rows,
        now=now,
        repo_path=repo,
        loop_id=loop_id,
        reconcile_file=paths.reconcile_telemetry,
        control_file=paths.control_telemetry,
        window=window,
        damaged=bad_rows + bad_controls,
    )


def _rows(path: str, window: int) -> tuple[list[JSON], int]:
    rows, damaged = LoopStore.tail_rows(path, window)
    if rows is None:
        raise OpsError("document_invalid", f"telemetry {path} cannot be read")
    return rows, damaged


def _path(place: Place, own: LoopFiles, given: str | None) -> str:
    if given:
        return os.path.abspath(given)
    path: str = getattr(own, place.field)
    return path


def _known(paths: Mapping[str, str]) -> Known:
    """What the files say. Raises OpsError `document_invalid`, naming the path, for a damaged document."""

    def document(member: str) -> JSON:
        return files.read_object(paths[member], what=member.removesuffix("File"))

    def last_row(member: str) -> JSON:
        """The last line of a log; None when there is none, or it is damaged (contract J)."""
        rows, _ = LoopStore.tail_rows(paths[member], 1)
        return rows[-1] if rows else None

    return Known(
        state=document("stateFile"),
        cursor=document("cursorFile"),
        health=document("healthFile"),
        heartbeat=document("heartbeatStateFile"),
        sequence=document("sequenceStateFile"),
        drift=document("driftStateFile"),
        dispatch=document("alertDispatchStateFile"),
        last_intent=last_row("intentsFile"),
        last_reconcile=last_row("reconcileTelemetryFile"),
        last_control=last_row("controlTelemetryFile"),
        last_invocation=last_row("controlInvocationsFile"),
        last_heartbeat=last_row("heartbeatTelemetryFile"),
        last_sequence=last_row("sequenceTelemetryFile"),
        last_alert=last_row("alertDispatchTelemetryFile"),
    )


def _summary(own: LoopFiles, repo: str, loop_id: str, window: int, now: float) -> JSON:
    """The telemetry summary; status goes on without it when there is none (contract H.2)."""
    try:
        return passes_summary(own, repo=repo, loop_id=loop_id, window=window, now=now)
    except OpsError:
        return None
