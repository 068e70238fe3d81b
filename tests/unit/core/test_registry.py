"""manager.core.registry: what a fleet's registry may hold, and what its faults are called."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.core.registry import Entry, Registry, parse_registry
from spritemesh import jsontext
from spritemesh.errors import OpsError

REMOTE = {"transport": "sprite_service", "service": {"baseUrl": "grpc://h:1"}}


def registry(*loops: Any, **members: Any) -> dict[str, Any]:
    return {"schemaVersion": "v1", "loops": list(loops), **members}


def entry(**members: Any) -> Entry:
    parsed = parse_registry(registry({"loopId": "alpha", **members}))
    (found,) = parsed.loops
    return found


def message_of(document: Any) -> str:
    with pytest.raises(OpsError) as caught:
        parse_registry(document)
    assert caught.value.reason == "registry_invalid"
    return caught.value.message


def test_entry_that_says_only_its_loop_is_a_local_one_that_is_watched() -> None:
    assert parse_registry(registry({"loopId": "a loop é"})) == Registry("default", (Entry("a loop é"),))
    assert entry() == Entry("alpha", True, "local", "", "", "", 3, 1.0)


def test_entry_says_where_its_sprite_is() -> None:
    service = {"baseUrl": "http://h", "tokenEnv": "A_TOKEN", "retryAttempts": 5.0, "retryBackoffSeconds": 0}
    sprite = {"id": "s-1", "assignment": {"by": 7}, "anything": None, "serviceBaseUrl": "http://other"}
    found = entry(transport="sprite_service", service=service, sprite=sprite, metadata={"owner": ["me"]})
    assert found == Entry("alpha", True, "sprite_service", "http://h", "A_TOKEN", "s-1", 5, 0.0)
    assert isinstance(found.retry_attempts, int)


def test_address_of_the_sprite_stands_in_for_that_of_the_service() -> None:
    assert entry(transport="sprite_service", sprite={"serviceBaseUrl": "unix:///s"}).base_url == "unix:///s"


def test_local_loop_may_keep_the_address_that_it_does_not_use() -> None:
    assert entry(service={"baseUrl": "grpc://h:1", "tokenEnv": "T"}) == Entry("alpha")


def test_disabled_loop_is_in_the_registry_as_one() -> None:
    assert [entry(enabled=enabled).enabled for enabled in (True, False, None)] == [True, False, True]


def test_null_counts_as_absent() -> None:
    members = dict.fromkeys(("enabled", "transport", "sprite", "service", "metadata"))
    assert entry(**members) == Entry("alpha")
    assert parse_registry(registry({"loopId": "alpha"}, fleetId=None)).fleet_id == "default"


def test_top_level_may_hold_what_v1_fleets_keep_beside_their_loops() -> None:
    document = registry({"loopId": "b"}, {"loopId": "a"}, fleetId="f", policy={"x": 1}, updatedAt="today")
    assert parse_registry(document) == Registry("f", (Entry("b"), Entry("a")))


def test_equal_entries_are_equal_and_can_be_kept_in_a_set() -> None:
    first, second = (parse_registry(registry({"loopId": "a", **REMOTE}, {"loopId": "b"})) for _ in range(2))
    assert first == second
    assert len({*first.loops, *second.loops}) == 2


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (None, "the registry must be an object, found null"),
        ([], "the registry must be an object, found array"),
        ({}, "schemaVersion must be a string, found nothing"),
        ({"schemaVersion": None}, "schemaVersion must be a string, found null"),
        ({"schemaVersion": 1}, "schemaVersion must be a string, found number"),
        ({"schemaVersion": "v2"}, "schemaVersion must be 'v1', found 'v2'"),
        ({"schemaVersion": "v1"}, "loops must be an array, found nothing"),
        ({"schemaVersion": "v1", "loops": {}}, "loops must be an array, found object"),
        (registry(), "loops must hold at least one loop"),
        (registry({"loopId": "a"}, fleetId=7), "fleetId must be a string, found number"),
        (registry({"loopId": "a"}, fleetId=""), "fleetId must not be an empty string"),
        (registry({"loopId": "a"}, 7), "loops[1] must be an object, found number"),
        (registry({}), "loops[0]: loopId must be a string, found nothing"),
        (registry({"loopId": 7}), "loops[0]: loopId must be a string, found number"),
        (registry({"loopId": ""}), "loops[0] (loopId ''): loopId is empty: ''"),
        (
            registry({"loopId": "../x"}),
            "loops[0] (loopId '../x'): loopId contains a path separator: '../x'",
        ),
        (
            registry({"loopId": "fleet"}),
            "loops[0] (loopId 'fleet'): loopId is the name of the fleet's own directory",
        ),
        (
            registry({"loopId": "a"}, {"loopId": "b"}, {"loopId": "a"}),
            "loops[2] (loopId 'a'): loopId is that of loops[0], too",
        ),
    ],
)
def test_fault_of_a_registry_names_entry_member_and_kind(document: Any, told: str) -> None:
    assert message_of(document) == told


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"enabled": "false"}, "enabled must be a boolean, found string"),
        ({"transport": True}, "transport must be a string, found boolean"),
        (
            {"transport": "carrier pigeon"},
            "transport must be one of local, sprite_service, found 'carrier pigeon'",
        ),
        ({"metadata": []}, "metadata must be an object, found array"),
        ({"sprite": "s"}, "sprite must be an object, found string"),
        ({"sprite": {"id": 7}}, "sprite.id must be a string, found number"),
        ({"sprite": {"id": "a\nb"}}, "sprite.id must be a string without control characters"),
        ({"sprite": {"serviceBaseUrl": []}}, "sprite.serviceBaseUrl must be a string, found array"),
        ({"service": []}, "service must be an object, found array"),
        ({"service": {"baseUrl": 7}}, "service.baseUrl must be a string, found number"),
        ({"service": {"baseUrl": ""}}, "service.baseUrl must not be an empty string"),
        ({"service": {"baseUrl": "\ud800"}}, "service.baseUrl must be a string without"),
        (
            {"transport": "sprite_service"},
            "service.baseUrl is needed for transport sprite_service, found nothing",
        ),
        ({"transport": "sprite_service", "service": {"tokenEnv": "T"}}, "service.baseUrl is needed"),
        ({"service": {"tokenEnv": 7}}, "service.tokenEnv must be a string, found number"),
        ({"service": {"signingKeyFile": 7}}, "service.signingKeyFile must be a string, found number"),
        (
            {"service": {"signingKeyFile": "keys"}},
            "service.signingKeyFile must be an absolute path, found 'keys'",
        ),
        ({"service": {"retryAttempts": "3"}}, "service.retryAttempts must be a number, found string"),
        (
            {"service": {"retryAttempts": 0}},
            "service.retryAttempts must be a whole number from 1 to 1000, found 0",
        ),
        (
            {"service": {"retryAttempts": 1.5}},
            "service.retryAttempts must be a whole number from 1 to 1000, found 1.5",
        ),
        ({"service": {"retryAttempts": 10**400}}, "service.retryAttempts must be a whole number"),
        (
            {"service": {"retryBackoffSeconds": -1}},
            "service.retryBackoffSeconds must be from 0 to 3600, found -1",
        ),
        (
            {"service": {"retryBackoffSeconds": float("inf")}},
            "service.retryBackoffSeconds must be from 0 to 3600",
        ),
        (
            {"service": {"retryBackoffSeconds": True}},
            "service.retryBackoffSeconds must be a number, found boolean",
        ),
    ],
)
def test_fault_of_an_entry_names_it_the_member_and_the_kind(members: Any, told: str) -> None:
    loop = {"loopId": "alpha", **members}
    assert message_of(registry({"loopId": "before"}, loop)).startswith(f"loops[1] (loopId 'alpha'): {told}")


def test_misspelled_member_is_refused_by_name() -> None:
    assert message_of(registry({"loopId": "a", "enbaled": False})) == (
        "loops[0] (loopId 'a'): the entry has no member 'enbaled' (found boolean);"
        " there are loopId, enabled, transport, sprite, service, metadata"
    )
    assert message_of(registry({"loopId": "a", "service": {"tokenenv": "T"}})) == (
        "loops[0] (loopId 'a'): service has no member 'tokenenv' (found string);"
        " there are baseUrl, tokenEnv, retryAttempts, retryBackoffSeconds, signingKeyFile, tls"
    )


def test_token_in_the_place_of_its_variable_is_not_repeated() -> None:
    message = message_of(registry({"loopId": "a", "service": {"tokenEnv": "c2VjcmV0+/="}}))
    assert "service.tokenEnv must name a variable" in message
    assert "c2VjcmV0" not in message


# --- any document ---------------------------------------------------------------------------------------

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.just("v1")
)
_NAMES = st.sampled_from(
    [
        *("loopId", "enabled", "transport", "sprite", "service", "metadata", "id", "serviceBaseUrl"),
        *("baseUrl", "tokenEnv", "retryAttempts", "retryBackoffSeconds", "other"),
    ]
)
_WORDS = st.sampled_from(
    ["local", "sprite_service", "grpc://h:1", "TOKEN", "alpha", "beta", "", "../x", "\ud800"]
)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    _SCALARS | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=5),
    max_leaves=12,
)
_ENTRIES = st.fixed_dictionaries(
    {"loopId": _WORDS},
    optional={
        "enabled": _SCALARS,
        "transport": _WORDS,
        "service": st.dictionaries(_NAMES, _WORDS | _SCALARS, max_size=3),
        "sprite": _VALUES,
    },
)


def _parsed(document: Any) -> Registry | OpsError:
    try:
        return parse_registry(document)
    except OpsError as error:
        return error


@given(
    _VALUES
    | st.fixed_dictionaries(
        {"schemaVersion": st.just("v1"), "loops": st.lists(_ENTRIES | _VALUES, max_size=3)},
        optional={"fleetId": _WORDS | _SCALARS},
    )
)
def test_any_document_is_a_registry_or_refused_as_none(document: Any) -> None:
    parsed = _parsed(document)
    if isinstance(parsed, OpsError):
        assert parsed.reason == "registry_invalid"
        assert parsed.message.isprintable()
        return
    assert len({entry.loop_id for entry in parsed.loops}) == len(parsed.loops) > 0
    for found in parsed.loops:
        assert (found.transport == "sprite_service") == bool(found.base_url)
        assert found.retry_attempts >= 1
        assert found.retry_backoff_seconds >= 0
    # What a status shows of it can be written.
    jsontext.parse(jsontext.encode([list(entry) for entry in parsed.loops]))
