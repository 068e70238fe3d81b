"""A log that moves aside when it is large, as all the files that it has become (spritemesh.rotation).

A file is known by its inode, which no other one can have while it is held open. So it can be read to its
end whatever name it has by then, and even when it has none any more. Places are of one file: whoever looks
for one tries it on the files that are there.
"""

import hashlib
import logging
import os
import stat
import threading

from sprite_agent.runtime.eventlog import LogIndex
from spritemesh import rotation
from spritemesh.errors import OpsError
from spritemesh.ids import printable

_log = logging.getLogger("sprite_agent")
# Of a file that was there before those that were met first.
_OLDER = -1
# Looked at for a first line.
_FIRST_BYTES = 64 * 1024


class HeldLog(LogIndex):
    """Index of one file, held open, whatever becomes of its name. handle: a descriptor, closed at the end.

    number: files that followed each other have numbers that do. path: where it was seen last.
    """

    def __init__(self, path: str, handle: int) -> None:
        super().__init__(path)
        self._file = handle
        self.identity = identity_of(os.fstat(handle))
        self.number = _OLDER

    def may_begin_with(self, digest: bytes) -> bool:
        """Whether SHA-256 of the first line may be this one: spares indexing a file that no place can fit.

        digest: empty for any. Raises OpsError `log_unavailable`.
        """
        with self._lock:
            self._stat()
            beginning = self._pread(_FIRST_BYTES, 0)
        end = beginning.find(b"\n") + 1
        return not (digest and end) or hashlib.sha256(beginning[:end]).digest() == digest

    def _stat(self) -> tuple[int, int, int, int]:
        if self._file < 0:
            raise OpsError("log_unavailable", f"{self.path} is not read any more", retry_after=1)
        status = os.fstat(self._file)
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def _open_current(self) -> None:
        """It is the one that is held."""

    def _lose_file(self) -> None:
        self._signature = None


class RotatedLog:
    """The files of the log at `path`; safe to share between threads. Nothing is read before `look`.

    told: what the agent's log was last told of a path that cannot be read.
    """

    def __init__(self, path: str, told: dict[str, str]) -> None:
        self.path = path
        # Where `path` led at the last look: links are followed.
        self.real_path = path
        # Those of the last look, the oldest first.
        self.logs: tuple[HeldLog, ...] = ()
        self._lock = threading.Lock()
        self._named: tuple[int, int] | None = None  # what `path` named at the last look
        self._last = _OLDER  # number of the youngest file that was ever met
        self._told = told
        self._has_looked = False
        self._is_closed = False

    def is_settled(self) -> bool:
        """Whether `path` names what it did at the last look; costs a stat."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return self._has_looked and self._named is None
        except OSError:
            return False
        # What is no file, or could not be opened, is looked at again: it may have been mended.
        return self._named == identity_of(status)

    def look(self) -> None:
        """See which files there are now. Costs some twenty system calls; reads nothing."""
        with self._lock:
            if self._is_closed:
                return
            self._has_looked = True
            self.real_path = os.path.realpath(self.path)
            try:
                with rotation.generations(self.path) as found:
                    is_file = self._take(found)
            except OSError as error:
                self.warn(error)
            else:
                self._tell("" if is_file else "it is no regular file")

    def warn(self, error: OSError) -> None:
        """Tell the agent's log that the file cannot be read, once for each kind of trouble."""
        self._tell(error.strerror or type(error).__name__)

    def after(self, log: HeldLog) -> tuple[HeldLog | None, bool]:
        """The file that was begun after this one, None when there is none; and whether others may have been
        between them that are lost."""
        logs = self.logs
        if log in logs:
            younger = logs[logs.index(log) + 1 :]
        else:
            younger = tuple(other for other in logs if other.number > log.number)
        return (younger[0], younger[0].number != log.number + 1) if younger else (None, False)

    def close(self) -> None:
        """Release all files, for good, without waiting: what a look under way finds goes with the log."""
        self._is_closed = True
        for log in self.logs:
            log.close()
        self.logs = ()

    def _tell(self, problem: str) -> None:
        if problem == self._told.get(self.path, ""):
            return
        self._told[self.path] = problem
        if problem:
            _log.warning("cannot read %s: %s [log_unavailable]", printable(self.path, 4096), problem)
        else:
            del self._told[self.path]

    def _take(self, found: list[rotation.Generation]) -> bool:
        """Hold what was found, the youngest first, and number what is new. False: `path` is no file."""
        is_file = True
        known = {log.identity: log for log in self.logs}
        logs: list[HeldLog] = []
        self._named = None
        for generation in reversed(found):
            status = os.fstat(generation.handle)
            if not stat.S_ISREG(status.st_mode):
                is_file = is_file and generation.name != self.path
                continue
            identity = identity_of(status)
            log = known.get(identity) or HeldLog(generation.name, os.dup(generation.handle))
            log.path = generation.name
            logs.append(log)
            if generation.name == self.path:
                self._named = identity
        new = len(logs)
        while new and logs[new - 1].identity not in known:
            new -= 1
        # Where the youngest one is gone there may have been others after it.
        is_last_there = self._last == _OLDER or any(log.number == self._last for log in logs[:new])
        for number, log in enumerate(logs[new:], self._last + (1 if is_last_there else 2)):
            log.number = self._last = number
        self.logs = tuple(logs)
        return is_file


def identity_of(status: os.stat_result) -> tuple[int, int]:
    """What tells a file from all others while it is open."""
    return status.st_dev, status.st_ino
