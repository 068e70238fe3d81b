"""Notice that files of a loop changed: inotify where there is one, else the caller's slow poll.

inotify only says "look again": what changed is told by the files themselves. So a lost or doubled
notice costs nothing, and a caller that also looks each second is never wrong for longer.
"""

import os
from importlib import import_module
from types import ModuleType
from typing import Any

try:
    inotify: ModuleType | None = import_module("inotify_simple")
except ImportError:  # not Linux
    inotify = None

# A caller polls this often even where inotify works, seconds.
SAFETY_POLL_SECONDS = 1.0
# Ends the names of files that are renamed once they are whole (contract L8): that is the change.
_TEMPORARY = ".tmp"


class DirectoryWatch:
    """Watches directories for changes of their files. Not for use by several threads."""

    def __init__(self) -> None:
        self._inotify: Any = None
        self._names: dict[int, str] = {}
        if inotify is not None:
            try:
                self._inotify = inotify.INotify()
            except OSError:
                self._inotify = None  # the system's limit of instances: polling still works

    def fileno(self) -> int:
        """A descriptor that turns readable on a change; -1 when there is none."""
        return -1 if self._inotify is None else int(self._inotify.fileno())

    def add(self, directory: str) -> bool:
        """Watch a directory; False when that is not possible (missing, or the system's limit)."""
        if self._inotify is None or inotify is None:
            return False
        flags = inotify.flags
        mask = flags.MODIFY | flags.CREATE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE | flags.ONLYDIR
        try:
            self._names[self._inotify.add_watch(directory, mask)] = directory
        except OSError:
            return False
        return True

    def changed(self) -> set[str]:
        """Directories with changes since the last call, those of temporary files apart; does not block."""
        if self._inotify is None or inotify is None:
            return set()
        found: set[str] = set()
        for event in self._inotify.read(timeout=0):
            if event.mask & inotify.flags.Q_OVERFLOW:
                return set(self._names.values())
            directory = self._names.get(event.wd)
            if directory is not None and not event.name.endswith(_TEMPORARY):
                found.add(directory)
                if event.mask & inotify.flags.IGNORED:
                    del self._names[event.wd]
        return found

    def watches(self, directory: str) -> bool:
        """Whether the directory is being watched."""
        return directory in self._names.values()

    def close(self) -> None:
        """Release the descriptor."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None


def loop_directories(repo: str, loop_directory: str) -> tuple[str, str]:
    """The two directories whose files tell of a loop."""
    return os.path.join(repo, loop_directory), os.path.join(
        repo, os.path.dirname(os.path.dirname(loop_directory))
    )
