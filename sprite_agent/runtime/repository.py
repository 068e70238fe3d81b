"""One repository with its loops: hands out one shared reader a loop."""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from sprite_agent.runtime.layout import list_loop_ids, resolve_repo
from sprite_agent.runtime.loop import LoopReader

# Readers kept; each holds at most some 100 KiB of checkpoints and one open file.
_MAX_READERS = 1024


class Repository:
    """The loops under one path; raises OpsError `repo_not_found` when it is no directory."""

    def __init__(self, path: str, *, boot_id: str = "", clock: Callable[[], float] = time.time) -> None:
        self.path = resolve_repo(path)
        self.boot_id = boot_id
        self._clock = clock
        self._lock = threading.Lock()
        self._readers: OrderedDict[str, LoopReader] = OrderedDict()

    def loop(self, loop_id: str) -> LoopReader:
        """The reader of a loop, which need not exist yet. Raises OpsError `invalid_loop_id`."""
        with self._lock:
            reader = self._readers.get(loop_id)
            if reader is None:
                reader = LoopReader(self.path, loop_id, boot_id=self.boot_id, clock=self._clock)
                if not os.path.isdir(os.path.join(self.path, reader.paths.directory)):
                    return reader  # an id that somebody made up takes nobody's place
                self._readers[loop_id] = reader
                if len(self._readers) > _MAX_READERS:
                    # Streams may still read through it: it is closed when the last of them ends.
                    self._readers.popitem(last=False)
            self._readers.move_to_end(loop_id)
            return reader

    def loop_ids(self) -> list[str]:
        """Ids of the loops on disk, sorted."""
        return list_loop_ids(self.path)

    def close(self) -> None:
        """Release all files."""
        with self._lock:
            while self._readers:
                self._readers.popitem()[1].close()
