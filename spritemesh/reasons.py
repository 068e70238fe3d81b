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
    REUSED = "reused"  # a name that stands for something else already
    CONCURRENT = "concurrent"  # another request is at it; try again, unchanged, when it has ended
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
           "The last control command failed: the runtime refused it, or was never reached.",
           "Read commandOutput in the last row of intents.jsonl; if it is {}, ask for its trace."),
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
           "Start over with `--from-start`, or restore the file named in the message."),
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
           "A catalog of threshold profiles cannot be used.", "The message names file and member."),
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
    # control: the request (docs/wire.md)
    Reason("unknown_intent", _E, Fault.REQUEST,
           "The intent is none of cancel, approve and reject.", "Correct the call; nothing was run."),
    Reason("idempotency_key_missing", _E, Fault.REQUEST,
           "The request names no idempotency key, without which it could run twice.",
           "Make a key once for each decision, and repeat it with each retry."),
    Reason("invalid_idempotency_key", _E, Fault.REQUEST,
           "The idempotency key is too long or holds what is not printable.",
           "Use up to 128 printable characters, such as a UUID."),
    Reason("note_too_long", _E, Fault.REQUEST,
           "The note is longer than 4,096 bytes.", "Shorten it, and point to where the rest is."),
    Reason("requested_by_too_long", _E, Fault.REQUEST,
           "The name of who asks is longer than 256 bytes.", "Shorten it."),
    Reason("control_characters", _E, Fault.REQUEST,
           "A text of the request holds control characters.", "The message names the field; remove them."),
    Reason("idempotency_key_conflict", _E, Fault.REUSED,
           "The idempotency key stands for another request already; nothing was run.",
           "Make a new key for a new decision; ask what became of the old one with GetInvocation."),
    Reason("control_in_progress", _E, Fault.CONCURRENT,
           "Another control operation on this loop has not ended; nothing was run.",
           "Wait for it; then look at the loop before repeating the request with its key."),
    Reason("target_changed", _E, Fault.CONFLICT,
           "The run or the pending approval is not the one that the operator saw; nothing was run.",
           "Look at the loop again, and decide anew."),
    Reason("nothing_pending", _E, Fault.CONFLICT,
           "No approval is pending for the loop.", "Look at the loop's status."),
    Reason("other_loop_active", _E, Fault.CONFLICT,
           "Another loop runs in the repository, and the runtime's cancel would end that one.",
           "Cancel the loop that the message names, if that is what is meant."),
    Reason("too_many_controls", _E, Fault.LIMIT,
           "The agent executes as many control operations as it is willing to; nothing was run.",
           "Try again, with the same key, after the time it names."),
    Reason("invocation_not_found", _E, Fault.MISSING,
           "The idempotency key is not recorded: it never arrived, was refused, or is forgotten for its age.",
           "Look at the loop; if the decision still stands, send it again."),
    # control: what it rests on
    Reason("audit_unavailable", _E, Fault.INTERNAL,
           "The audit of control cannot be written.",
           "Mend space or permissions of the file in the message. It also says whether anything was run; "
           "repeat with the same key to learn the outcome."),
    Reason("ledger_unavailable", _E, Fault.INTERNAL,
           "The ledger of control cannot be opened or written.",
           "Mend space or permissions of the file in the message. It also says whether anything was run; "
           "repeat with the same key to learn the outcome."),
    Reason("ledger_corrupt", _E, Fault.DATA,
           "The ledger of control is damaged; this call ran nothing.",
           "Keep the file in the message for inquiry and move it away; look at the loop before repeating any "
           "request, since its keys are forgotten."),
    # control: what became of it
    Reason("control_interrupted", _D, Fault.NONE,
           "The agent ended between the start of the command and its record: whether it ran is not known.",
           "Look at the loop. The key never runs it again; if the effect is missing, use a new key."),
    Reason("runtime_not_found", _E, Fault.NONE,
           "There is no such runtime program; nothing was run.",
           "Set SUPERLOOP_BIN or --runtime-command; the same key may then be used again."),
    Reason("runtime_not_executable", _E, Fault.NONE,
           "The runtime program could not be started; nothing was run.",
           "Check its permissions and its first line; the same key may then be used again."),
    Reason("runtime_timeout", _D, Fault.NONE,
           "The runtime command did not end in time and was ended; its effect is not known.",
           "Look at the loop before deciding again; find out what the command waited for."),
    Reason("runtime_killed", _D, Fault.NONE,
           "A signal ended the runtime command; its effect is not known.",
           "Look at the loop before deciding again; look for memory limits and other killers."),
    Reason("runtime_output_truncated", _I, Fault.NONE,
           "The runtime command wrote more than is kept; its last lines are.", "None."),
    # trace
    Reason("trace_not_found", _E, Fault.MISSING,
           "No artifact of this repository has the trace id.",
           "Check repository and loop; `ops-manager trace --recent 20` lists what there is."),
    # HTTP (contract D)
    Reason("unknown_path", _E, Fault.MISSING,
           "There is no such path for the method.", "See docs/wire.md for the paths."),
    Reason("invalid_json", _E, Fault.REQUEST,
           "The request body is no JSON.", "Correct the call."),
    Reason("foreign_origin", _E, Fault.REQUEST,
           "A web page, or a name that is not of this host, was used to call an agent without a token.",
           "Give the agent a token; or call it as localhost, and from no page of another host."),
    Reason("body_too_large", _E, Fault.REQUEST,
           "The request body is larger than is read.", "Send less; a control request needs a few KiB."),
    Reason("body_timeout", _E, Fault.REQUEST,
           "The request body did not arrive in time.", "Try again; check the network."),
    Reason("service_http_error", _D, Fault.PEER,
           "The service answered with an HTTP error.", "The message holds status and answer."),
    # alerts (contract I)
    Reason("alert_catalog_invalid", _E, Fault.DATA,
           "The catalog of alert sinks cannot be used.", "The message names file and member."),
    Reason("invalid_escalation_json", _D, Fault.NONE,
           "A line of escalations.jsonl is no JSON; it was passed.",
           "The alert telemetry holds the line; find out who wrote it."),
    Reason("missing_escalation_category", _D, Fault.NONE,
           "An escalation has no category; it was passed.", "Find out who wrote it."),
    Reason("route_resolution_failed", _D, Fault.NONE,
           "No route could be found for an escalation.", "The alert telemetry holds the message."),
    Reason("invalid_route_resolution", _D, Fault.NONE,
           "The resolver of routes answered with other than JSON.", "Only v1 tools write it."),
    Reason("severity_below_min", _I, Fault.NONE,
           "An escalation is less severe than its route asks for; it was not sent.", "None."),
    Reason("no_dispatchable_sinks", _I, Fault.NONE,
           "No enabled sink is routed to; the escalation was not sent.",
           "Enable a sink in the catalog, if somebody should be told."),
    Reason("partial_dispatch_failure", _D, Fault.NONE,
           "Some sinks took an alert and some did not; those are tried again.",
           "Read `sinks` in the last row of alerts.jsonl."),
    Reason("dispatch_failed", _D, Fault.NONE,
           "No sink took an alert; they are tried again.", "Read `sinks` in the last row of alerts.jsonl."),
    Reason("alert_dispatch_failed", _D, Fault.NONE,
           "The dispatch of alerts itself failed; the pass went on.",
           "Read `message` in the last row of alerts.jsonl."),
    Reason("missing_secret", _D, Fault.NONE,
           "The variable with the address or key of a sink is not set.", "Set the variable in the message."),
    Reason("unsupported_sink_type", _D, Fault.NONE,
           "The catalog names a type of sink that nobody knows.", "Correct the catalog."),
    Reason("http_error", _D, Fault.NONE,
           "A sink answered with an HTTP error.", "Read `httpStatus` and `message` in alerts.jsonl."),
    Reason("request_failed", _D, Fault.NONE,
           "A sink did not answer.", "Read `message` in alerts.jsonl; check address and network."),
    Reason("sink_timeout", _D, Fault.NONE,
           "A sink did not answer within its time limit.", "Raise `timeoutSeconds`, or look at the sink."),
    Reason("sink_unreachable", _D, Fault.NONE,
           "No connection to a sink could be made, or its address is none.", "Check address and network."),
    Reason("sink_redirected", _D, Fault.NONE,
           "A sink answered with a redirect, which is not followed.", "Set the final address."),
    Reason("sink_rejected", _D, Fault.NONE,
           "A sink refused an alert (4xx).", "Check address and secret of the sink."),
    Reason("sink_failed", _D, Fault.NONE,
           "A sink failed at an alert: 5xx, too busy for it, or the connection broke.",
           "Look at the sink; the alert is sent again."),
    Reason("alert_retries_exhausted", _D, Fault.NONE,
           "An alert could not be delivered in all its tries, and is given up.",
           "Mend the sink; the escalation stands in escalations.jsonl."),
    # the demonstration's runtime
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
