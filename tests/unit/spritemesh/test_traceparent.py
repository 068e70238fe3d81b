"""spritemesh.traceparent: the header of W3C Trace Context."""

import pytest

from spritemesh.ids import new_trace_id
from spritemesh.traceparent import hex_form, other_spelling, trace_headers, trace_id_of, traceparent_for

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    "header",
    [
        f"00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-00",
        f"  00-{TRACE}-{PARENT}-ff\t",
        f"01-{TRACE}-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01-what-comes-later",
        f"cc-{TRACE}-{PARENT}-01-",
    ],
)
def test_trace_id_is_read_from_a_well_formed_header(header: str) -> None:
    assert trace_id_of(header) == TRACE


@pytest.mark.parametrize(
    "header",
    [
        "",
        "-",
        "---",
        TRACE,
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-011",
        f"00-{TRACE}-{PARENT}-01-",
        f"00-{TRACE}-{PARENT}-01-more",
        f"01-{TRACE}-{PARENT}-01.more",
        f"ff-{TRACE}-{PARENT}-01",
        f"0-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT.upper()}-01",
        f"00-{TRACE}-{PARENT}-0A",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}g-{PARENT}-01",
        f"00-{TRACE[:-1]}\N{ARABIC-INDIC DIGIT ONE}-{PARENT}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00_{TRACE}_{PARENT}_01",
        "00-" * 10_000,
    ],
)
def test_malformed_header_gives_no_trace_id(header: str) -> None:
    assert trace_id_of(header) == ""


def test_header_of_a_uuid_carries_its_digits() -> None:
    trace_id = new_trace_id()
    header = traceparent_for(trace_id)
    assert header is not None
    assert trace_id_of(header) == trace_id.replace("-", "")


def test_header_of_hexadecimal_digits_carries_them_and_a_new_parent() -> None:
    made = [traceparent_for(TRACE) for _ in range(50)]
    parents = set()
    for header in made:
        assert header is not None
        version, trace_id, parent, flags = header.split("-")
        assert (version, trace_id, flags) == ("00", TRACE, "01")
        assert len(parent) == 16
        parents.add(parent)
    assert len(parents) == 50


@pytest.mark.parametrize(
    "trace_id",
    [
        "",
        "trace-1",
        "0" * 32,
        "00000000-0000-0000-0000-000000000000",
        TRACE[:-1],
        f"{TRACE}0",
        f"{TRACE[:-1]}x",
        f"{TRACE[:4]}-{TRACE[4:]}",
        "é" * 32,
        "-" * 36,
    ],
)
def test_id_that_has_no_place_in_the_header_gives_none(trace_id: str) -> None:
    assert traceparent_for(trace_id) is None


def test_hexadecimal_form_of_either_spelling_is_lower_case() -> None:
    assert hex_form("4BF92F35-77B3-4DA6-A3CE-929D0E0E4736") == TRACE
    assert hex_form(TRACE.upper()) == TRACE


def test_forwarded_headers_are_those_that_can_hold_the_id() -> None:
    (own, standard) = trace_headers(TRACE)
    assert own == ("x-trace-id", TRACE)
    assert (standard[0], trace_id_of(standard[1])) == ("traceparent", TRACE)
    assert trace_headers("of-a-fleet") == (("x-trace-id", "of-a-fleet"),)
    assert trace_headers("é") == trace_headers("") == trace_headers(None) == ()


def test_each_spelling_of_an_id_knows_the_other() -> None:
    uuid = new_trace_id()
    assert other_spelling(other_spelling(uuid)) == uuid
    assert other_spelling("of-a-fleet") == other_spelling("") == ""
