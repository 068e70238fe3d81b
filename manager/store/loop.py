"""Typed reads and writes of one loop's manager files."""

import os
from contextlib import AbstractContextManager

from manager.core import summary
from manager.core.cursor import Cursor, read_cursor
from manager.core.facts import Known, Outcome
from manager.store.paths import LoopFiles
from manager.store.staging import Staging
from spritemesh import files, jsontext, rotation
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON

# How long a pass waits for another one on the same loop, seconds.
LOCK_WAIT_SECONDS = 10.0
# A telemetry file that has grown so large moves aside (L25). With the old ones that stay it is some 25,000
# passes: far more than any summary window.
ROTATE_BYTES = 4 * 1024 * 1024
# Rows of quarantine.jsonl among which a line is looked for before it is recorded once more.
_QUARANTINE_TAIL = 1000


class LoopStore:
    """The files of one loop. Reading tolerates damage and tells of it; writing is all or nothing."""

    def __init__(self, paths: LoopFiles) -> None:
        self.paths = paths

    def lock(self) -> AbstractContextManager[None]:
        """Hold this loop against other processes; makes the manager directory. Raises OpsError
        `state_locked` after LOCK_WAIT_SECONDS."""
        return files.locked_directory(self.paths.ops, wait_seconds=LOCK_WAIT_SECONDS)

    # --- reading ------------------------------------------------------------------------------------

    def read_known(self, window: int) -> Known:
        """All that a pass judges against, except the cursor, which has errors of its own.

        window: rows of telemetry that a summary covers, the pass to come included.
        """
        return self._with_documents(self.read_history(window))

    def _with_documents(self, known: Known) -> Known:
        paths = self.paths
        damaged: list[str] = []
        documents = {
            field: self._document(getattr(paths, field), damaged)
            for field in (
                "state",
                "health",
                "heartbeat",
                "sequence_state",
                "transport_health",
                "drift_state",
            )
        }
        return known._replace(
            state=documents["state"],
            health=documents["health"],
            heartbeat=documents["heartbeat"],
            sequence=documents["sequence_state"],
            transport_health=documents["transport_health"],
            drift=documents["drift_state"],
            damaged_documents=tuple(damaged),
        )

    def read_history(self, window: int) -> Known:
        """The rows of passes and of control before a pass, of which a summary is made, and the last intent.

        window: as in read_known. Of each row there is what a summary reads: the whole rows of a full window
        are half a megabyte.
        """
        rows, bad_rows = self.tail_rows(self.paths.reconcile_telemetry, window - 1)
        controls, bad_controls = self.tail_rows(self.paths.control_telemetry, window)
        return Known(
            last_intent=self.last_intent(),
            reconcile_rows=_summarized(rows),
            control_rows=_summarized(controls),
            damaged_lines=bad_rows + bad_controls,
        )

    def read_cursor(self) -> Cursor:
        """The cursor; the beginning when there is none. Raises OpsError `cursor_invalid`, naming the file."""
        path = self.paths.cursor
        try:
            return read_cursor(files.read_json(path, what="cursor"), path)
        except OpsError as error:
            if error.reason == "document_invalid":
                raise OpsError("cursor_invalid", error.message) from error
            raise

    def read_standing(self) -> Known:
        """Documents and cursor, without rows. A cursor that cannot be read counts as the beginning, and as
        damaged: what was applied is applied again, from the same lines."""
        known = self._with_documents(Known())
        try:
            return known._replace(cursor=self.read_cursor())
        except OpsError:
            name = os.path.basename(self.paths.cursor)
            return known._replace(damaged_documents=(*known.damaged_documents, name))

    def last_intent(self) -> JSON:
        """The last row of intents.jsonl; None when there is none or it does not parse (contract G.6)."""
        try:
            lines = files.tail_lines(self.paths.intents, 1)
            return jsontext.parse(lines[0]) if lines else None
        except (OSError, jsontext.JSONError):
            return None

    @staticmethod
    def tail_rows(path: str, count: int) -> tuple[list[JSON] | None, int]:
        """The objects among the last `count` lines of a telemetry file, and how many lines were damaged.

        Goes on in the rotated files when there are too few. None when the file cannot be read.
        """
        if count < 1:
            return [], 0
        try:
            lines = rotation.tail_lines(path, count)
        except OSError:
            return None, 0
        rows: list[JSON]
        rows, damaged = summary.parse_rows(lines)
        return rows, damaged

    def _document(self, path: str, damaged: list[str]) -> JSON:
        """The object in `path`; None when there is none, or, noted in `damaged`, when it is not usable."""
        try:
            return files.read_object(path)
        except OpsError:
            damaged.append(os.path.basename(path))
            return None

    # --- writing ------------------------------------------------------------------------------------

    def stage(self, outcome: Outcome) -> Staging:
        """Write the documents of a pass beside their places; the cursor comes last (L10).

        Raises OpsError `state_unwritable`; nothing has changed then.
        """
        paths = self.paths
        staging = Staging()
        for path, document in (
            (paths.state, outcome.state),
            (paths.heartbeat, outcome.heartbeat),
            (paths.sequence_state, outcome.sequence),
            (paths.health, outcome.health),
            (paths.drift_state, outcome.drift),
        ):
            if document is not None:
                staging.add(path, jsontext.encode(document) + b"\n")
        if outcome.cursor is not None:
            staging.add(paths.cursor, jsontext.pretty(outcome.cursor) + b"\n")
        return staging

    def write_transport_health(self, document: JSON) -> bool:
        """Replace telemetry/transport-health.json; False when it could not be written (fails open)."""
        try:
            files.write_atomic(self.paths.transport_health, jsontext.encode(document) + b"\n")
        except OpsError:
            return False
        return True

    @staticmethod
    def append_telemetry(path: str, *rows: JSON | None) -> bool:
        """Append rows, those that are there; False when that failed (fails open)."""
        try:
            rotation.append_rows(path, [row for row in rows if row is not None], limit=ROTATE_BYTES)
        except OSError:
            return False
        return True

    def append_quarantine(self, rows: list[dict[str, JSON]]) -> None:
        """Record lines that the cursor is about to pass, synced, each once.

        Fails closed with OpsError `state_unwritable`: a line may not vanish without a record (L4).
        """
        if not rows:
            return
        path = self.paths.quarantine
        recorded, _ = self.tail_rows(path, _QUARANTINE_TAIL)
        seen = {(row.get("line"), row.get("sha256")) for row in recorded or []}
        self._append_synced(path, [row for row in rows if (row["line"], row["sha256"]) not in seen])

    def append_escalations(self, rows: list[dict[str, JSON]]) -> None:
        """Append to escalations.jsonl, synced. Raises OpsError `state_unwritable`."""
        self._append_synced(self.paths.escalations, rows)

    @staticmethod
    def _append_synced(path: str, rows: list[dict[str, JSON]]) -> None:
        try:
            files.append_rows(path, rows, sync=True)
        except OSError as error:
            raise OpsError("state_unwritable", f"cannot write {path}: {error.strerror}") from error


def _summarized(rows: list[JSON] | None) -> list[JSON] | None:
    """Rows without the members that no summary reads."""
    if rows is None:
        return None
    return [
        {name: value for name, value in row.items() if name in summary.MEMBERS}
        for row in rows
        if isinstance(row, dict)
    ]
