"""When an alert is tried again, and how that is kept (contract L17)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.core.alert_retries import (
    MAX_TRIES,
    Asked,
    Entry,
    document_of,
    entries_of,
    is_due,
    pause_after,
)
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from tests.unit.bridge.strategies import THOROUGH

NOW = 1_700_000_000.0


def test_pause_doubles_up_to_an_hour() -> None:
    assert [pause_after(tries) for tries in range(1, 9)] == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert pause_after(10_000) == 3600


def test_entry_is_due_when_its_pause_is_over() -> None:
    entry = Entry(1, {}).failed({"a": "sink_timeout"}, NOW)
    assert not is_due(entry, NOW + 59)
    assert is_due(entry, NOW + 60)
    # The clock was set back by a day.
    assert is_due(entry, NOW - 86_400)


def test_entry_without_a_route_is_exhausted_after_its_last_try() -> None:
    entry = Entry(1, {})
    for _ in range(MAX_TRIES - 1):
        entry = entry.failed({}, NOW)
        assert not entry.exhausted
    assert entry.failed({}, NOW).exhausted


def test_sink_is_spent_after_it_was_asked_so_often_whatever_passes_there_were() -> None:
    entry = Entry(1, {}, routed=True)
    for _ in range(MAX_TRIES):
        entry = entry.failed({"a": "sink_failed", "b": "sink_timeout"}, NOW)
        assert entry.spent == []
        entry = entry.was_asked("a", NOW)
    assert entry.spent == ["a"]


def test_pass_that_asked_nobody_moves_only_the_next_try() -> None:
    entry = Entry(1, {}, routed=True).failed({"a": "sink_timeout"}, NOW)
    later = entry.postponed(entry.waiting, NOW + 100)
    assert (later.tries, later.asked, later.next_at) == (1, {}, NOW + 160)


def test_who_was_never_asked_comes_first_then_who_was_asked_longest_ago() -> None:
    waiting = {"a": "sink_timeout", "b": "sink_timeout"}
    entries = [
        Entry(line, {}, waiting=waiting, asked={"a": Asked(1, NOW + a), "b": Asked(1, NOW + b)})
        for line, a, b in ((1, 9, 5), (2, 4, 9), (3, 9, 5))
    ]
    half = Entry(4, {}, waiting=waiting, asked={"a": Asked(1, NOW)})
    assert [e.line for e in sorted([*entries, half], key=lambda e: e.urgency)] == [4, 2, 1, 3]


def test_sink_that_took_it_waits_no_more() -> None:
    entry = Entry(1, {}, routed=True).failed({"a": "sink_failed", "b": "sink_timeout"}, NOW)
    entry = entry.took({"id": "a"})
    assert (entry.waiting, entry.settled) == ({"b": "sink_timeout"}, False)
    assert entry.took({"id": "b"}).settled


def test_unrouted_entry_is_not_settled() -> None:
    assert not Entry(1, {}).failed({}, NOW).settled
    assert not Entry(1, {}).settled


def test_entry_that_names_a_waiting_sink_is_never_settled() -> None:
    entry = Entry(1, {}, routed=True, waiting={"a": ""})
    assert not entry.settled
    assert is_due(entry, NOW)


_reasons = st.dictionaries(
    st.text(max_size=5), st.sampled_from(["sink_failed", "missing_secret"]), max_size=3
)
_entries = st.builds(
    Entry,
    line=st.integers(1, 10**9),
    escalation=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
    tries=st.integers(0, MAX_TRIES),
    next_at=st.none() | st.integers(0, 4 * 10**9).map(float),
    delivered=st.lists(st.fixed_dictionaries({"id": st.text(max_size=5)}), max_size=3).map(tuple),
    waiting=_reasons,
    routed=st.booleans(),
    digest=st.text(max_size=5),
    asked=st.dictionaries(
        st.text(max_size=5),
        st.builds(Asked, st.integers(0, MAX_TRIES), st.integers(0, 4 * 10**9).map(float)),
        max_size=3,
    ),
)


@THOROUGH
@given(st.lists(_entries, max_size=4))
def test_queue_reads_back_as_written(entries: list[Entry]) -> None:
    document = json.loads(json.dumps(document_of(entries, now=NOW, loop_id="alpha")))
    assert entries_of(document, "q.json") == entries


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"entries": {}},
        {"entries": [1]},
        {"entries": [{"line": 1}]},
        {"entries": [{"line": 1, "tries": 1, "nextTryAt": "soon", "waiting": {}, "delivered": []}]},
        {"entries": [{"line": 1, "tries": 1, "nextTryAt": None, "waiting": [], "delivered": []}]},
        {"entries": [{"line": 1, "tries": 1, "nextTryAt": None, "waiting": {}, "delivered": [{}]}]},
        {"entries": [{"line": 1, "tries": 1, "waiting": {}, "delivered": [], "asked": []}]},
        {"entries": [{"line": 1, "tries": 1, "waiting": {}, "delivered": [], "asked": {"a": {}}}]},
    ],
)
def test_queue_that_cannot_be_trusted_is_refused(document: JSON) -> None:
    with pytest.raises(OpsError, match=r"q\.json") as caught:
        entries_of(document, "q.json")
    assert caught.value.reason == "document_invalid"
