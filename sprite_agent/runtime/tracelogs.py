"""The trace files of one repository, each held and indexed once for all who read it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sprite_agent.runtime.generations import RotatedLog
from sprite_agent.runtime.layout import trace_files


class TraceLogs:
    """Hands out the files. Of one event loop, or thread. repo: path of the repository. named: paths of
    further files, relative to it or absolute."""

    def __init__(self, repo: str, named: Sequence[str] = ()) -> None:
        self._repo = repo
        self._named = named
        self._open: dict[str, tuple[RotatedLog, int]] = {}  # and by how many
        # Kept beyond the last reader, so that the agent's log is told once.
        self._told: dict[str, str] = {}

    @contextmanager
    def opened(self, loop_id: str = "") -> Iterator[dict[str, RotatedLog]]:
        """The files of the whole repository and of a loop, by the names that subscribers know. They are
        released when nobody has them any more. Raises OpsError `invalid_loop_id`."""
        names = trace_files(self._repo, loop_id, self._named)
        files = {name: os.path.join(self._repo, name) for name in names}
        found = {name: self._take(path) for name, path in files.items()}
        try:
            yield found
        finally:
            for path in files.values():
                self._give(path)

    def _take(self, path: str) -> RotatedLog:
        log, count = self._open.get(path) or (RotatedLog(path, self._told), 0)
        self._open[path] = log, count + 1
        return log

    def _give(self, path: str) -> None:
        log, count = self._open[path]
        if count > 1:
            self._open[path] = log, count - 1
        else:
            del self._open[path]
            log.close()
