"""The file of alerts that wait for another try. It exists only while one does (contract L17)."""

import os
from collections.abc import Iterator
from contextlib import suppress

from manager.core.alert_retries import MAX_ENTRIES, Entry, document_of, entries_of
from spritemesh import files, jsontext
from spritemesh.errors import OpsError


class RetryQueue:
    """Entries by line and digest, as in the file after `save`.

    Whoever uses it holds the lock of dispatchers.
    """

    def __init__(self, path: str, loop_id: str) -> None:
        """Read the file. Raises OpsError `document_invalid`, naming it."""
        self._path = path
        self._loop_id = loop_id
        document = files.read_object(path, what="retry queue")
        found = [] if document is None else entries_of(document, path)
        self._entries = {entry.key: entry for entry in found}
        self._changed = False

    def __iter__(self) -> Iterator[Entry]:
        """In the order of their lines."""
        return iter(sorted(self._entries.values(), key=lambda entry: entry.key))

    def get(self, key: tuple[int, str]) -> Entry | None:
        return self._entries.get(key)

    def put(self, entry: Entry) -> None:
        self._entries[entry.key] = entry
        self._changed = True

    def remove(self, key: tuple[int, str]) -> None:
        if self._entries.pop(key, None) is not None:
            self._changed = True

    def take_surplus(self) -> list[Entry]:
        """Take out the oldest of those that wait, as many as are too many."""
        surplus = len(self._entries) - MAX_ENTRIES
        if surplus <= 0:
            return []
        taken = [entry for entry in self if entry.next_at is not None][:surplus]
        for entry in taken:
            self.remove(entry.key)
        return taken

    def save(self, now: float) -> None:
        """Make the file what the entries are, synced. Raises OpsError `state_unwritable`."""
        if not self._changed:
            return
        if self._entries:
            document = document_of(list(self), now=now, loop_id=self._loop_id)
            files.write_atomic(self._path, jsontext.encode(document) + b"\n")
        else:
            self._delete()
        self._changed = False

    def _delete(self) -> None:
        try:
            with suppress(FileNotFoundError):
                os.unlink(self._path)
        except OSError as error:
            raise OpsError("state_unwritable", f"cannot remove {self._path}: {error.strerror}") from error
