"""Arbitrary JSON values, v1 documents and messages for property tests."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from spritemesh import jsontext
from superloop.ops.v1 import envelope_pb2 as pb

# The same examples at every run: a finding here is found by everybody.
THOROUGH = settings(deadline=None, derandomize=True, max_examples=100)

INT64 = st.integers(-(2**63), 2**63 - 1)
UINT64 = st.integers(0, 2**64 - 1)


def _joined(text: str) -> str:
    """Text with each surrogate pair made one character, as in every text that was JSON once."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


_AWKWARD = '\x00\x01\x1f\x7f\x80"\\/\b\f\n\r\t\u2028\ufffd\uffff\U0001f600\U0010ffff'
plain_texts = st.text(st.characters(codec="utf-8") | st.sampled_from(_AWKWARD), max_size=12)
# With lone surrogates: JSON can escape them, UTF-8 and protobuf cannot hold them.
texts = st.text(
    st.characters(codec="utf-8") | st.sampled_from(_AWKWARD) | st.characters(categories=["Cs"]), max_size=12
).map(_joined)
numbers: st.SearchStrategy[int | float] = st.one_of(
    st.integers(),
    st.integers(-(10**40), 10**40),
    st.sampled_from([0, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**60]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1.0, -0.0, 1e3, 1e16, 5e-324, 1.7976931348623157e308]),
    st.sampled_from(["1e999", "-1e400", "123456789e+1000"]).map(jsontext.Literal),
)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(texts, values, max_size=5)


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def exact(value: Any) -> Any:
    """Something that is equal only for values of the same kinds, spelling of numbers and order of keys."""
    if isinstance(value, dict):
        return "object", [(name, exact(member)) for name, member in value.items()]
    if isinstance(value, list):
        return "array", [exact(element) for element in value]
    if isinstance(value, jsontext.Literal):
        return "literal", value.spelling
    return type(value).__name__, repr(value)


# --- v1 documents (contract B.3, C.3) -------------------------------------------------------------------

_TIME = "2024-03-11T09:00:00Z"
_names = plain_texts.filter(bool)


def _members(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with these members in this order."""
    return st.tuples(*members.values()).map(lambda given: dict(zip(members, given, strict=True)))


_sources = _members(repoPath=plain_texts, loopId=_names)
_artifacts = st.one_of(
    _members(
        path=plain_texts,
        exists=st.just(True),
        sizeBytes=UINT64,
        lineCount=UINT64,
        sha256=st.from_regex("[0-9a-f]{64}", fullmatch=True),
        mtimeEpoch=INT64,
    ),
    _members(
        path=plain_texts,
        exists=st.just(False),
        sizeBytes=st.just(0),
        lineCount=st.just(0),
        sha256=st.none(),
        mtimeEpoch=st.none(),
    ),
)
snapshot_documents = _members(
    schemaVersion=st.just("v1"),
    envelopeType=st.just("loop_run_snapshot"),
    emittedAt=st.just(_TIME),
    traceId=optional(plain_texts),
    source=_sources,
    run=_members(
        runId=plain_texts,
        iteration=numbers,
        status=st.sampled_from(["awaiting_approval", "complete", "running", "idle", "unknown"]),
        summary=optional(objects),
    ),
    runtime=_members(
        superloopState=optional(objects), activeRun=values, approval=optional(objects), heartbeat=values
    ),
    artifacts=_members(
        events=_artifacts,
        runSummary=_artifacts,
        state=_artifacts,
        activeRun=_artifacts,
        approval=_artifacts,
        heartbeat=_artifacts,
    ),
    sequence=_members(source=st.just("cursor_event_line_offset"), value=UINT64),
    cursor=_members(eventLineOffset=UINT64, eventLineCount=UINT64),
    health=_members(
        eventCount=UINT64,
        lastEventAt=optional(_names),
        lastEventName=optional(_names),
        lastSummaryAt=optional(_names),
        hasPendingApproval=st.booleans(),
        gates=values,
        stuck=values,
    ),
)


def _event_document(parts: tuple[Any, ...]) -> dict[str, Any]:
    line, count, source, trace_id, run, lifted, payload, raw, has_data = parts
    if has_data:
        raw = raw | {"data": payload}
    return {
        "schemaVersion": "v1",
        "envelopeType": "loop_run_event",
        "emittedAt": _TIME,
        "traceId": trace_id,
        "source": source,
        "sequence": {"source": "cursor_event_line_offset", "value": line},
        "cursor": {"eventLineOffset": line, "eventLineCount": count},
        "run": run,
        "event": {**lifted, "payload": None if payload is False else payload, "raw": raw},
    }


# Mostly the payload is the line's `data`; documents of others may hold any pair of the two.
event_documents = st.tuples(
    st.integers(1, 2**64 - 1),
    UINT64,
    _sources,
    optional(plain_texts),
    _members(runId=plain_texts, iteration=numbers),
    _members(
        timestamp=_names,
        name=_names,
        role=optional(_names),
        status=optional(_names),
        message=optional(_names),
    ),
    values,
    objects,
    st.booleans(),
).map(_event_document)


# --- messages -------------------------------------------------------------------------------------------

_json_texts = values.filter(lambda value: value is not None).map(
    lambda value: jsontext.encode(value).decode()
)
_carried = optional(st.builds(pb.JsonObject, json=_json_texts))


def _with_iteration(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Messages with an iteration that is either a number of 64 bits or a spelling of another one."""

    def put(message: Any, iteration: int | float) -> Any:
        if isinstance(iteration, int) and -(2**63) <= iteration < 2**63:
            message.iteration = iteration
        else:
            message.iteration_literal = jsontext.encode(iteration)
        return message

    return st.builds(put, strategy, numbers)


_references = st.builds(
    pb.ArtifactRef,
    path=plain_texts,
    exists=st.booleans(),
    size_bytes=UINT64,
    line_count=UINT64,
    sha256=optional(plain_texts),
    mtime_epoch=optional(INT64),
)
snapshots = st.builds(
    pb.LoopRunSnapshot,
    emitted_at=plain_texts,
    trace_id=optional(plain_texts),
    source=st.builds(pb.Source, repo_path=plain_texts, loop_id=plain_texts),
    run=_with_iteration(st.builds(pb.Run, run_id=plain_texts, status=plain_texts, summary=_carried)),
    runtime=st.builds(
        pb.Runtime, superloop_state=_carried, active_run=_carried, approval=_carried, heartbeat=_carried
    ),
    artifacts=st.builds(
        pb.Artifacts,
        events=optional(_references),
        run_summary=optional(_references),
        state=optional(_references),
        active_run=optional(_references),
        approval=optional(_references),
        heartbeat=optional(_references),
    ),
    sequence_value=optional(UINT64),
    cursor=st.builds(
        pb.EnvelopeCursor, event_line_offset=optional(UINT64), event_line_count=optional(UINT64)
    ),
    health=st.builds(
        pb.SnapshotHealth,
        event_count=optional(UINT64),
        last_event_at=optional(plain_texts),
        last_event_name=optional(plain_texts),
        last_summary_at=optional(plain_texts),
        has_pending_approval=optional(st.booleans()),
        gates=_carried,
        stuck=_carried,
    ),
)
# `payload` stays unset: it is for what is not the line's `data`.
events = _with_iteration(
    st.builds(
        pb.LoopRunEvent,
        line=st.integers(1, 2**64 - 1),
        timestamp=plain_texts,
        name=_names,
        run_id=plain_texts,
        role=optional(plain_texts),
        status=optional(plain_texts),
        message=optional(plain_texts),
        raw=objects.map(lambda value: jsontext.encode(value).decode()),
    )
)
batches = st.builds(
    pb.EventBatch,
    source=st.builds(pb.Source, repo_path=plain_texts, loop_id=plain_texts),
    trace_id=optional(plain_texts),
    emitted_at=plain_texts,
    line_count=UINT64,
    events=st.lists(events, min_size=1, max_size=3),
)
