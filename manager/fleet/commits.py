"""Steps of loops, put on disk: state and cursor of a loop together.

Order for each loop: documents beside their places; quarantined lines and escalations, synced, failing
closed; telemetry, failing open, after all that may fail a step, since that is tried again; the documents put
in place, the cursor last. A crash anywhere leaves a cursor that is older than what was told, never one that
is newer.

Documents are not synced one by one, which would cost a fleet hundreds of syncs a second, but all together,
each second (`files.sync_file_system`). A power cut may take what came since: the log still holds it, and
reading on from an older cursor, or from the beginning, leads to the same documents.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from manager.core.facts import Settings
from manager.core.session_record import record_row
from manager.core.step import Step
from manager.reconcile import index_pass
from manager.store import LoopStore
from manager.store.swap import Swap
from spritemesh import jsontext
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.values import get


class Write(NamedTuple):
    """One loop's part of a round. session: the document session.json, None when it stays."""

    store: "SessionStore"
    step: Step
    settings: Settings
    session: dict[str, JSON] | None


class Written(NamedTuple):
    """error: why nothing of it is on disk; the files are as they were then."""

    error: OpsError | None
    telemetry_writable: bool = True


class SessionStore:
    """The files of one loop that a session owns, and what they hold as far as that matters."""

    def __init__(self, store: LoopStore) -> None:
        self.store = store
        self._judged: dict[str, JSON] = {}
        self._tells = True

    def documents(self, write: Write) -> list[tuple[str, bytes]]:
        """The documents to replace, in order: those that say something else, all of them in a fresh step."""
        step, outcome, paths = write.step, write.step.outcome, self.store.paths
        found: list[tuple[str, JSON, bool, JSON]] = [
            (paths.state, outcome.state, step.moved or step.judged, None),
            (paths.heartbeat, outcome.heartbeat, False, get(outcome.heartbeat, "freshnessStatus")),
            (paths.sequence_state, outcome.sequence, step.judged, get(outcome.sequence, "violations")),
            (paths.health, outcome.health, step.judged, get(outcome.health, "reasonCodes")),
            (paths.drift_state, outcome.drift or None, True, None),
            (paths.session, write.session, True, None),
        ]
        documents = []
        for path, document, due, judged in found:
            if document is None:
                continue
            if step.fresh or due or self._judged.get(path, self) != judged:
                documents.append((path, jsontext.encode(document) + b"\n"))
                self._judged[path] = judged
        if outcome.cursor is not None and (step.moved or step.fresh):
            documents.append((paths.cursor, jsontext.pretty(outcome.cursor) + b"\n"))
        return documents

    def forget(self) -> None:
        """What was thought to be on disk is not."""
        self._judged.clear()

    def tell(self, write: Write) -> bool:
        """Append the rows of telemetry; False when any could not be, until a document is replaced there."""
        store, step, paths = self.store, write.step, self.store.paths
        outcome = step.outcome
        records = [record_row(record, write.settings, step.now) for record in step.records]
        told = [store.append_telemetry(paths.session_telemetry, *records)]
        streak = (get(outcome.transport_health, "failureStreak"), get(outcome.transport_health, "lastResult"))
        # A step without rows proves nothing: what could not be written is tried in each of them.
        if step.whole or not self._tells or self._judged.get(paths.transport_health) != streak:
            told.append(store.write_transport_health(outcome.transport_health))
            self._judged[paths.transport_health] = streak
        rows = []
        if step.whole:
            rows = [
                (paths.heartbeat_telemetry, outcome.heartbeat_row),
                (paths.sequence_telemetry, outcome.sequence_row),
                (paths.reconcile_telemetry, outcome.reconcile_row),
                (paths.drift_history, outcome.drift_row),
            ]
        elif step.judged:
            rows = [(paths.sequence_telemetry, outcome.sequence_row)]
        told += [store.append_telemetry(path, row) for path, row in rows]
        self._tells = all(told)
        return self._tells


def write_round(writes: Sequence[Write]) -> list[Written]:
    """Put steps of different loops on disk; what became of each. Blocks: call it in a thread."""
    return [_write_safely(write) for write in writes]


def _write_safely(write: Write) -> Written:
    try:
        return _write(write)
    except Exception as defect:
        # One loop's trouble must not keep the others of the round from the disk.
        write.store.forget()
        return Written(defect_error(defect))


def defect_error(defect: Exception) -> OpsError:
    """What becomes of an exception that nobody thought of; its cause is that."""
    error = OpsError("internal_error", f"the session met a defect: {type(defect).__name__}")
    error.__cause__ = defect
    return error


def forget_frames(error: OpsError) -> None:
    """Keep what an error says, and nothing of where it came from.

    The frames that it passed know the error, and also its connection, whose sockets would stay open until the
    collector finds that circle.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None


def _write(write: Write) -> Written:
    store, step = write.store.store, write.step
    staging = Swap()
    try:
        for path, data in write.store.documents(write):
            staging.add(path, data)
        store.append_quarantine(step.outcome.quarantine_rows)
        store.append_escalations(step.outcome.escalations)
        writable = write.store.tell(write)
        staging.commit()
    except OpsError as error:
        staging.discard()
        write.store.forget()
        return Written(error)
    if step.whole or step.outcome.escalations:
        with suppress(OSError):
            index_pass(store, step.outcome, write.settings, whole=step.whole, now=step.now)
    return Written(None, writable)
