"""One pass over new escalations and over alerts that are due again (contract I.3, L17, L18, L27).

Order on disk, so that a crash anywhere loses no alert and tells no sink twice that had taken it: an
escalation is put into the retry queue, synced, before its first request; each acknowledgement is recorded
there before the next request; then come telemetry, the state with the offset, and last the entry's
removal. So a crash repeats at most the one request whose answer was not recorded.

The state document and its counts are about new lines only, as in v1. What became of a retry stands in the
alert telemetry: a row as for a first try, with `retryAttempt`; and, when the last try failed, one more with
`alert_retries_exhausted`. A pass with nothing but retries has the status `no_new_escalations`.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing

from manager.alerts.progress import Order, Progress
from manager.alerts.source import count_lines, read_lines, read_offset
from manager.core.alert_rows import Head, broken_row
from manager.store import LoopFiles, LoopStore
from spritemesh import files
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc

# How long a dispatcher waits for another one on the same loop, seconds.
LOCK_WAIT_SECONDS = 10.0


def dispatch(
    paths: LoopFiles,
    order: Order,
    *,
    environment: Mapping[str, str] = os.environ,
    clock: Callable[[], float] = time.time,
) -> dict[str, JSON]:
    """Run one pass and return the dispatch state that it wrote.

    environment: holds the secrets. clock: epoch seconds. Dispatchers of one loop take turns.
    Raises OpsError: `state_locked`; `state_unwritable`; `document_invalid`, naming the file, for a state or
    a retry queue that cannot be used, and for an offset beyond the file.
    """
    # Another lock than that of passes: a sink that hangs must not hold up those.
    turn = os.path.join(paths.ops, "telemetry")
    with files.locked_directory(turn, wait_seconds=LOCK_WAIT_SECONDS):
        offset = read_offset(paths.alert_state)
        lines = count_lines(paths.escalations)
        if lines is not None and offset > lines:
            raise OpsError(
                "document_invalid",
                f"{paths.alert_state}: escalationsLineOffset is {offset}, but {paths.escalations} has {lines}"
                " lines",
            )
        progress = Progress(paths, order, offset=offset, lines=lines, clock=clock)
        if offset < (lines or 0) or os.path.lexists(paths.alert_retries):
            from manager.alerts.work import Work

            end = lines or 0
            end = min(end, offset + order.limit) if order.limit else end
            with closing(Work(paths, order, progress, environment=environment, clock=clock)) as work:
                work.retry()
                for number, line in read_lines(paths.escalations, offset, end) if end > offset else ():
                    work.take(number, line)
                work.save()
        return progress.write_state()


def after_pass(
    paths: LoopFiles, order: Order, *, clock: Callable[[], float] = time.time
) -> dict[str, JSON] | None:
    """`dispatch` as the last step of reconcile, whose outcome it does not change: None when it failed.

    A failure is a row in the alert telemetry. Raises nothing.
    """
    try:
        return dispatch(paths, order, clock=clock)
    except OpsError as error:
        message = f"{error.reason}: {error.message}"
    except Exception as error:
        # A defect must not hide what the pass found. Its words could be a library's, and hold an address.
        message = f"internal_error: {type(error).__name__}"
    head = Head(format_utc(clock()), order.loop_id, order.trace_id)
    LoopStore.append_telemetry(paths.alert_telemetry, broken_row(head, message))
    return None
