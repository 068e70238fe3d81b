"""v1 JSON -> message -> bytes -> message -> v1 JSON loses nothing, and neither does the other way round."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from spritemesh import jsontext
from spritemesh.bridge import (
    event_documents,
    event_from_json,
    event_to_json,
    snapshot_from_json,
    snapshot_to_json,
)
from spritemesh.errors import OpsError
from superloop.ops.v1 import envelope_pb2 as pb
from tests.unit.bridge import strategies
from tests.unit.bridge.strategies import THOROUGH, exact


@THOROUGH
@given(strategies.snapshot_documents)
def test_snapshot_document_survives_the_wire(document: dict[str, Any]) -> None:
    text = jsontext.encode(document)
    wire = snapshot_from_json(jsontext.parse(text)).SerializeToString()
    found = snapshot_to_json(pb.LoopRunSnapshot.FromString(wire))
    assert exact(found) == exact(document)
    assert jsontext.encode(found) == text


@THOROUGH
@given(strategies.event_documents)
def test_event_document_survives_the_wire(document: dict[str, Any]) -> None:
    text = jsontext.encode(document)
    wire = event_from_json(jsontext.parse(text)).SerializeToString()
    (found,) = event_documents(pb.EventBatch.FromString(wire))
    assert exact(found) == exact(document)
    assert jsontext.encode(found) == text


@THOROUGH
@given(strategies.snapshots)
def test_snapshot_message_survives_json(message: pb.LoopRunSnapshot) -> None:
    text = jsontext.encode(snapshot_to_json(message))
    assert snapshot_from_json(jsontext.parse(text)) == message


@THOROUGH
@given(strategies.batches)
def test_batch_comes_back_from_json_as_one_batch_for_each_event(batch: pb.EventBatch) -> None:
    documents = [jsontext.parse(jsontext.encode(document)) for document in event_documents(batch)]
    assert len(documents) == len(batch.events)
    for document, event in zip(documents, batch.events, strict=True):
        alone = pb.EventBatch()
        alone.CopyFrom(batch)
        del alone.events[:]
        alone.events.append(event)
        alone.first_line = alone.last_line = event.line
        assert event_from_json(document) == alone


@THOROUGH
@given(strategies.events, strategies.values)
def test_payload_that_is_not_the_lines_data_travels_beside_it(event: pb.LoopRunEvent, payload: Any) -> None:
    document = event_to_json(pb.EventBatch(source=pb.Source(loop_id="a"), events=[event]), event)
    document["event"]["payload"] = payload
    assert exact(event_to_json(*_only(event_from_json(document)))) == exact(document)


def _only(batch: pb.EventBatch) -> tuple[pb.EventBatch, pb.LoopRunEvent]:
    (event,) = batch.events
    return batch, event


@THOROUGH
@given(strategies.snapshot_documents | strategies.event_documents, strategies.values, st.data())
def test_document_with_any_member_changed_is_read_or_refused(
    document: dict[str, Any], wrong: Any, data: st.DataObject
) -> None:
    """Nothing but OpsError comes out, whatever somebody sends."""
    level = document
    while True:
        name = data.draw(st.sampled_from(list(level)))
        if not isinstance(level[name], dict) or not level[name] or data.draw(st.booleans()):
            break
        level = level[name]
    level[name] = wrong
    refusal = _refusal(_there_and_back, document)
    assert refusal is None or (refusal.reason == "projection_failed" and refusal.field)


def _there_and_back(document: dict[str, Any]) -> None:
    if "runtime" in document:
        snapshot_to_json(snapshot_from_json(document))
    else:
        list(event_documents(event_from_json(document)))


def _refusal(read: Callable[[Any], object], value: Any) -> OpsError | None:
    try:
        read(value)
    except OpsError as error:
        return error
    return None


@THOROUGH
@given(strategies.values)
def test_any_value_at_all_is_read_or_refused(value: Any) -> None:
    for read in (snapshot_from_json, event_from_json):
        refusal = _refusal(read, value)
        assert refusal is None or refusal.reason == "projection_failed"
