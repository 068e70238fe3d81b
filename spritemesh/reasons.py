"""The one table of reason codes: what each means, and what an operator does next.

Every degradation and every refusal names one of these codes: on the wire as `ErrorInfo.reason`, in
artifacts as `reasonCode`, `failureCode` or a member of `reasonCodes`, on standard error inside the
message. Codes are append-only: scripts compare them. Those of the v1 documents keep their v1 spelling
(contract G.6, G.5), and new ones follow it, so that one spelling serves wire, artifact and runbook.
"""

from enum import StrEnum
from typing import NamedTuple


class Severity(StrEnum):
    """How bad it is when the code stands alone; a document may raise it by its own thresholds."""

    INFO = "info"
    DEGRADED = "degraded"
    CRITICAL = "critical"
    ERROR = "error"


class Fault(StrEnum):
    """Who can mend it, which decides the status on every edge (see `spritemesh.errors`)."""

    NONE = "none"  # a state or a note, never the answer to a request
    REQUEST = "request"  # the caller's words are wrong; a retry cannot help
    CREDENTIALS = "credentials"  # missing or wrong token
    MISSING = "missing"  # the thing asked for does not exist
    CONFLICT = "conflict"  # the state of things forbids it now
    UNKNOWN_METHOD = "unknown_method"  # the caller is newer than we are
    BUSY = "busy"  # try again shortly, unchanged
    LIMIT = "limit"  # as much is served as will be; try again, unchanged, when somebody has left
    DATA = "data"  # what the runtime or a tool wrote cannot be read
    PEER = "peer"  # the other side broke the protocol or is away
    INTERNAL = "internal"  # our own defect


class Reason(NamedTuple):
    """One row of the table."""

    code: str
    severity: Severity
    fault: Fault
    meaning: str
    next_step: str


_I, _D, _C, _E = Severity.INFO, Severity.DEGRADED, Severity.CRITICAL, Severity.ERROR

_ROWS: tuple[Reason, ...] = (
    # health of a loop (contract G.6)
    Reason("divergence_detected", _D, Fault.NONE,
           "Snapshot and events of one loop contradict each other.",
           "Read `divergence.flags` in the state document, then compare with the runtime's files."),
    Reason("control_ambiguous", _D, Fault.NONE,
           "The last control command ran, but its effect was not observed in time.",
           "Look at the loop before doing it again; the effect may still come."),
    Reason("control_failed_command", _D, Fault.NONE,
           "The runtime refused or failed the last control command.",
           "Read the command's output in the last row of intents.jsonl."),
    Reason("ingest_stale", _D, Fault.NONE,
           "The newest event is older than the ingest threshold.",
           "See whether the runtime still works; raise the threshold for loops with long steps."),
    Reason("runtime_heartbeat_stale", _D, Fault.NONE,
           "The runtime's last heartbeat is older than the heartbeat threshold.",
           "Check the runtime's process in the sprite, and that its agent runs."),
    Reason("transport_unreachable", _D, Fault.NONE,
           "The last passes could not read the loop.",
           "Read `failureMessage` in reconcile.jsonl; check that the agent runs and can be reached."),
    Reason("invalid_transport_payload", _D, Fault.NONE,
           "The other side answered with something that is no valid answer.",
           "Compare the versions of manager and agent."),
    Reason("ordering_drift_detected", _D, Fault.NONE,
           "Sequence numbers went back or are missing.",
           "Read `violations` in sequence-state.json; find out who rewrote the log."),
    Reason("profile_drift_detected", _D, Fault.NONE,
           "The applied threshold profile has differed from the recommended one for several passes.",
           "Review the profile with `ops-manager telemetry-summary`."),
    Reason("projection_failed", _D, Fault.DATA,
           "A snapshot or an event does not belong to this loop or is no v1 envelope.",
           "Compare the versions of manager and agent, and the loop ids."),
    Reason("reconcile_failed", _D, Fault.INTERNAL,
           "A pass failed for a reason that was not told.",
           "Read reconcile.jsonl and report it."),
    # failure codes of a pass (contract G.1)
    Reason("snapshot_unavailable", _D, Fault.DATA,
           "The loop's files could not be turned into a snapshot.",
           "The message names the file; mend or remove it."),
    Reason("events_unavailable", _D, Fault.DATA,
           "The loop's event log could not be read on from the cursor.",
           "The message names line or offset; see `--on-invalid-line` and `--from-start`."),
    Reason("service_request_failed", _D, Fault.PEER,
           "The agent or service did not answer, or answered with an error.",
           "Check address, token and that it runs; the message holds its own reason."),
    Reason("service_response_invalid", _D, Fault.PEER,
           "The agent or service answered against the protocol.",
           "Compare the versions of manager and agent."),
    # heartbeat (contract G.4)
    Reason("missing_heartbeat_timestamp", _D, Fault.NONE,
           "heartbeat.v1.json has neither `timestamp` nor `updatedAt`.",
           "Mend the program that writes it."),
    Reason("invalid_heartbeat_timestamp", _D, Fault.NONE,
           "The time in heartbeat.v1.json is no RFC 3339 time.",
           "Mend the program that writes it."),
    # sequence (contract G.5) and position (docs/wire.md)
    Reason("snapshot_sequence_missing", _D, Fault.NONE,
           "The snapshot has no whole sequence number.", "Compare the versions of manager and agent."),
    Reason("snapshot_sequence_regression", _D, Fault.NONE,
           "The log of one lineage is shorter than it was.", "Find out who truncated the log."),
    Reason("event_sequence_missing", _D, Fault.NONE,
           "An event has no whole sequence number.", "Compare the versions of manager and agent."),
    Reason("event_sequence_non_monotonic", _D, Fault.NONE,
           "Events of one batch are out of order.", "Compare the versions of manager and agent."),
    Reason("event_sequence_regression", _D, Fault.NONE,
           "Events went back behind what had been confirmed.", "Find out who truncated the log."),
    Reason("event_sequence_gap", _D, Fault.PEER,
           "Lines are missing between two batches.", "None: reading starts again at the last applied line."),
    Reason("log_replaced", _I, Fault.NONE,
           "The event log is another one: a new run or a rotation. Reading started over.", "None."),
    Reason("log_rewritten", _D, Fault.NONE,
           "Lines that had been read were changed since. Reading started over.",
           "Find out who edited the log; what was derived from the old lines may be wrong."),
    Reason("log_truncated", _D, Fault.DATA,
           "The log lost lines that had been read.",
           "Find out who truncated it; then start over with `--from-start`."),
    Reason("cursor_ahead", _D, Fault.DATA,
           "The cursor is beyond the end of the log, and holds nothing to verify it by.",
           "Check that the cursor belongs to this loop; start over with `--from-start`."),
    Reason("cursor_invalid", _E, Fault.DATA,
           "The cursor file is no JSON object with a whole, non-negative eventLineOffset.",
           "Restore or delete the file named in the message; without one reading starts over."),
    # lines that are no events (contract C.2, L4)
    Reason("invalid_json_line", _D, Fault.DATA,
           "A complete line of the log is no JSON.",
           "Look at the line; pass it with `--on-invalid-line quarantine`."),
    Reason("line_not_object", _D, Fault.DATA,
           "A line of the log is JSON, but no object.",
           "Look at the line; pass it with `--on-invalid-line quarantine`."),
    Reason("missing_event_name", _D, Fault.DATA,
           "A line of the log has neither `event` nor `type`.",
           "Look at the line; pass it with `--on-invalid-line quarantine`."),
    Reason("missing_event_timestamp", _D, Fault.DATA,
           "A line of the log has no `timestamp`.",
           "Look at the line; pass it with `--on-invalid-line quarantine`."),
    Reason("line_too_long", _D, Fault.DATA,
           "A line of the log is longer than 1 MiB.",
           "Make the runtime write less into one event; pass it with `--on-invalid-line quarantine`."),
    # refusals of a request
    Reason("invalid_request", _E, Fault.REQUEST,
           "A flag or a field is missing or has a value that is not allowed.",
           "The message names it; correct the call."),
    Reason("invalid_loop_id", _E, Fault.REQUEST,
           "The loop id is empty, too long, or could leave its directory.",
           "Use the name of a directory under .superloop/loops."),
    Reason("invalid_trace_id", _E, Fault.REQUEST,
           "The trace id is too long or holds control characters.", "Use a UUID."),
    Reason("invalid_page_token", _E, Fault.REQUEST,
           "The page token was not made by this service.", "Start again without one."),
    Reason("repo_not_found", _E, Fault.MISSING,
           "The repository directory does not exist.", "Correct `--repo`."),
    Reason("loop_not_found", _E, Fault.MISSING,
           "The loop has no directory under .superloop/loops.", "List the loops; correct the id."),
    Reason("events_missing", _E, Fault.MISSING,
           "The loop has no events.jsonl.", "Start the loop once, or correct the id."),
    Reason("artifact_invalid", _E, Fault.DATA,
           "A file of the runtime is no JSON, or JSON of the wrong kind.",
           "The message names the file; mend or remove it."),
    Reason("artifact_too_large", _E, Fault.DATA,
           "A state file of the runtime is larger than is read.",
           "The message names the file and the limit."),
    Reason("log_unavailable", _D, Fault.BUSY,
           "The event log could not be read just now.", "Try again; check the file's permissions."),
    Reason("document_invalid", _E, Fault.DATA,
           "A file of the manager is no JSON, or JSON of the wrong kind.",
           "The message names the file; restore or delete it."),
    Reason("document_missing", _E, Fault.MISSING,
           "A file that the command needs does not exist.", "The message names the file."),
    Reason("unknown_profile", _E, Fault.REQUEST,
           "The threshold profile is not in the catalog.", "List them with `threshold-profile --list`."),
    Reason("catalog_invalid", _E, Fault.DATA,
           "The threshold catalog cannot be used.", "The message names file and member."),
    Reason("state_locked", _E, Fault.BUSY,
           "Another process works on this loop's manager files.", "Wait for it, or try again."),
    Reason("state_unwritable", _E, Fault.INTERNAL,
           "A manager file could not be written; what was there stays.",
           "Check space and permissions of the directory named in the message."),
    Reason("telemetry_unwritable", _D, Fault.NONE,
           "Telemetry could not be written; the work itself went on.",
           "Check space and permissions of the telemetry directory."),
    # credentials and life of the agent
    Reason("token_missing", _E, Fault.CREDENTIALS,
           "The call carries no token.", "Give --service-token or OPS_MANAGER_SERVICE_TOKEN."),
    Reason("token_wrong", _E, Fault.CREDENTIALS,
           "The call carries another token than the agent's.", "Compare the token with the agent's."),
    Reason("token_not_configured", _E, Fault.REQUEST,
           "The agent was started without a token.",
           "Give --token-file or OPS_MANAGER_SERVICE_TOKEN, or --allow-unauthenticated on loopback."),
    Reason("insecure_bind_refused", _E, Fault.REQUEST,
           "An open agent may listen on loopback only.", "Give a token, or a loopback address."),
    Reason("address_unavailable", _E, Fault.REQUEST,
           "The agent cannot listen on the address.", "Choose a free port and an address of this host."),
    Reason("agent_draining", _I, Fault.BUSY,
           "The agent is shutting down.", "Come back after the time it names."),
    Reason("too_many_streams", _E, Fault.LIMIT,
           "The agent serves as many streams as it is willing to.",
           "Find out who holds them open; come back after the time it names."),
    Reason("agent_fault", _E, Fault.INTERNAL,
           "The agent met a defect of its own.", "Read the agent's log, and report it."),
    Reason("message_too_large", _E, Fault.REQUEST,
           "A message is larger than the other side takes.", "Ask for less."),
    Reason("unsupported_method", _E, Fault.UNKNOWN_METHOD,
           "The agent does not know the method.", "Compare the versions of manager and agent."),
    Reason("agent_unreachable", _D, Fault.PEER,
           "Nobody answers at the agent's address.", "Check the address, and that the agent runs."),
    Reason("deadline_exceeded", _D, Fault.PEER,
           "The agent did not answer in time.", "Try again; look at the agent's load."),
    Reason("stream_broken", _D, Fault.PEER,
           "A stream ended without a goodbye.", "None: it is opened again at the last position."),
    Reason("drained_to_head", _I, Fault.NONE,
           "A stream that was not to follow sent all there was.", "None."),
    Reason("max_events_reached", _I, Fault.NONE,
           "A stream sent as many events as were asked for.", "None."),
    # demonstration
    Reason("nothing_pending", _E, Fault.CONFLICT,
           "No approval is pending for the loop.", "Look at the loop's status."),
    Reason("nothing_running", _E, Fault.CONFLICT,
           "No loop is running in the repository.", "None, unless one should run."),
    Reason("already_running", _E, Fault.CONFLICT,
           "A loop is already running in the repository.", "Cancel it first."),
    Reason("internal_error", _E, Fault.INTERNAL,
           "A defect of spritemesh.", "Run again with SPRITEMESH_DEBUG=1 and report what it prints."),
)  # fmt: skip

REASONS: dict[str, Reason] = {row.code: row for row in _ROWS}


def reason(code: str) -> Reason:
    """The row of `code`. Raises KeyError for a code that the table lacks."""
    return REASONS[code]
