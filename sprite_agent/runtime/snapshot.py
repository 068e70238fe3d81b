"""What is true of a loop, derived from its files exactly as contract section B says. Pure."""

from typing import NamedTuple

from sprite_agent.runtime.eventlog import Head
from sprite_agent.runtime.events import MAX_LINE_BYTES, is_wordy, text_field
from sprite_agent.runtime.layout import LoopPaths
from sprite_agent.runtime.statefiles import StateFile
from spritemesh import jsontext
from spritemesh.bridge.parts import json_object, number_fields
from spritemesh.errors import OpsError, kind_of
from spritemesh.jsontext import JSON
from spritemesh.values import first, get, num, nz
from superloop.ops.v1 import envelope_pb2 as pb

_STOP_EVENTS = frozenset({"loop_stop", "rate_limit_stop", "no_progress_stop"})
_FAILED_STATUSES = frozenset({"error", "timeout", "blocked", "rate_limited"})


class LoopFiles(NamedTuple):
    """The state files of a loop as read at one moment."""

    state: StateFile
    active_run: StateFile
    approval: StateFile
    run_summary: StateFile
    heartbeat: StateFile


def parse_last_event(paths: LoopPaths, last: tuple[int, bytes] | None) -> JSON:
    """The last non-blank line as an object, null when there is none.

    Raises OpsError that names file and line when it is no JSON object (contract B.1, L6).
    """
    if last is None:
        return None
    number, line = last
    if len(line) > MAX_LINE_BYTES:
        raise OpsError(
            "line_too_long", f"line {number} of {paths.events} is longer than {MAX_LINE_BYTES} bytes"
        )
    try:
        event = jsontext.parse(line)
    except jsontext.JSONError as error:
        raise OpsError(
            "invalid_json_line", f"invalid JSON in {paths.events} line {number}: {error}"
        ) from error
    if not isinstance(event, dict):
        raise OpsError(
            "line_not_object", f"{paths.events} line {number} is {kind_of(event)} where an event is expected"
        )
    if is_wordy(event):
        raise OpsError("line_too_long", f"line {number} of {paths.events} would be too long as text")
    return event


def derive_snapshot(
    repo: str, loop_id: str, paths: LoopPaths, head: Head, event: JSON, files: LoopFiles
) -> pb.LoopRunSnapshot:
    """The snapshot at `head`, but for emitted_at, trace_id and an overriding run id.

    event: the last line (parse_last_event). Raises OpsError `artifact_invalid` naming the file whose JSON
    is of a kind that v1 cannot use (contract L6).
    """
    state = _object(paths.state, files.state.value)
    approval = _object(paths.approval, files.approval.value)
    summary = _object(paths.run_summary, files.run_summary.value)
    entry = _last_entry(paths.run_summary, summary)
    _boolean(paths.state, "active", get(state, "active"))
    _boolean(paths.run_summary, "completion_ok", get(entry, "completion_ok"))
    pending = get(approval, "status") == "pending"
    event_run = _run_id(paths.events, get(event, "run_id"))
    run_id = _run_id(paths.run_summary, get(entry, "run_id")) or event_run or "unknown"
    iteration, literal = number_fields(
        num(first(get(entry, "iteration"), get(event, "iteration"), get(state, "iteration"), 0))
    )
    return pb.LoopRunSnapshot(
        source=pb.Source(repo_path=repo, loop_id=loop_id),
        run=pb.Run(
            run_id=run_id,
            iteration=iteration,
            iteration_literal=literal,
            status=_status(loop_id, pending, entry, event, state),
            summary=json_object(entry),
        ),
        runtime=pb.Runtime(
            superloop_state=files.state.message,
            active_run=files.active_run.message,
            approval=files.approval.message,
            heartbeat=files.heartbeat.message,
        ),
        artifacts=pb.Artifacts(
            events=pb.ArtifactRef(
                path=paths.events,
                exists=True,
                size_bytes=head.size,
                line_count=head.line,
                sha256=head.file_sha256,
                mtime_epoch=head.mtime,
            ),
            run_summary=files.run_summary.reference,
            state=files.state.reference,
            active_run=files.active_run.reference,
            approval=files.approval.reference,
            heartbeat=files.heartbeat.reference,
        ),
        sequence_value=head.line,
        cursor=pb.EnvelopeCursor(event_line_offset=head.line, event_line_count=head.line),
        health=pb.SnapshotHealth(
            event_count=head.line,
            last_event_at=_text(get(event, "timestamp")),
            last_event_name=_text(get(event, "event"), get(event, "type")),
            last_summary_at=_text(get(summary, "updated_at"), get(entry, "ended_at")),
            has_pending_approval=pending,
            gates=json_object(first(get(entry, "gates"), None)),
            stuck=json_object(first(get(entry, "stuck"), None)),
        ),
        position=pb.LogPosition(line=head.line, digest=head.digest, first_line_digest=head.first_line_digest),
        pending_approval_id=files.approval.reference.sha256 if pending else "",
        current_run_id=event_run or run_id,
    )


def _status(loop_id: str, pending: bool, entry: JSON, event: JSON, state: JSON) -> str:
    """The first row of contract B.2's table that holds."""
    if pending:
        return "awaiting_approval"
    if get(entry, "completion_ok") is True:
        return "complete"
    if get(state, "active") is True and get(state, "current_loop_id") == loop_id:
        return "running"
    name = first(get(event, "event"), get(event, "type"))
    if isinstance(name, str) and name in _STOP_EVENTS:
        return "stopped"
    status = get(event, "status")
    if isinstance(status, str) and status in _FAILED_STATUSES:
        return "failed"
    if state is not None and not get(state, "active") and entry is not None:
        return "idle"
    return "unknown"


def _last_entry(path: str, summary: JSON) -> JSON:
    entries = get(summary, "entries")
    if entries is None or entries is False:
        return None
    if not isinstance(entries, list):
        raise OpsError(
            "artifact_invalid", f"{path}: entries is {kind_of(entries)} where an array is expected"
        )
    entry = first(entries[-1], None) if entries else None
    if entry is not None and not isinstance(entry, dict):
        raise OpsError(
            "artifact_invalid", f"{path}: the last entry is {kind_of(entry)} where an object is expected"
        )
    return entry


def _object(path: str, value: JSON) -> JSON:
    if value is not None and not isinstance(value, dict):
        raise OpsError("artifact_invalid", f"{path} holds {kind_of(value)} where an object is expected")
    return value


def _boolean(path: str, member: str, value: JSON) -> None:
    if value is not None and not isinstance(value, bool):
        raise OpsError(
            "artifact_invalid", f"{path}: {member} is {kind_of(value)} where a boolean is expected"
        )


def _run_id(path: str, value: JSON) -> str:
    """A run id as text; null, false, 0 and "" are none, an empty array or object is one (contract B.2)."""
    if value is True:
        raise OpsError("artifact_invalid", f"{path}: run_id is boolean where a string is expected")
    # 0 stands for every spelling of the number, and for false.
    return "" if value is None or value in (0, "") else text_field(value)


def _text(*values: JSON) -> str | None:
    return nz(text_field(first(*values, "")))
