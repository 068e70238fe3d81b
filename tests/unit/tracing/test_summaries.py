"""Values in a hundred characters."""

import time
import unicodedata
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spritemesh.tracing.metadata import bounded, is_simple
from spritemesh.tracing.summaries import SUMMARY_CHARS, cut, summary

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
FLAG = "\U0001f1e9\U0001f1ea"
PIECES = [
    "a", " ", "\n", "é", "e\u0301", FAMILY, FLAG, "\U0001f44d\U0001f3fd", "\ud800", "\udc00", "한",
    "\u1112\u1161", "\x1b",
]  # fmt: skip


@dataclass
class Request:
    name: str
    body: bytes


Pair = namedtuple("Pair", "left right")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""), ("", ""), ("ship it", "ship it"), (5, "5"), (True, "True"), (1.5, "1.5"),
        (b"\x00a", r"b'\x00a'"), ({"a": [1, (2,)]}, "{'a': [1, (2)]}"),
        ("two\nlines\there", "two lines here"),
        ("\x1b[31mred", "[31mred"), ("half \ud83d", "half �"), ("\ud83d\ude00", "\U0001f600"),
        (10**400, "<int of 1329 bits>"), (Request("x", b"y"), "Request(name='x', body=b'y')"),
        (Pair(1, None), "Pair(left=1, right=None)"),
        (list(range(1000)), "[0, 1, 2, 3, 4, 5, 6, 7, …]"), ([[[[[1]]]]], "[[[[…]]]]"),
    ],
)  # fmt: skip
def test_values_are_told_as_repr_would_and_text_as_it_is(value: Any, text: str) -> None:
    assert summary(value) == text


def test_a_value_that_holds_itself_or_cannot_be_told_is_told_all_the_same() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise ValueError

    own: list[Any] = []
    own.append(own)
    assert summary(own) == "[[[[…]]]]"
    assert summary({"a": Broken()}) == "{'a': <Broken that cannot be told>}"


def test_what_is_large_takes_no_longer_than_what_is_small() -> None:
    large = [b"x" * 10**6, "y" * 10**6, [None] * 10**6, dict.fromkeys(range(10**5)), 1 << 10**6]
    large += [Request("x", b"x" * 10**6), set(range(10**5)), [_LONG] * 10**6]
    began = time.process_time()
    for value in large:
        assert len(summary(value)) <= SUMMARY_CHARS
    assert time.process_time() - began < 0.05


@given(st.lists(st.sampled_from(PIECES)).map("".join) | st.text(), st.integers(2, 120))
@settings(max_examples=80, deadline=None)
def test_text_is_cut_between_characters(text: str, limit: int) -> None:
    told = summary(text, limit)
    assert len(told) <= limit
    told.encode()  # without halves of characters
    assert not any(char < " " for char in told)


@given(st.lists(st.sampled_from([piece for piece in PIECES if piece.isprintable() or len(piece) > 1])))
@settings(max_examples=80, deadline=None)
def test_what_a_reader_takes_for_one_character_is_kept_or_left_out_as_a_whole(pieces: list[str]) -> None:
    text = "".join(pieces)
    told = cut(text, 20)
    if len(text) <= 20:
        assert told == text
        return
    kept = told.removesuffix("…")
    ends = {0}
    for piece in pieces:
        ends.add(max(ends) + len(piece))
    # Spaces before the ellipsis are left out.
    assert any(text[:end].rstrip() == kept for end in ends)
    rest = text[len(kept) :]
    assert not unicodedata.combining(rest[0])


def test_marks_without_an_end_are_cut_somewhere() -> None:
    assert len(cut("e" + "\u0301" * 500, 100)) == 100


_LONG = "x" * 10**5
NOT_SIMPLE: list[Any] = [[], b"", float("inf"), 2**70, "x" * 5000]
JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5)
    | st.sampled_from([object(), ..., {1}, "\ud800", 2**70]),
    lambda inner: st.lists(inner, max_size=5)
    | st.dictionaries(st.text(max_size=5) | st.integers() | st.none(), inner),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=5) | st.integers(), JSON_LIKE, max_size=5))
@settings(max_examples=25, deadline=None)
def test_metadata_of_any_kind_becomes_json(metadata: dict[Any, Any]) -> None:
    msgspec.json.decode(msgspec.json.encode(bounded(metadata)))


def test_what_json_has_a_kind_for_is_kept_and_anything_else_told() -> None:
    own: dict[Any, Any] = {"text": "x", "list": [1, {"a": None}], "ok": True, "tuple": (1.5,)}
    assert bounded(own | {"bytes": b"x", "nan": float("nan"), "large": 2**70, 3: {4: 5}}) == {
        "text": "x", "list": [1, {"a": None}], "ok": True, "tuple": [1.5], "bytes": "b'x'", "nan": "nan",
        "large": str(2**70), "3": {"4": 5},
    }  # fmt: skip
    assert is_simple({"a": 1, "b": "x", "c": None, "d": 1.5, "e": False})
    assert not any(is_simple({"a": value}) for value in NOT_SIMPLE)


def test_metadata_that_is_too_much_keeps_its_first_and_last_members() -> None:
    own: dict[object, object] = {f"m{number}": _LONG for number in range(5_000)}
    kept = bounded(own, texts=50, items=20)
    assert list(kept)[:2] == ["m0", "m1"]
    assert list(kept)[-1] == "m4999"
    assert len(kept) == 20
    own["loop"] = [own]
    assert len(msgspec.json.encode(bounded(own, texts=50, items=20))) < 32 * 1024
