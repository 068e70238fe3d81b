"""What one pass does for the runtime's traces: it stores the lines that are new, within a bounded time.

The pass is on disk and told by then, and nothing of it depends on this.
"""

import time
from typing import TYPE_CHECKING

from spritemesh.errors import OpsError

if TYPE_CHECKING:
    from manager.store import LoopFiles
    from manager.transport import Transport

# What is left then is for the next pass.
PASS_SECONDS = 3.0
# Of lines that are stored in one go.
_ROOM_BYTES = 1024 * 1024
# Reasons that are no trouble: another process is at it, or the agent is older.
_EXPECTED = frozenset({"state_locked", "unsupported_method"})


def drain(
    paths: "LoopFiles", transport: "Transport", loop_id: str, *, seconds: float = PASS_SECONDS
) -> OpsError | None:
    """Store the trace lines that came since the last pass; why that failed, if it is worth telling.

    Raises nothing for what an agent or the disk does.
    """
    try:
        mark = transport.trace_mark(loop_id)
        if mark == 0:
            return None  # most sprites have no trace files
        return _drain(paths, transport, loop_id, seconds, mark)
    except OpsError as error:
        return None if error.reason in _EXPECTED else error
    except Exception as defect:
        # The pass has come out well, whatever its traces hold.
        return OpsError("internal_error", f"reading traces met a defect: {type(defect).__name__}: {defect}")


def _drain(
    paths: "LoopFiles", transport: "Transport", loop_id: str, seconds: float, mark: int | None
) -> OpsError | None:
    """As drain; what raises is told by that."""
    # Late: see above.
    from manager.core.runtime_traces import TraceIntake
    from manager.store.runtime_traces import TraceStore
    from spritemesh import files

    until = time.monotonic() + seconds
    with files.locked_directory(paths.ops, wait_seconds=0):
        store = TraceStore(paths, loop_id)
        cursor = store.open()
        if mark is not None and mark == cursor.mark:
            return None
        intake = TraceIntake(cursor.places)
        lines: list[bytes] = []
        size = 0
        try:
            # A stream that brings anything is left here, one that brings nothing by its own time limit.
            for message in transport.traces(loop_id, intake.resume(), seconds + 1.0):
                found = intake.accept(message)
                lines += found
                size += sum(map(len, found))
                if size >= _ROOM_BYTES:
                    store.write(lines, intake.places)
                    lines, size = [], 0
                if time.monotonic() > until:
                    break
        finally:
            # What came counts, whatever ended the stream.
            is_whole = intake.ended == "drained_to_head"
            if lines or intake.places != cursor.places or (is_whole and mark):
                store.write(lines, intake.places, (mark or 0) if is_whole else 0)
        return store.problem
