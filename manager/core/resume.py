"""Where a live loop begins: what is known counts as far as the log was read, and no further.

A manager may be killed between two documents of a commit, and a snapshot may come before the events that it
tells of. What is ahead of the cursor then comes again. Or it does not, since the log is another one by then,
which must not look as if it had gone back.
"""

from manager.core.facts import Known
from spritemesh.values import get, whole, with_member
from superloop.ops.v1 import envelope_pb2 as pb


def as_far_as_read(known: Known) -> Known:
    """What was known when a manager began, whose documents may tell of more than its cursor had passed.

    Their last event comes again, or is no more. A cursor with a digest remembers the numbers of its own
    place; so does one at the beginning, which may also be all that is left of a damaged file.
    """
    order, state, memory = known.sequence, known.state, known.cursor.memory
    line, digest = known.cursor.place[:2]
    if isinstance(state, dict):
        value = whole(get(state, "evidence", "lastEventEnvelope", "sequence", "value"))
        if value is not None and value > line:
            state = with_member(state, "evidence", "lastEventEnvelope", None)
    if isinstance(order, dict) and (digest or not line):
        order = with_member(order, "snapshot", "current", memory.snapshot_value)
        order = with_member(order, "events", "last", memory.event_value)
    if isinstance(state, dict) and not line:
        state = with_member(state, "cursor", "eventLineOffset", 0)
    return known._replace(state=state, sequence=order)


def placed(snapshot: pb.LoopRunSnapshot, line: int) -> pb.LoopRunSnapshot:
    """A snapshot that is ahead of the events, placed where those are: the log may be another one before the
    rest is read, and has not gone back then."""
    if not snapshot.HasField("position"):
        return snapshot  # its numbers may count something else
    moved = pb.LoopRunSnapshot()
    moved.CopyFrom(snapshot)
    if snapshot.HasField("sequence_value"):
        moved.sequence_value = min(snapshot.sequence_value, line)
    moved.cursor.event_line_offset = min(snapshot.cursor.event_line_offset, line)
    return moved
