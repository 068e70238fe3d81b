"""The repository of a sprite: whether its layout and the runtime's files can be read."""

import os
import time

from sprite_agent.probe.disk import check_writable, exposed, told_files
from sprite_agent.probe.steps import Found, Steps, skip, warn, well
from sprite_agent.runtime.eventlog import Head
from sprite_agent.runtime.events import fill_events
from sprite_agent.runtime.layout import RUNTIME_ROOT, agent_directory, list_loop_ids, loop_paths
from sprite_agent.runtime.loop import LoopReader
from spritemesh.errors import OpsError
from superloop.ops.v1 import envelope_pb2 as pb

# The last so many bytes of each log are looked through for lines that are no events, up to so many lines.
_LOG_BYTES = 1024 * 1024
_MOST_INVALID = 1000
# An index takes in a GiB in about a second; a cold disk is slower. A log that would take longer is not read.
_BYTES_A_SECOND = 200_000_000
# Each loop whose reading ends otherwise than well has a step of its own, up to so many.
_SHOWN_LOOPS = 20


class Repository:
    """Steps over the repository at an absolute path."""

    def __init__(self, path: str, steps: Steps, *, loop_id: str = "") -> None:
        """loop_id: only this loop is read; "": all of them."""
        self._path = path
        self._steps = steps
        self._wanted = loop_id
        self._ids: list[str] = []
        self._read = self._left_out = 0
        self._troubles: list[tuple[str, OpsError]] = []
        self._invalid: list[tuple[str, int, str]] = []
        self._lines = 0

    def run(self) -> None:
        """Take them all."""
        take = self._steps.take
        take("layout", self._layout)
        take("loops", self._loops, needs=("layout",))
        for loop_id, error in self._troubles[:_SHOWN_LOOPS]:
            take(f"loop {loop_id}", lambda error=error: _trouble(error))  # type: ignore[misc]
        take("events", self._events, needs=("layout",))

    def _layout(self) -> Found:
        loops = os.path.join(self._path, RUNTIME_ROOT, "loops")
        try:
            os.listdir(loops)
        except FileNotFoundError:
            return warn(
                "loop_not_found", f"there is no {loops}: the runtime has not run here", "Start a loop once."
            )
        except OSError as error:
            raise OpsError("artifact_invalid", f"{loops} cannot be read: {error.strerror}") from error
        self._ids = [self._wanted] if self._wanted else list_loop_ids(self._path)
        return well(f"{loops}: loops: {len(self._ids)}")

    def _loops(self) -> Found:
        """Read every loop as an agent would, for as long as the step lasts."""
        deadline = time.monotonic() + self._steps.patience
        lines = 0
        for loop_id in self._ids:
            left = deadline - time.monotonic()
            if left <= 0 or self._size(loop_id) > left * _BYTES_A_SECOND:
                self._left_out += 1
                continue
            self._read += 1
            try:
                lines += self._loop(loop_id)
            except OpsError as error:
                self._troubles.append((loop_id, error))
        told = f"{self._read - len(self._troubles)} of {len(self._ids)} can be read, with {lines} lines"
        if self._left_out:
            return warn(
                "deadline_exceeded",
                f"{told}; without the time to read {self._left_out} of them",
                "Give more with --timeout, or name one with --loop.",
            )
        return well(told)

    def _size(self, loop_id: str) -> int:
        """Bytes of the log; 0 when it cannot be told, and reading will say why."""
        try:
            return os.stat(os.path.join(self._path, loop_paths(loop_id).events)).st_size
        except (OSError, OpsError):
            return 0

    def _loop(self, loop_id: str) -> int:
        """Complete lines of the log. Raises OpsError naming the file that cannot be used."""
        reader = LoopReader(self._path, loop_id)
        try:
            head = reader.head()
            self._look_through(reader, head)
            reader.snapshot(pass_invalid_lines=True)
        finally:
            reader.close()
        return head.line

    def _look_through(self, reader: LoopReader, head: Head) -> None:
        """Note lines near the end of the log that are no events."""
        start = max(0, head.offset - _LOG_BYTES)
        lines = reader.log.read(head, start, head.offset - start).split(b"\n")[:-1]
        if start:
            del lines[:1]  # its beginning is not there
        self._lines += len(lines)
        number = head.line - len(lines) + 1
        while lines and len(self._invalid) < _MOST_INVALID:
            batch = pb.EventBatch()
            taken, reason = fill_events(batch.events, number, lines)
            if not reason:
                return
            number += taken
            self._invalid.append((reader.paths.events, number, reason))
            number += 1
            del lines[: taken + 1]

    def _events(self) -> Found:
        if not self._read:
            return skip("there is no loop")
        if self._invalid:
            log, number, reason = self._invalid[0]
            return warn(
                reason,
                f"of the last {self._lines} lines, no events: {len(self._invalid)};"
                f" the first is line {number} of {log}",
            )
        return well(f"the last {self._lines} lines are events")

    def check_files(self) -> Found:
        """The step: the agent's own files can be written, and are its own."""
        directory = agent_directory(self._path)
        check_writable(directory)
        check_writable(os.path.join(self._path, RUNTIME_ROOT, "ops-manager"))
        found = exposed(directory)
        if found:
            return warn("file_exposed", told_files("other users may read or write", found))
        return well(f"{directory} can be written, and nobody else reads it")


def _trouble(error: OpsError) -> Found:
    """A loop that cannot be read. One that has not begun is no fault."""
    if error.reason == "events_missing":
        return warn(error.reason, error.message)
    raise error
