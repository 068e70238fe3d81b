"""Requests to step in: what is refused of them, which are the same, and their way over the wire."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spritemesh.control import (
    INTENTS,
    MAX_NOTE_BYTES,
    Confirmation,
    ControlRequest,
    check_request,
    from_message,
    intent_value,
    intent_word,
    new_key,
    to_message,
)
from spritemesh.errors import OpsError
from superloop.ops.v1 import control_pb2 as pb

REQUEST = ControlRequest("alpha", "approve", "key", requested_by="op", note="why", trace_id="t")
# What two requests of one key must agree in.
COUNTED = ("loop_id", "intent", "requested_by", "note", "skip", "expected_run_id", "expected_approval_id")

texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=12)
seconds = st.integers(0, 60_000).map(lambda milliseconds: milliseconds / 1000)
requests = st.builds(
    ControlRequest,
    loop_id=st.sampled_from(["alpha", "beta.1"]),
    intent=st.sampled_from(INTENTS),
    idempotency_key=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20),
    requested_by=texts,
    note=texts,
    trace_id=st.sampled_from(["", "t-1"]),
    confirmation=st.builds(Confirmation, st.booleans(), seconds, seconds),
    expected_run_id=texts,
    expected_approval_id=texts,
    even_if_nothing_pending=st.booleans(),
)


def counted(request: ControlRequest) -> list[Any]:
    members = request._asdict() | {"skip": request.confirmation.skip}
    return [members[name] for name in COUNTED]


@given(requests, requests, st.sets(st.sampled_from(ControlRequest._fields)))
def test_requests_are_the_same_when_they_agree_in_what_counts(
    one: ControlRequest, other: ControlRequest, taken: set[str]
) -> None:
    other = one._replace(**{name: getattr(other, name) for name in taken})
    assert (one.fingerprint == other.fingerprint) == (counted(one) == counted(other))


def test_members_cannot_stand_for_one_another() -> None:
    shifted = REQUEST._replace(requested_by="opwhy", note="")
    assert shifted.fingerprint != REQUEST.fingerprint


@given(requests)
def test_message_holds_all_that_its_intent_knows(request: ControlRequest) -> None:
    check_request(request)
    if request.intent == "cancel":
        request = request._replace(expected_approval_id="", even_if_nothing_pending=False)
    assert from_message(to_message(request)) == request


def test_message_without_a_policy_means_the_usual_one() -> None:
    assert from_message(pb.CancelLoopRequest(loop_id="alpha")).confirmation == Confirmation()


@pytest.mark.parametrize("intent", INTENTS)
def test_intents_have_a_number_each(intent: str) -> None:
    assert intent_word(intent_value(intent)) == intent


def test_unknown_number_is_no_intent() -> None:
    assert intent_word(pb.CONTROL_INTENT_UNSPECIFIED) == ""


@pytest.mark.parametrize(
    ("members", "reason", "field"),
    [
        ({"loop_id": "../x"}, "invalid_loop_id", "loop_id"),
        ({"intent": "stop"}, "unknown_intent", "intent"),
        ({"idempotency_key": ""}, "idempotency_key_missing", "idempotency_key"),
        ({"idempotency_key": "k" * 129}, "invalid_idempotency_key", "idempotency_key"),
        ({"idempotency_key": "\ud800"}, "invalid_idempotency_key", "idempotency_key"),
        ({"idempotency_key": "a\n"}, "invalid_idempotency_key", "idempotency_key"),
        ({"note": "é" * 2049}, "note_too_long", "note"),
        ({"note": "a\0b"}, "control_characters", "note"),
        ({"note": "a\x1b[1m"}, "control_characters", "note"),
        ({"note": "\ud800"}, "invalid_request", "note"),
        ({"requested_by": "x" * 257}, "requested_by_too_long", "requested_by"),
        ({"requested_by": "a\x1bb"}, "control_characters", "requested_by"),
        ({"requested_by": "\udc80"}, "invalid_request", "requested_by"),
        ({"trace_id": "a b\n"}, "invalid_trace_id", "trace_id"),
        ({"expected_run_id": "r" * 257}, "invalid_request", "expected_run_id"),
        ({"expected_approval_id": "\udcff"}, "invalid_request", "expected_approval_id"),
        ({"confirmation": Confirmation(timeout_seconds=-1)}, "invalid_request", "confirmation.timeout"),
        ({"confirmation": Confirmation(timeout_seconds=3601)}, "invalid_request", "confirmation.timeout"),
        (
            {"confirmation": Confirmation(timeout_seconds=float("nan"))},
            "invalid_request",
            "confirmation.timeout",
        ),
        (
            {"confirmation": Confirmation(interval_seconds=float("inf"))},
            "invalid_request",
            "confirmation.interval",
        ),
    ],
)
def test_bad_member_is_named(members: dict[str, Any], reason: str, field: str) -> None:
    with pytest.raises(OpsError) as caught:
        check_request(REQUEST._replace(**members))
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert caught.value.message.isprintable()


def test_longest_members_are_taken() -> None:
    check_request(
        REQUEST._replace(
            idempotency_key="ключ" * 32,
            note="é" * (MAX_NOTE_BYTES // 2),
            requested_by="\t\r\n" + "x" * 253,
            confirmation=Confirmation(timeout_seconds=3600, interval_seconds=3600),
        )
    )
    check_request(REQUEST._replace(note="two\r\n\tlines", requested_by=""))


def test_fresh_keys_differ_and_tell_intent_and_time() -> None:
    keys = {new_key("cancel", 1700000000.9) for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        intent, at, digits = key.split("-")
        assert (intent, at, digits.isdigit()) == ("cancel", "1700000000", True)
        check_request(REQUEST._replace(idempotency_key=key))
