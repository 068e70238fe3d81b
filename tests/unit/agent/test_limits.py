"""Limits by name, and rooms for so much at a time."""

import pytest

from sprite_agent.limits import BOUNDS, Limits, read_limits, value_of
from sprite_agent.listening import server_options
from sprite_agent.rooms import Rooms
from spritemesh.errors import OpsError
from spritemesh.reasons import REASONS


def test_each_bound_is_a_limit_with_a_default_in_its_range_and_a_reason() -> None:
    assert len(BOUNDS) == len(Limits())
    for bound in BOUNDS:
        assert bound.least <= value_of(Limits(), bound) <= bound.most
        assert bound.reason in {"", *REASONS}


def test_limits_are_set_by_name_and_the_others_stay() -> None:
    defaults = Limits(streams=256)
    assert read_limits((), defaults) == defaults
    found = read_limits(("unary-seconds=5", "connections=7", "unary-seconds=6"), defaults)
    assert found == defaults._replace(unary_seconds=6, connections=7)


@pytest.mark.parametrize(
    "word", ["", "streams", "streams=", "other=1", "streams=0", "streams=-1", "streams=1e3", "streams=\u0661"]
)
def test_a_limit_that_is_none_is_refused_with_what_it_may_be(word: str) -> None:
    with pytest.raises(OpsError) as caught:
        read_limits((word,), Limits())
    assert (caught.value.reason, caught.value.field) == ("invalid_request", "--limit")


def test_grpcs_own_bounds_stand_behind_ours() -> None:
    for limits in (Limits(), Limits(request_bytes=1024, metadata_bytes=1024, streams_per_connection=1)):
        options = dict(server_options(limits))
        assert options["grpc.max_receive_message_length"] > limits.request_bytes
        assert options["grpc.max_metadata_size"] > limits.metadata_bytes
        assert options["grpc.absolute_max_metadata_size"] > options["grpc.max_metadata_size"]
        assert options["grpc.max_concurrent_streams"] > limits.streams_per_connection
    # One connection alone cannot have so many calls waiting that those of others are refused.
    assert (
        dict(server_options(Limits()))["grpc.server.max_pending_requests"]
        > (dict(server_options(Limits()))["grpc.max_concurrent_streams"])
    )


def test_rooms_hold_only_names_that_have_something() -> None:
    rooms = Rooms(2, "too_many_subscribers", "event streams of the loop are open:")
    assert rooms.fullest == 0
    with rooms.entered("a"), rooms.entered("a"), rooms.entered("b"):
        assert rooms.fullest == 2
        with pytest.raises(OpsError) as caught:
            rooms.take("a")
        assert caught.value.reason == "too_many_subscribers"
        assert caught.value.retry_after
    assert rooms.fullest == 0
    rooms.take("a")
    rooms.give("a")
    assert rooms.fullest == 0
