"""What others read of a request: its audit rows (contract E.4), and with them the steps of its trace."""

from contextlib import suppress
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from sprite_agent.connected import connected_document
from sprite_agent.control.refusals import append_refusal
from sprite_agent.control.steps import RanStep, outcome_steps, refusal_step
from sprite_agent.control.target import check_exists
from sprite_agent.provenance import Provenance
from sprite_agent.runtime.layout import ops_directory
from spritemesh import audit, jsontext, traceindex
from spritemesh.bridge.control import Facts, facts_of_request
from spritemesh.bridge.told import told_by_outcome, told_by_refusal
from spritemesh.control import ControlRequest
from spritemesh.errors import OpsError
from superloop.ops.v1 import control_pb2 as pb


class Caller(NamedTuple):
    """What audit rows say beside the outcome.

    shown_key: a key to show instead of the request's (HTTP shows a generated one, contract D.3).
    audit_replays: write rows for a replay, too, as a command line does and an agent does not.
    provenance: who connected.
    """

    transport: str = "local"
    retry_attempts: int = 3
    retry_backoff_seconds: int = 1
    shown_key: str = ""
    audit_replays: bool = False
    provenance: Provenance = Provenance()


_PROVENANCE = Caller._fields.index("provenance")


def caller_text(caller: Caller) -> str:
    """A caller as the ledger keeps it."""
    return jsontext.encode(caller).decode()


def read_caller(text: str) -> Caller:
    """The caller of such a text. An earlier version wrote nothing, or a word, in the place of who connected:
    that is not known then, and the edge is empty."""
    value = jsontext.parse(text)
    if not isinstance(value, list):
        return Caller(provenance=Provenance(""))
    told = value[_PROVENANCE] if len(value) > _PROVENANCE else None
    caller = Caller(*value[:_PROVENANCE])._replace(provenance=Provenance(""))
    if not isinstance(told, list) or len(told) != len(Provenance._fields):
        return caller
    edge, token_id, key_id, identities, address = told
    return caller._replace(provenance=Provenance(edge, token_id, key_id, tuple(identities), address))


def record_outcome(
    repo: str,
    request: ControlRequest,
    caller: Caller,
    outcome: pb.ControlOutcome,
    *,
    times: tuple[float, float] | None = None,
    ran: RanStep | None = None,
    only_missing: bool = False,
) -> None:
    """Write the audit rows, synced, then the steps of the trace.

    times: when it began and ended, epoch seconds, if other than the outcome says. only_missing: leave out
    rows that stand there already. Raises OpsError `audit_unavailable`.
    """
    facts = _facts(request, caller, times or (_seconds(outcome.started_at), _seconds(outcome.finished_at)))
    if outcome.trace_id:
        facts = facts._replace(trace_id=outcome.trace_id)
    files = audit.audit_files(ops_directory(repo, request.loop_id))
    told = told_by_outcome(outcome)
    # Of a replay, who asked again: the outcome tells who had it executed.
    connected = connected_document(caller.provenance)
    audit.record(files, told, facts, connected=connected, only_missing=only_missing)
    if not outcome.replayed:
        traceindex.append(repo, outcome_steps(told, outcome, facts, ran))


def record_refusal(
    repo: str,
    request: ControlRequest,
    caller: Caller,
    error: OpsError,
    started_at: float,
    finished_at: float,
) -> None:
    """Put the refusal of a well-formed request on record, as far as that can be done; nothing ran that must
    not be forgotten.

    A loop that does not exist gets no files for it.
    """
    try:
        check_exists(repo, request.loop_id)
    except OpsError:
        append_refusal(repo, request, caller.provenance, error, finished_at)
        return
    facts = _facts(request, caller, (started_at, finished_at))
    with suppress(OpsError):
        files = audit.audit_files(ops_directory(repo, request.loop_id))
        connected = connected_document(caller.provenance)
        audit.record(files, told_by_refusal(error.reason, ""), facts, connected=connected)
        traceindex.append(repo, [refusal_step(facts, error.reason, connected)])


def _seconds(timestamp: Timestamp) -> float:
    return timestamp.ToNanoseconds() / 1e9


def _facts(request: ControlRequest, caller: Caller, times: tuple[float, float]) -> Facts:
    return facts_of_request(
        request,
        times,
        transport=caller.transport,
        retry_attempts=caller.retry_attempts,
        retry_backoff_seconds=caller.retry_backoff_seconds,
        shown_key=caller.shown_key,
    )
