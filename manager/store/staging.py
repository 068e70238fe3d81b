"""Several documents replaced as nearly at once as a file system allows.

Writing is what fails: no space, no permission, a directory in the way. So everything is written and
synced beside its place first, and only when all of that worked are the files renamed, in the order in
which they were added.
"""

import errno
import os
from contextlib import suppress

from spritemesh import modes
from spritemesh.errors import OpsError
from spritemesh.files import open_temporary, sync_directory


class Staging:
    """Documents on their way. Use `add` for each, then `commit` or `discard`."""

    def __init__(self) -> None:
        self._staged: list[tuple[int, str, str]] = []  # descriptor, temporary file, document

    def add(self, path: str, data: bytes) -> None:
        """Write `data` beside `path`, making missing directories.

        Raises OpsError `state_unwritable`, naming `path`, after discarding all that was added.
        """
        try:
            if os.path.isdir(path):
                raise IsADirectoryError(errno.EISDIR, "it is a directory")
            modes.make_directory(os.path.dirname(path) or ".")
            handle, temporary = open_temporary(path)
            self._staged.append((handle, temporary, path))
            modes.keep_mode(handle, path)
            _write_all(handle, data)
            os.fsync(handle)
        except OSError as error:
            self.discard()
            raise OpsError("state_unwritable", f"cannot write {path}: {error.strerror}") from error

    def commit(self) -> None:
        """Put the documents in place, in order. Raises OpsError `state_unwritable`; the rest stays old."""
        directories: dict[str, None] = {}
        try:
            while self._staged:
                handle, temporary, path = self._staged[0]
                os.replace(temporary, path)
                os.close(handle)
                del self._staged[0]
                directories[os.path.dirname(path) or "."] = None
            for directory in directories:
                sync_directory(directory)
        except OSError as error:
            path = self._staged[0][2] if self._staged else next(iter(directories), "")
            self.discard()
            raise OpsError("state_unwritable", f"cannot write {path}: {error.strerror}") from error

    def discard(self) -> None:
        """Leave the files as they were."""
        while self._staged:
            handle, temporary, _ = self._staged.pop()
            with suppress(OSError):
                os.unlink(temporary)
            os.close(handle)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
