"""Times are read generously and written in one form (contract 0.3, L13)."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spritemesh.times import format_utc, parse_rfc3339, parse_strict
from tests.unit.bridge.strategies import THOROUGH

NINE = 1710147600  # 2024-03-11T09:00:00Z

STRANGE = [
    "",
    "now",
    "2024-03-11",
    "2024-03-11T09:00Z",
    "2024-03-11T0900Z",
    "2024-03-11T09:00:00",
    "2024-03-11 09:00:00Z",
    "2024-3-11T09:00:00Z",
    "2024-03-11T9:00:00Z",
    " 2024-03-11T09:00:00Z",
    "2024-03-11T09:00:00Z ",
    "2024-03-11T09:00:00Z\n",
    "20240311T090000Z",
    "2024-03-11T090000.0Z",
    "2024-W11-1T09:00:00Z",
    "2024-071T09:00:00.00Z",
    "2024-03-11T09:00:00,5Z",
    "2024-03-11T09:00:00.Z",
    "2024-03-11T09:00:00+0100",
    "2024-03-11T09:00:00+01",
    "2024-03-11T09:00:00+01:00:00",
    "2024-03-11T09:00:00 UTC",
    "2024-03-11T24:00:00Z",
    "2024-03-11T09:60:00Z",
    "2024-03-11T09:00:61Z",
    "2024-13-11T09:00:00Z",
    "2024-02-31T09:00:00Z",
    "2023-02-29T09:00:00Z",
    "0000-03-11T09:00:00Z",
    "2024-03-11T09:00:00+24:00",
    "２０２４-03-11T09:00:00Z",
]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024-03-11T09:00:00Z", NINE),
        ("2024-03-11T09:00:00z", NINE),
        ("2024-03-11t09:00:00Z", NINE),
        ("2024-03-11T09:00:00.25Z", NINE + 0.25),
        ("2024-03-11T09:00:00.123456789Z", NINE + 0.123456),
        ("2024-03-11T10:30:00+01:30", NINE),
        ("2024-03-11T01:00:00.5-08:00", NINE + 0.5),
        ("2024-03-11T09:00:00-00:00", NINE),
        ("1969-12-31T23:59:59Z", -1),
        ("2016-12-31T23:59:60Z", 1483228800),
        ("2016-12-31T23:59:60.5Z", 1483228800.5),
    ],
)
def test_rfc3339_time_is_read_with_fraction_and_offset(text: str, seconds: float) -> None:
    assert parse_rfc3339(text) == pytest.approx(seconds, abs=1e-5)


@pytest.mark.parametrize("text", STRANGE)
def test_text_that_is_no_rfc3339_time_is_no_time(text: str) -> None:
    assert parse_rfc3339(text) is None
    assert parse_strict(text) is None


@pytest.mark.parametrize("value", [None, True, 1710147600, 1.5, [], {}, b"2024-03-11T09:00:00Z"])
def test_value_that_is_no_text_is_no_time(value: object) -> None:
    assert parse_rfc3339(value) is None


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_time_at_the_edge_of_the_calendar_does_no_harm(text: str) -> None:
    parse_rfc3339(text)


def test_strict_form_is_read_to_the_second() -> None:
    assert parse_strict("2024-03-11T09:00:00Z") == NINE


@pytest.mark.parametrize(
    "text",
    ["2024-03-11T09:00:00z", "2024-03-11t09:00:00Z", "2024-03-11T09:00:00.0Z", "2024-03-11T09:00:00+00:00"],
)
def test_strict_form_admits_none_of_what_rfc3339_does(text: str) -> None:
    assert parse_rfc3339(text) == NINE
    assert parse_strict(text) is None


@pytest.mark.parametrize("seconds", [NINE, NINE + 0.001, NINE + 0.999999])
def test_time_is_written_with_its_fraction_cut(seconds: float) -> None:
    assert format_utc(seconds) == "2024-03-11T09:00:00Z"


@THOROUGH
@given(st.integers(-(10**10), 10**11))
def test_what_is_written_is_read_again(seconds: int) -> None:
    written = format_utc(seconds)
    if len(written) == len("2024-03-11T09:00:00Z") and written[0] != "0":
        assert parse_strict(written) == seconds
        assert parse_rfc3339(written) == seconds


@THOROUGH
@given(
    st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)),  # noqa: DTZ001
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
)
def test_any_moment_is_the_same_whatever_offset_it_is_told_in(moment: datetime, minutes: int) -> None:
    moment = moment.replace(tzinfo=UTC)
    told = moment.astimezone(timezone(timedelta(minutes=minutes))).isoformat()
    assert parse_rfc3339(told) == pytest.approx(moment.timestamp(), abs=1e-5)
