"""One repository with its loops: hands out one shared reader a loop."""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from sprite_agent.runtime.identity import Identity
from sprite_agent.runtime.layout import list_loop_ids, resolve_repo
from sprite_agent.runtime.loop import LoopReader

# Readers kept; each holds at most some 100 KiB of checkpoints and one open file.
_MAX_READERS = 1024


class Repository:
    """The loops under one path; raises OpsError `repo_not_found` when it is no directory."""

    def __init__(
        self,
        path: str,
        *,
        boot_id: str = "",
        sprite_id: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = resolve_repo(path)
        self.identity = Identity(boot_id, sprite_id)
        self._clock = clock
        self._lock = threading.Lock()
        self._readers: OrderedDict[str, LoopReader] = OrderedDict()

    @property
    def boot_id(self) -> str:
        """The one of this moment."""
        return self.identity.boot_id

    def renew(self, boot_id: str) -> None:
        """Answer under another boot id from now on; streams that are open have told theirs."""
        self.identity = self.identity._replace(boot_id=boot_id)

    def loop(self, loop_id: str) -> LoopReader:
        """The reader of a loop, which need not exist yet. Raises OpsError `invalid_loop_id`."""
        with self._lock:
            reader = self._readers.get(loop_id)
            if reader is None:
                reader = LoopReader(self.path, loop_id, identity=lambda: self.identity, clock=self._clock)
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

    def counted_lines(self) -> dict[str, int]:
        """Complete lines of the logs that have been read, by loop id, as of then. Reads no log."""
        with self._lock:
            readers = list(self._readers.values())
        counted = ((reader.loop_id, reader.log.known_lines) for reader in readers)
        return {loop_id: lines for loop_id, lines in counted if lines is not None}

    def close(self) -> None:
        """Release all files."""
        with self._lock:
            while self._readers:
                self._readers.popitem()[1].close()
