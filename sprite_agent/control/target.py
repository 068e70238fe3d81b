"""Whether a request still means what its sender saw, looked at right before the command (contract L23)."""

import os

from sprite_agent.control.observation import Observation
from sprite_agent.runtime.layout import loop_paths
from sprite_agent.runtime.statefiles import StateFiles
from spritemesh.control import ControlRequest
from spritemesh.errors import OpsError
from spritemesh.ids import printable
from spritemesh.values import get


def check_exists(repo: str, loop_id: str) -> None:
    """Raise OpsError `loop_not_found` when the loop has no directory."""
    if not os.path.isdir(os.path.join(repo, loop_paths(loop_id).directory)):
        raise OpsError(
            "loop_not_found", f"loop {printable(loop_id)} not found; nothing was run", field="loop_id"
        )


def check_target(repo: str, request: ControlRequest, seen: Observation | OpsError) -> None:
    """Refuse a request that is not meant for what is there.

    seen: the loop now, or why it cannot be read. Such a loop may be cancelled all the same, unless the
    request names what it expects. Raises OpsError `other_loop_active`, `target_changed`, `nothing_pending`,
    or `seen` itself.
    """
    if request.intent == "cancel":
        _check_active(repo, request.loop_id)
    expects = request.expected_run_id or request.expected_approval_id
    must_be_pending = request.intent != "cancel" and not request.even_if_nothing_pending
    if isinstance(seen, OpsError):
        if expects or must_be_pending:
            raise seen
        return
    if request.expected_run_id not in {"", seen.run_id}:
        raise OpsError(
            "target_changed",
            f"the loop's run is {printable(seen.run_id)}, not {printable(request.expected_run_id)};"
            " nothing was run",
            field="expected_run_id",
        )
    if request.expected_approval_id not in {"", seen.pending_approval_id}:
        now = f"it is {seen.pending_approval_id}" if seen.pending_approval_id else "none is pending"
        raise OpsError(
            "target_changed",
            f"the pending approval is not {printable(request.expected_approval_id)}: {now}; nothing was run",
            field="expected_approval_id",
        )
    if must_be_pending and not seen.pending_approval_id:
        status = seen.approval_status
        now = f"the last one is {printable(status)}" if status else "none was asked for"
        raise OpsError(
            "nothing_pending",
            f"no approval is pending for loop {printable(request.loop_id)}: {now}; nothing was run",
        )


def _check_active(repo: str, loop_id: str) -> None:
    """The runtime's cancel names no loop: it ends whichever runs."""
    try:
        state = StateFiles(repo).read(loop_paths(loop_id).state).value
    except OpsError:
        return  # damaged: the runtime may make sense of it
    active = get(state, "current_loop_id")
    if get(state, "active") is True and isinstance(active, str) and active not in {"", loop_id}:
        raise OpsError(
            "other_loop_active",
            f"loop {printable(active)} runs in the repository, not {printable(loop_id)}; nothing was run",
            field="loop_id",
        )
