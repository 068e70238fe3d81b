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
from typing import TYPE_CHECKING

from manager.alerts.progress import Budget, Order, Progress
from manager.alerts.source import count_lines, read_lines, read_offset
from manager.core.alert_rows import Head, broken_row
from manager.store import LoopFiles, LoopStore
from spritemesh import files, traced
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc

if TYPE_CHECKING:
    from manager.alerts.work import Work

# How long a dispatcher waits for another one on the same loop, seconds; and inside reconcile.
LOCK_WAIT_SECONDS = 10.0
PASS_LOCK_WAIT_SECONDS = 0.5
# Inside reconcile nothing new is begun after so many seconds: who waits for the pass waits for alerts, too.
PASS_SECONDS = 30.0


def dispatch(
    paths: LoopFiles,
    order: Order,
    *,
    environment: Mapping[str, str] = os.environ,
    clock: Callable[[], float] = time.time,
    seconds: float | None = None,
    lock_wait: float = LOCK_WAIT_SECONDS,
) -> dict[str, JSON]:
    """Run one pass and return the dispatch state that it wrote.

    environment: holds the secrets. clock: epoch seconds. seconds: after them nothing new is begun, and the
    offset stays before what is left; None: no limit. Dispatchers of one loop take turns; lock_wait: seconds
    to wait for the turn. Escalations that come while the pass runs belong to it: who brought them may not
    have waited.
    Raises OpsError: `state_locked`; `state_unwritable`; `document_invalid`, naming the file, for a state or
    a retry queue that cannot be used, and for an offset beyond the file.
    """
    budget = Budget(seconds)
    # Another lock than that of passes: a sink that hangs must not hold up those.
    turn = os.path.join(paths.ops, "telemetry")
    told = traced.step("alerts", "dispatch.py", order.loop_id, ops_trace_id=order.trace_id)
    with told, files.locked_directory(turn, wait_seconds=lock_wait):
        offset = read_offset(paths.alert_state)
        lines = count_lines(paths.escalations)
        progress = Progress(paths, order, offset=offset, lines=lines, clock=clock)
        if offset < (lines or 0) or os.path.lexists(paths.alert_retries):
            from manager.alerts.work import Work

            with closing(Work(paths, order, progress, budget, environment=environment, clock=clock)) as work:
                work.retry()
                if offset <= (lines or 0):
                    _take_new(paths, order, progress, budget, work)
        if lines is not None and offset > lines:
            raise OpsError(
                "document_invalid",
                f"{paths.alert_state}: escalationsLineOffset is {offset}, but {paths.escalations} has {lines}"
                " lines",
            )
        counts = progress.counts
        told.tell(
            f"{counts.dispatched} dispatched, {counts.failed} failed",
            dispatched=counts.dispatched,
            failed=counts.failed,
            reason_codes=sorted(counts.reasons),
        )
        return progress.write_state()


def _take_new(paths: LoopFiles, order: Order, progress: Progress, budget: Budget, work: "Work") -> None:
    """Do the lines after the offset, as many as limit and time allow."""
    first = progress.offset
    while progress.offset < (progress.lines or 0):
        end = progress.lines or 0
        end = min(end, first + order.limit) if order.limit else end
        for number, line in read_lines(paths.escalations, progress.offset, end):
            if budget.is_used_up():
                break
            work.take(number, line)
        work.save()
        if order.limit or budget.is_used_up():
            return
        progress.lines = count_lines(paths.escalations)


def after_pass(
    paths: LoopFiles, order: Order, *, clock: Callable[[], float] = time.time
) -> dict[str, JSON] | None:
    """`dispatch` as the last step of reconcile, whose outcome it does not change.

    None when it failed, or when another dispatcher is at work, which sees what is new as well.

    A failure is a row in the alert telemetry. Raises nothing.
    """
    try:
        return dispatch(paths, order, clock=clock, seconds=PASS_SECONDS, lock_wait=PASS_LOCK_WAIT_SECONDS)
    except OpsError as error:
        if error.reason == "state_locked":
            return None
        message = f"{error.reason}: {error.message}"
    except Exception as error:
        # A defect must not hide what the pass found. Its words could be a library's, and hold an address.
        message = f"internal_error: {type(error).__name__}"
    head = Head(format_utc(clock()), order.loop_id, order.trace_id)
    # Where there can be no row, the health of the pass says so (`telemetry_unwritable`): standard error
    # stays empty (contract G.1).
    LoopStore.append_telemetry(paths.alert_telemetry, broken_row(head, message))
    return None
