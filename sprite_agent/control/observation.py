"""What is seen of a loop when the effect of a command is looked for, and what counts (contract E.3)."""

from typing import NamedTuple

from sprite_agent.runtime.events import is_event
from sprite_agent.runtime.feed import FeedOptions
from sprite_agent.runtime.loop import LoopReader
from sprite_agent.runtime.snapshot import parse_last_event
from spritemesh import jsontext
from spritemesh.bridge.parts import json_value
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.values import get, text
from superloop.ops.v1 import control_pb2 as pb
from superloop.ops.v1 import envelope_pb2

_DECISION = "approval_decision"
_REASONS = {
    "cancel": "inactive_not_running",
    "approve": "completion_observed",
    "reject": "rejection_observed",
}


class Observation(NamedTuple):
    """A loop at one moment, as far as it decides.

    decision: status of the last event when that is an approval_decision, else "". active, approval,
    completed: JSON text of state.json's `active`, approval.json's `status` and the last summary entry's
    `completion_ok`, "" when there is none. pending_approval_id: as in the snapshot. Digests: hexadecimal.
    """

    status: str
    run_id: str
    last_event: str | None
    last_event_at: str
    decision: str
    active: str
    approval: str
    completed: str
    pending_approval_id: str
    line: int
    digest: str
    first_line_digest: str

    @property
    def is_active(self) -> bool:
        return _word(self.active) == "true"

    @property
    def approval_status(self) -> str | None:
        return _word(self.approval) if self.approval else None

    @property
    def position(self) -> envelope_pb2.LogPosition:
        """Where in the log it holds."""
        return envelope_pb2.LogPosition(
            line=self.line,
            digest=bytes.fromhex(self.digest),
            first_line_digest=bytes.fromhex(self.first_line_digest),
        )


def observe(reader: LoopReader) -> Observation:
    """The loop as it is now. Raises OpsError as LoopReader.snapshot."""
    snapshot = reader.snapshot(pass_invalid_lines=True)
    decision = ""
    if snapshot.health.last_event_name == _DECISION:
        last = reader.log.last_line(reader.head(), wanted=is_event)
        decision = text(get(parse_last_event(reader.paths, last), "status") or "")
    return observation_of(snapshot, decision)


def observation_of(snapshot: envelope_pb2.LoopRunSnapshot, decision: str = "") -> Observation:
    """A snapshot as far as it decides. decision: as in Observation; a snapshot does not tell it."""
    runtime, health = snapshot.runtime, snapshot.health
    state = json_value(runtime.superloop_state, runtime.HasField("superloop_state"))
    approval = json_value(runtime.approval, runtime.HasField("approval"))
    entry = json_value(snapshot.run.summary, snapshot.run.HasField("summary"))
    return Observation(
        status=snapshot.run.status,
        run_id=snapshot.current_run_id or snapshot.run.run_id,
        last_event=health.last_event_name if health.HasField("last_event_name") else None,
        last_event_at=health.last_event_at,
        decision=decision,
        active=_text(get(state, "active")),
        approval=_text(get(approval, "status")),
        completed=_text(get(entry, "completion_ok")),
        pending_approval_id=snapshot.pending_approval_id,
        line=snapshot.position.line,
        digest=snapshot.position.digest.hex(),
        first_line_digest=snapshot.position.first_line_digest.hex(),
    )


def predicate(intent: str, seen: Observation) -> str:
    """v1's name for what was observed when the intent's predicate holds; "" when it does not.

    A decision counts as a rejection only when it rejects (contract L23).
    """
    if intent == "cancel":
        holds = not seen.is_active and seen.status != "running"
    elif intent == "approve":
        holds = (
            _word(seen.completed) == "true"
            or seen.status == "complete"
            or _satisfies(intent, seen.last_event, seen.decision)
        )
    else:
        holds = seen.approval_status == "rejected" or _satisfies(intent, seen.last_event, seen.decision)
    return _REASONS[intent] if holds else ""


def find_effect(
    reader: LoopReader, intent: str, before: Observation | None, seen: Observation
) -> pb.ControlEffect | None:
    """What confirmed an intent whose predicate holds: an event after `before`, else a state file's change,
    else that it was so already. None when nothing is known of before, or the
    event is gone."""
    if before is None:
        return None
    event = _find_event(reader, intent, before, seen)
    if event is not None:
        return pb.ControlEffect(event=event)
    paths = reader.paths
    path, member, old, new = {
        "cancel": (paths.state, "active", before.active, seen.active),
        "approve": (paths.run_summary, "completion_ok", before.completed, seen.completed),
        "reject": (paths.approval, "status", before.approval, seen.approval),
    }[intent]
    state = pb.StateEffect(path=path, member=member, before=old, after=new)
    if predicate(intent, before):
        return pb.ControlEffect(already=state)
    return pb.ControlEffect(state=state) if old != new else None


def _find_event(
    reader: LoopReader, intent: str, before: Observation, seen: Observation
) -> pb.EventEffect | None:
    """The first event after `before` that satisfies the predicate."""
    if intent == "cancel":
        return None  # decided by state.json alone
    feed = reader.feed(FeedOptions())
    try:
        replaced = len(feed.open(before.position)) > 1
        while not replaced and (messages := feed.read()):
            for message in messages:
                for event in message.batch.events:
                    if _satisfies(intent, event.name, event.status):
                        return _event_effect(message.batch, event)
    except OpsError:
        return None
    if replaced and seen.last_event and _satisfies(intent, seen.last_event, seen.decision):
        # In another log, events may be older than the command; its last one was seen to come.
        return pb.EventEffect(position=seen.position, name=seen.last_event, timestamp=seen.last_event_at)
    return None


def _event_effect(batch: envelope_pb2.EventBatch, event: envelope_pb2.LoopRunEvent) -> pb.EventEffect:
    position = envelope_pb2.LogPosition(line=event.line)
    if event.line == batch.last_line:
        position.digest = batch.end_digest
    return pb.EventEffect(position=position, name=event.name, timestamp=event.timestamp)


def _satisfies(intent: str, name: str | None, status: str) -> bool:
    """Whether an event satisfies the predicate of approve or reject."""
    if intent == "approve":
        return name == "loop_complete"
    return name == "approval_rejected" or (name == _DECISION and status == "rejected")


def _text(value: JSON) -> str:
    return "" if value is None else jsontext.encode(value).decode()


def _word(json_text: str) -> str:
    """A JSON value as contract 0.2's `text` reads it."""
    return text(jsontext.parse(json_text)) if json_text else ""
