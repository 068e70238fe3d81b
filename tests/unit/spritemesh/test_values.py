"""Values of unsure kind are treated as v1 does (contract 0.1, 0.2)."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spritemesh import jsontext
from spritemesh.jsontext import Literal
from spritemesh.values import digits, drop, first, get, num, number_text, nz, text, whole, with_member
from tests.unit.bridge.strategies import THOROUGH, exact, values


def spelled(value: object) -> str:
    """An id that tells 7 from "7"."""
    return ascii(value)[:40]


@pytest.mark.parametrize(
    ("given_values", "expected"),
    [
        ((None, False, 5), 5),
        ((0, 1), 0),
        (("", "x"), ""),
        (([], 1), []),
        (({}, 1), {}),
        ((True, 1), True),
        ((None,), None),
        ((False,), False),
        ((None, False), False),
        ((False, None), None),
        ((0.0, 1), 0.0),
    ],
    ids=spelled,
)
def test_first_takes_false_for_missing_and_empty_for_present(given_values: Any, expected: Any) -> None:
    found = first(*given_values)
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("as is", "as is"),
        ("", ""),
        ("a\nb\n\n", "a\nb"),
        ("\n", ""),
        ("a\0b\n\0", "ab"),
        ("a\r\n", "a\r"),
        (" a ", " a "),
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-7, "-7"),
        (2**70, str(2**70)),
        (1.0, "1"),
        (-0.0, "-0"),
        (1e3, "1000"),
        (2.5, "2.5"),
        (Literal("1e999"), "1.7976931348623157e+308"),
        ([], "[]"),
        ({}, "{}"),
        ([1, "a\n"], '[\n  1,\n  "a\\n"\n]'),
        ({"b": {"a": None}}, '{\n  "b": {\n    "a": null\n  }\n}'),
        ({"n": [1.0, 1e-05, 1e17]}, '{\n  "n": [\n    1,\n    1e-05,\n    1e+17\n  ]\n}'),
        ([-2.5, 2**60], f"[\n  -2.5,\n  {2**60}\n]"),
        (["\x7f\u2028", "\ud800"], '[\n  "\\u007f\u2028",\n  "\\ud800"\n]'),
        ({"\0": "\0"}, '{\n  "\\u0000": "\\u0000"\n}'),
    ],
    ids=spelled,
)  # fmt: skip
def test_text_spells_every_kind_as_v1_does(value: Any, expected: str) -> None:
    assert text(value) == expected


@THOROUGH
@given(values)
def test_text_of_a_container_is_json_of_the_same_value(value: Any) -> None:
    """The same but for numbers, which are the same as doubles."""
    if isinstance(value, list | dict) and "literal" not in repr(exact(value)):
        assert json.loads(text(value), parse_int=float) == json.loads(jsontext.encode(value), parse_int=float)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, 7),
        (-1.5, -1.5),
        (1.0, 1.0),
        ("7", 7),
        (" 7 ", 7),
        ("\t\r\n7\n", 7),
        ("007", 7),
        ("-007", -7),
        ("0", 0),
        ("000", 0),
        ("0.50", 0.5),
        ("00.5", 0.5),
        ("1e3", 1000.0),
        ("1E+3", 1000.0),
        ("-2.5e-1", -0.25),
        (str(2**70), 2**70),
        ("1.0", 1.0),
    ],
    ids=spelled,
)
def test_num_reads_numbers_and_strings_that_are_one(value: Any, expected: float) -> None:
    assert (type(num(value)), num(value)) == (type(expected), expected)


@pytest.mark.parametrize(
    "value",
    [None, True, False, [], {}, [7], "", " ", "x", "7x", "7 8", "+7", ".5", "5.", "1e", "-", "0x10", "1_000",
     "NaN", "Infinity", "true", "\u00a07", "\v7", "\u0667", "７", "--7", "1,5"],
    ids=spelled,
)  # fmt: skip
def test_num_of_anything_else_is_zero(value: Any) -> None:
    assert (type(num(value)), num(value)) == (int, 0)


@pytest.mark.parametrize("value", ["1e400", "-1e400", "9" * 5000, "0009e999"])
def test_num_beyond_a_double_is_still_a_number_once_written(value: str) -> None:
    assert jsontext.encode(num(value)).decode() == value.lstrip("0")


@pytest.mark.parametrize(("value", "expected"), [("", None), ("x", "x"), ("0", "0"), (" ", " ")])
def test_nz_makes_the_empty_string_null(value: str, expected: str | None) -> None:
    assert nz(value) == expected


def test_drop_removes_null_members_at_one_level_only() -> None:
    given_members = {"a": None, "b": False, "c": {"d": None}, "e": [None], "f": 0, "g": ""}
    assert exact(drop(given_members)) == exact({"b": False, "c": {"d": None}, "e": [None], "f": 0, "g": ""})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0),
        ("007", 7),
        (7, 7),
        (7.0, 7),
        (1e15, 10**15),
        (str(2**80), 2**80),
        ("7\n", 7),
        (-1, None),
        (1.5, None),
        (1e17, None),
        ("", None),
        (" 7", None),
        ("+7", None),
        ("٧", None),
        (None, None),
        (True, None),
        ([], None),
        ("9" * 5000, None),
    ],
    ids=spelled,
)
def test_digits_reads_what_is_spelled_in_digits_only(value: Any, expected: int | None) -> None:
    assert digits(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (7, 7),
        (7.0, 7),
        (2**70, 2**70),
        (1e300, int(1e300)),
        (10**400, 10**400),
        (-1, None),
        (-0.5, None),
        (1.5, None),
        (Literal("1e999"), None),
        (float("nan"), None),
        (True, None),
        (None, None),
        ("7", None),
        ([7], None),
    ],
    ids=spelled,
)
def test_whole_takes_non_negative_whole_numbers_only(value: Any, expected: int | None) -> None:
    assert whole(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (0.1, "0.1"),
        (-123.456, "-123.456"),
        (0.001, "0.001"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (0.000123, "0.000123"),
        (0.0000123, "1.23e-05"),
        (1e15, "1000000000000000"),
        (1e16, "1e+16"),
        (1e17, "1e+17"),
        (12345678901234567890.0, "12345678901234567000"),
        (1.5e300, "1.5e+300"),
        (-5e-324, "-5e-324"),
        (float("inf"), "1.7976931348623157e+308"),
        (float("-inf"), "-1.7976931348623157e+308"),
        (float("nan"), "null"),
        (12345678901234567890, "12345678901234567890"),
    ],
    ids=spelled,
)
def test_number_text_has_the_layout_of_v1(value: float, expected: str) -> None:
    assert number_text(value) == expected


@THOROUGH
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_number_text_follows_the_rule_of_the_contract(value: float) -> None:
    spelled = number_text(value)
    assert float(spelled) == value
    _, figures, exponent = Decimal(repr(abs(value))).normalize().as_tuple()
    assert isinstance(exponent, int)
    n, p = len(figures), len(figures) + exponent
    if value:
        assert ("e" in spelled) == (p <= -4 or p > n + 15)
    mantissa = spelled.partition("e")[0].lstrip("-").replace(".", "").strip("0")
    assert mantissa == "".join(map(str, figures)).strip("0")


def test_get_walks_objects_and_stops_at_anything_else() -> None:
    value = {"a": {"b": [1], "c": None}}
    assert get(value, "a", "b") == [1]
    assert get(value) == value
    for path in (("x",), ("a", "b", "0"), ("a", "c", "d"), ("a", "x", "y")):
        assert get(value, *path) is None
    assert get([value], "a") is None


@pytest.mark.parametrize("before", [{"kept": 1}, {"kept": 1, "name": 2}])
def test_member_is_set_in_a_copy(before: dict[str, Any]) -> None:
    document = {"part": before, "other": 3}
    untouched = {"part": dict(before), "other": 3}
    assert with_member(document, "part", "name", 4) == {"part": {"kept": 1, "name": 4}, "other": 3}
    assert document == untouched


@pytest.mark.parametrize("part", [{}, {"part": None}, {"part": []}, {"part": "x"}, {"part": 5}])
def test_member_is_set_whatever_stood_in_place_of_its_object(part: dict[str, Any]) -> None:
    assert with_member(part, "part", "name", None) == {"part": {"name": None}}
