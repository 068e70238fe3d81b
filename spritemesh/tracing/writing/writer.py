"""The way of a process's lines to its trace file, and of what people are to see to standard error.

Two threads at most, one for each: a terminal that nobody reads does not keep lines from the file, and a disk
that does not answer keeps nobody from being told.
"""

import os
import sys
import time
from typing import TextIO

from spritemesh import jsontext, rotation
from spritemesh.tracing import identity
from spritemesh.tracing.layers import SYSTEM
from spritemesh.tracing.recorder import stamp
from spritemesh.tracing.writing.carrier import Carrier
from spritemesh.tracing.writing.outputs import Screen, make_place, output_at

# Lines gather for so long: longer, and each write, for which the program's threads have to let go of the
# interpreter a few times, comes less often; shorter, and less is lost with a process that is killed.
_INTERVAL_SECONDS = 0.05
# People see something happen.
_SCREEN_SECONDS = 0.02
# The longest that a process lives on for its lines.
EXIT_SECONDS = 2.0
# For the last words, after the time for all others is over.
_LAST_SECONDS = 0.2


class Writer:
    """Takes lines for a file, and texts to show; once it is made, nothing here raises.

    path: a file, made if it is missing, below the working directory with its directory, or what else can be
    written to. max_bytes: a larger file moves aside;
    keep: files that stay then. console: where texts are shown; standard error by default. Raises OSError or
    ValueError where nothing can be written.
    """

    def __init__(
        self, path: str, *, max_bytes: int, keep: int = rotation.KEEP, console: TextIO | None = None
    ) -> None:
        make_place(path)
        # The program may go elsewhere.
        self.path = os.path.abspath(path)
        output = output_at(self.path, max_bytes=max_bytes, keep=keep)
        self._file = Carrier(output, interval=_INTERVAL_SECONDS, report=_dropped)
        screen = Screen(console or sys.stderr)
        self._screen = Carrier(screen, interval=_SCREEN_SECONDS, report=_not_shown)
        # Lines of whose loss was said.
        self._mourned = 0
        # One call less for each line.
        self.put = self._file.put

    @property
    def dropped(self) -> int:
        """Lines of this process that were not written, and never will be."""
        return self._file.dropped

    def show(self, text: str) -> None:
        """Have people see a line, after those that were shown before it. Waits for nothing."""
        self._screen.put(text.encode(errors="replace") + b"\n")

    def flush(self, seconds: float) -> bool:
        """Wait until all lines and texts are written, and say whether all are. No longer than `seconds`, and
        for none that cannot be written."""
        deadline = time.monotonic() + seconds
        is_written = self._file.flush(seconds)
        return self._screen.flush(deadline - time.monotonic()) and is_written

    def hasten(self, seconds: float) -> None:
        """The process ends: from now on, each put waits until it is written, all for at most `seconds`."""
        self._file.hasten(seconds)
        self._screen.hasten(seconds)

    def finish(self, seconds: float) -> None:
        """Write what waits, as far as there is time, and say on standard error if lines were lost."""
        deadline = time.monotonic() + seconds
        # What others put meanwhile waits for itself.
        lost = self._file.dropped
        why = self._file.cause or "they came faster than they could be written"
        if not self._file.flush(seconds):
            lost += self._file.waiting
            why = self._file.problem or "writing took too long"
        if lost > self._mourned:
            self._mourned = lost
            self.show(f"spritemesh: {lost} trace events are missing in {self.path}: {why}")
        self._screen.flush(max(deadline - time.monotonic(), _LAST_SECONDS))

    def close(self, seconds: float = EXIT_SECONDS) -> None:
        """As finish; and what is put from now on is dropped."""
        self.finish(seconds)
        self._file.stop()
        self._screen.stop()

    def reset(self) -> None:
        """In the child of a fork: what waits is the parent's."""
        self._file.reset()
        self._screen.reset()
        self._mourned = 0


def _dropped(count: int) -> bytes:
    """The line that tells of lines that were dropped."""
    seconds = time.time()
    event: jsontext.JSON = {
        "trace_id": identity.new_id(SYSTEM.prefix, seconds),
        "parent_id": None,
        "timestamp": stamp(seconds),
        "hrm_layer": SYSTEM.name,
        "operation": "dropped",
        "component": "spritemesh.tracing",
        "input_summary": "",
        "output_summary": f"{count} events were dropped",
        "duration_ms": 0.0,
        "status": "error",
        "metadata": {"dropped": count, "pid": os.getpid()},
    }
    return jsontext.encode(event) + b"\n"


def _not_shown(count: int) -> bytes:
    return f"… {count} lines are not shown\n".encode()
