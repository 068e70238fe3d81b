"""JSON text in and out loses nothing (contract 0.1)."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spritemesh import jsontext
from spritemesh.jsontext import MAX_DEPTH, JSONError, encode, encode_ascii, parse, pretty
from tests.unit.bridge.strategies import THOROUGH, exact, values


def test_text_of_every_kind_comes_out_as_it_went_in() -> None:
    text = '{"n":null,"t":true,"f":false,"i":1,"d":1.5,"s":"x","a":[],"o":{},"é":["\\n",{"k":[[]]}]}'
    assert encode(parse(text)).decode() == text
    assert encode(parse(text.encode())).decode() == text


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "-1",
        str(2**53 + 1),
        str(2**63),
        str(2**64 - 1),
        str(2**64),
        str(-(2**63) - 1),
        "9" * 400,
        "-" + "9" * 4299,
        "9" * 4300,
        "-" + "9" * 20_000,
        "1.0",
        "-0.0",
        "0.1",
        "0.30000000000000004",
        "1.7976931348623157e308",
        "5e-324",
        "1e999",
        "-1E+400",
        "12345678901234567890.5e999",
    ],
    ids=lambda text: text if len(text) < 40 else f"{text[:2]}-{len(text)}",
)
def test_number_keeps_its_value_and_kind(text: str) -> None:
    for document in (text, f"[{text}]", f'{{"a":{text},"b":"\\ud800"}}'):
        assert encode(parse(document)).decode() == document
        assert encode(parse(encode(parse(document)))).decode() == document


@pytest.mark.parametrize(("text", "value"), [("1e3", 1000.0), ("1E-2", 0.01), ("1e-400", 0.0), ("-0", 0)])
def test_number_may_change_its_spelling_but_not_its_value(text: str, value: float) -> None:
    assert parse(text) == value
    assert json.loads(encode(parse(text))) == value


def test_whole_number_and_double_stay_apart() -> None:
    assert [type(value) for value in parse("[1,1.0,1e0]")] == [int, float, float]
    assert encode(parse("[1,1.0]")) == b"[1,1.0]"


@pytest.mark.parametrize(
    "codes", [[*range(0xD800), *range(0xE000, 0x10000)], range(0xD800, 0xE000)], ids=["plain", "surrogates"]
)
def test_escape_of_every_character_survives(codes: Iterable[int]) -> None:
    escapes = [f'"\\u{code:04x}"' for code in codes]
    value = parse(f"[{','.join(escapes)}]")
    assert value == [chr(code) for code in codes]
    assert parse(encode(value)) == parse(pretty(value)) == value
    for char, escape in zip(value, escapes, strict=True):
        told = encode(char)
        assert parse(told) == char
        if char < " " or char == "\x7f" or char in '"\\' or "\ud800" <= char <= "\udfff":
            assert told.decode() in {escape, f'"\\{char}"', '"\\b"', '"\\f"', '"\\n"', '"\\r"', '"\\t"'}
        else:
            assert told == f'"{char}"'.encode()


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ('"\\u0008\\u000c\\u000a\\u000d\\u0009\\u0001\\u001f"', '"\\b\\f\\n\\r\\t\\u0001\\u001f"'),
        ('"\\u007f\x7f"', '"\\u007f\\u007f"'),
        ('"\\/\\u003c\\u2028é😀"', '"/<\u2028é😀"'),
        ('"\\ud83d\\ude00"', '"😀"'),
        ('"\\ud83d"', '"\\ud83d"'),
        ('"\\ude00\\ud83d \\uD83D\x7f\\u0001\\""', '"\\ude00\\ud83d \\ud83d\\u007f\\u0001\\""'),
        ('{"\\ud800":{"\\udfff":1},"\x7f":2}', '{"\\ud800":{"\\udfff":1},"\\u007f":2}'),
        ('"\\\\ud800\\ud800"', '"\\\\ud800\\ud800"'),
    ],
)
def test_strings_escape_what_the_contract_says_and_nothing_else(text: str, spelled: str) -> None:
    assert encode(parse(text)).decode() == spelled


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'"\xff"', "\ufffd"),
        (b'"a\xc3"', "a\ufffd"),
        (b'{"\xe9":"\xed\xa0\x80"}', {"\ufffd": "\ufffd\ufffd\ufffd"}),
        (b'["\xff",1e999,18446744073709551616]', ["\ufffd", float("inf"), 2**64]),
    ],
)
def test_invalid_utf8_becomes_the_replacement_character(data: bytes, value: Any) -> None:
    assert parse(data) == value


@pytest.mark.parametrize("extra", ["", ',"x":"\\ud800"'], ids=["fast", "slow"])
def test_duplicate_member_keeps_the_first_place_and_the_last_value(extra: str) -> None:
    value = parse(f'{{"a":1,"b":2,"a":3{extra}}}')
    assert list(value.items())[:2] == [("a", 3), ("b", 2)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b"[1,]",
        b'{"a":1,}',
        b'{"a"}',
        b"{1:2}",
        b"{}{}",
        b"01",
        b"+1",
        b".5",
        b"5.",
        b"1e",
        b"-",
        b"nul",
        b"NaN",
        b"-Infinity",
        b"'a'",
        b'"a\nb"',
        b'"\x00"',
        b'"\\x41"',
        b'"\\u12"',
        b'"torn',
        b'"\\',
        b"\xff",
        b"\xef\xbb\xbf{}",
    ],
)
def test_text_that_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(JSONError):
        parse(data)
    with pytest.raises(JSONError):
        parse(data.decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"b":[', "]}]")])
@pytest.mark.parametrize("core", ["1", '"\\ud800"', "1e999", '"[[[{{{"'])
def test_nesting_is_read_to_the_limit_and_refused_beyond(opening: str, closing: str, core: str) -> None:
    levels = opening.count("[") + opening.count("{")
    most = MAX_DEPTH // levels
    text = opening * most + core + closing * most
    value = parse(text)
    assert encode(value).decode() == text
    assert parse(pretty(value)) == value
    for times in (most + 1, 400, 1_000, 100_000):
        with pytest.raises(JSONError, match="nested"):
            parse(opening * times + core + closing * times)


def test_breadth_and_brackets_in_strings_are_no_nesting() -> None:
    for text in ("[" + ",".join(["[]"] * 5_000) + "]", json.dumps("[{" * 5_000), json.dumps(["{" * 9_000])):
        assert parse(text) == json.loads(text)
        assert parse(text.encode()) == json.loads(text)


def test_limit_of_nesting_can_be_raised() -> None:
    text = "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)
    assert encode(parse(text, max_depth=jsontext.MAX_DOCUMENT_DEPTH)).decode() == text


@THOROUGH
@given(values)
def test_every_value_survives_as_compact_and_as_indented_text(value: Any) -> None:
    assert exact(parse(encode(value))) == exact(value)
    assert exact(parse(encode(value).decode())) == exact(value)
    assert exact(parse(pretty(value))) == exact(value)
    assert b"\x7f" not in encode(value) + pretty(value)


@THOROUGH
@given(values)
def test_indented_text_differs_from_compact_text_by_white_space_only(value: Any) -> None:
    assert encode(parse(pretty(value))) == encode(value)
    # The standard library lays out the same way; it knows no spelled numbers.
    if "literal" not in repr(exact(value)):
        escaped = json.dumps(value, indent=2)
        assert json.dumps(json.loads(pretty(value)), indent=2) == escaped
        assert len(pretty(value).splitlines()) == len(escaped.splitlines())


@THOROUGH
@given(st.binary(max_size=40) | values.map(encode).map(lambda data: data[:-1]))
def test_any_bytes_at_all_are_read_or_refused(data: bytes) -> None:
    try:
        value = parse(data)
    except JSONError:
        return
    assert exact(parse(encode(value))) == exact(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "{}"),
        ([], "[]"),
        ({"a": [], "b": {}}, '{\n  "a": [],\n  "b": {}\n}'),
        ([1, {"k": "v"}], '[\n  1,\n  {\n    "k": "v"\n  }\n]'),
        (
            ["\ud800", {}, [], {"a": [1e3]}],
            '[\n  "\\ud800",\n  {},\n  [],\n  {\n    "a": [\n      1000.0\n    ]\n  }\n]',
        ),
        ("x", '"x"'),
        (None, "null"),
    ],
)
def test_indented_text_has_the_layout_of_v1(value: Any, text: str) -> None:
    assert pretty(value).decode() == text


def test_compact_takes_white_space_away() -> None:
    assert jsontext.compact(' { "a" : [ 1 , 2.0 ] } ') == b'{"a":[1,2.0]}'
    with pytest.raises(JSONError):
        jsontext.compact("{")


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        ({"é": "ä€"}, b'{"\\u00e9":"\\u00e4\\u20ac"}'),
        (["a\U0001f600b"], b'["a\\ud83d\\ude00b"]'),
        ("\ud800", b'"\\ud800"'),
        ("\u2028\x7f/", b'"\\u2028\\u007f/"'),
    ],
)
def test_text_in_ascii_escapes_everything_else(value: Any, spelled: bytes) -> None:
    assert encode_ascii(value) == spelled


@THOROUGH
@given(values)
def test_text_in_ascii_says_the_same(value: Any) -> None:
    found = encode_ascii(value)
    assert found.isascii()
    assert exact(parse(found)) == exact(parse(encode(value)))
