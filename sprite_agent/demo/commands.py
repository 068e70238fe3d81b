"""The runtime's command lines for control, as the demo obeys them (contract E.1)."""

import os
import signal
import time
from collections.abc import Callable

from sprite_agent.demo import documents
from sprite_agent.demo.running import Running, find_running, runtime_root
from sprite_agent.demo.traces import OF_DEMO
from sprite_agent.demo.writer import read_approval, remove
from sprite_agent.runtime.layout import loop_paths
from spritemesh import files, jsontext, times
from spritemesh.errors import OpsError
from spritemesh.tracing.points import altitude, focus, memory

# How long a signalled demo loop may take to end; it needs one write at most.
CANCEL_WAIT_SECONDS = 10.0
_POLL_SECONDS = 0.02
_LOCK_WAIT_SECONDS = 5.0


def cancel(repo: str) -> str:
    """End the repository's demo loop, whichever it is, and remove state.json and active-run.json.

    Returns a sentence about what was done. Logs no event, leaves approval.json alone, and returns only
    when the process is gone. What a killed run left behind is removed, too.

    Raises OpsError `nothing_running` when there is nothing of either kind, or when the process is no
    demo loop (it is then left alone, with its files); `already_running` when it does not end in time.
    """
    with altitude.execute(altitude="L1", action_type="cancel", **OF_DEMO) as span:
        told = _cancel(repo)
        span.set_output(told)
    return told


def _cancel(repo: str) -> str:
    running = find_running(repo)
    if running is None:
        if not _remove_state(repo):
            raise OpsError("nothing_running", f"no demo loop is running in {repo}")
        return "no demo loop was running; removed the state of one that had ended"
    pid = running.process.pid
    if not running.demo:
        raise OpsError(
            "nothing_running", f"process {pid} runs in {repo}, but is no demo loop of it: left alone"
        )
    _end(running)
    _remove_state(repo)
    return f"cancelled the demo loop of process {pid}"


def decide(
    repo: str, loop_id: str, *, by: str, note: str, status: str, clock: Callable[[], float] = time.time
) -> str:
    """Record a decision in approval.json and log it as `approval_decision`; returns a sentence.

    status: `approved` or `rejected`. by may be "". note: "" for none. What follows from the decision is
    left to the run.

    Raises OpsError `nothing_pending`; `document_invalid` when approval.json cannot be used;
    `state_locked` when another decision is under way; `state_unwritable`; OSError.
    """
    with focus.gate_check(gate_type="approval", decision=status, **OF_DEMO) as span:
        told = _decide(repo, loop_id, by=by, note=note, status=status, clock=clock)
        span.set_output(told)
    return told


def _decide(repo: str, loop_id: str, *, by: str, note: str, status: str, clock: Callable[[], float]) -> str:
    paths = loop_paths(loop_id)
    directory = os.path.join(repo, paths.directory)
    if not os.path.isdir(directory):
        raise OpsError("nothing_pending", f"no approval is pending: there is no loop {directory}")
    # Held for both writes: the run takes it before it acts, so its lines come after the decision's.
    with files.locked_directory(directory, wait_seconds=_LOCK_WAIT_SECONDS, private=False):
        with memory.read(namespace="approval", key=loop_id, tier="file", **OF_DEMO):
            request = read_approval(repo, loop_id)
        if request is None or request["status"] != "pending":
            found = "no approval was asked for" if request is None else f"it is {request['status']} already"
            raise OpsError("nothing_pending", f"no approval is pending for loop {loop_id!r}: {found}")
        now = times.format_utc(clock())
        decided = documents.decided(request, status=status, by=by, note=note, now=now)
        with memory.write(namespace="approval", key=loop_id, tier="file", **OF_DEMO) as kept:
            files.write_atomic(
                os.path.join(repo, paths.approval), jsontext.encode(decided) + b"\n", private=False
            )
            kept.set_output(status)
        row = documents.event_row(
            timestamp=now,
            event="approval_decision",
            loop_id=loop_id,
            run_id=request["run_id"],
            iteration=request["iteration"],
            role="human",
            status=status,
            data=decided["decision"],
        )
        files.append_rows(os.path.join(repo, paths.events), [row], private=False)
    return f"{status} iteration {request['iteration']} of loop {loop_id!r}"


def _end(running: Running) -> None:
    """Signal the process itself: its group may be that of whoever started it."""
    try:
        running.process.send_signal(signal.SIGTERM)
    except ProcessLookupError:
        return
    deadline = time.monotonic() + CANCEL_WAIT_SECONDS
    while not running.gone:
        if time.monotonic() >= deadline:
            raise OpsError(
                "already_running",
                f"process {running.process.pid} still runs {CANCEL_WAIT_SECONDS:g} s after SIGTERM",
            )
        time.sleep(_POLL_SECONDS)


def _remove_state(repo: str) -> bool:
    """Remove both files; whether there was any. Leaves them to a run that holds the lock by now."""
    root = runtime_root(repo)
    if not os.path.isdir(root):
        return False
    try:
        with files.locked_directory(root, wait_seconds=0, private=False):
            found = [remove(os.path.join(root, name)) for name in ("active-run.json", "state.json")]
    except OpsError as error:
        if error.reason != "state_locked":
            raise
        return False
    return any(found)
