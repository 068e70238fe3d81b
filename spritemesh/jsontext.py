"""JSON text in and out, without losing what a double or a lazy escape would lose.

msgspec does the work; the few texts that it refuses although JSON allows them (lone surrogate escapes,
numbers beyond a double, invalid UTF-8) take a slower way. The whole number -0 reads as 0, its equal: to
look for it would cost as much as a third of the decoding. -0.0 keeps its sign.
"""

import re
from collections.abc import Callable
from typing import Any, Self

import msgspec

# What a parsed JSON document is. `Any` inside: recursive aliases make every access a cast.
JSON = Any

# Levels of arrays and objects that what others wrote may have (contract 0.1).
MAX_DEPTH = 256
# The same for documents of ours: they put a few levels around what others wrote.
MAX_DOCUMENT_DEPTH = MAX_DEPTH + 64
# int() refuses longer ones by default, and no document holds them in earnest.
MAX_INT_DIGITS = 4000

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class JSONError(ValueError):
    """The text is no JSON document."""


class Literal(float):
    """A number that keeps its spelling, since no double can hold it."""

    spelling: str

    def __new__(cls, spelling: str) -> Self:
        self = super().__new__(cls, spelling)
        self.spelling = spelling
        return self


def parse(data: bytes | str, *, max_depth: int = MAX_DEPTH) -> JSON:
    """The value of one JSON document.

    Of a member that occurs twice, the place of the first and the value of the last survive (contract
    0.1). Raises JSONError, whose text tells where; also when it is nested deeper than `max_depth`.
    """
    try:
        value = _decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        value = _parse_slowly(data)
    if len(data) > 2 * max_depth and may_be_deeper(data, max_depth) and _is_deeper(value, max_depth):
        raise JSONError(f"nested deeper than {max_depth} levels")
    return value


def may_be_deeper(data: bytes | str, max_depth: int = MAX_DEPTH) -> bool:
    """Whether a JSON text holds enough brackets to be nested deeper than `max_depth`, in strings or not."""
    if isinstance(data, str):
        return data.count("[") + data.count("{") > max_depth
    return data.count(b"[") + data.count(b"{") > max_depth


def encode(value: JSON) -> bytes:
    """`value` as compact UTF-8 JSON in the spelling of contract 0.1, without a final newline."""
    try:
        data: bytes = _encode(value)
    except (UnicodeEncodeError, OverflowError, TypeError):
        data = _write_slowly(value, b"")
    # Every byte 0x7f stands inside a string: UTF-8 uses it for nothing else.
    if b"\x7f" in data:
        data = data.replace(b"\x7f", b"\\u007f")
    return data


def encode_ascii(value: JSON) -> bytes:
    """As encode, with all beyond ASCII as `\\uXXXX`: so v1's HTTP service writes (contract 0.1)."""
    data = encode(value)
    if data.isascii():
        return data
    return re.sub(r"[^\x00-\x7f]+", _escape, data.decode()).encode("ascii")


def pretty(value: JSON) -> bytes:
    """`value` as indented JSON (contract 0.1 `--pretty`), without a final newline."""
    try:
        data: bytes = msgspec.json.format(encode(value), indent=2)
    except msgspec.DecodeError:
        # It holds a lone surrogate, which may be written but not read again.
        data = _write_slowly(value, b"\n").replace(b"\x7f", b"\\u007f")
    return data


def compact(text: str) -> bytes:
    """JSON text in the compact spelling; raises JSONError when `text` is none."""
    return encode(parse(text))


# --- the slow ways --------------------------------------------------------------------------------------


def _parse_slowly(data: bytes | str) -> JSON:
    import json  # 2 ms at the start of a command that hardly ever needs it

    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    try:
        return json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=_constant)
    except RecursionError:
        raise JSONError("nested too deeply") from None
    except ValueError as error:
        raise JSONError(str(error)) from None


def _integer(spelling: str) -> int | float:
    if len(spelling) > MAX_INT_DIGITS:
        return Literal(spelling)
    return int(spelling)


def _number(spelling: str) -> float:
    value = float(spelling)
    return Literal(spelling) if value in (float("inf"), float("-inf")) else value


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON value")


def _is_deeper(value: JSON, max_depth: int) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(max_depth):
        if not level:
            return False
        level = [
            member
            for container in level
            for member in (container.values() if type(container) is dict else container)
            if type(member) is dict or type(member) is list
        ]
    return bool(level)


def _escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def _write_slowly(value: JSON, newline: bytes) -> bytes:
    """`value` with everything that msgspec cannot write. newline: b"\\n" for indented JSON, else b""."""
    pieces: list[bytes] = []
    _write(value, newline, pieces.append)
    return b"".join(pieces)


def _write(value: JSON, newline: bytes, add: Callable[[bytes], None]) -> None:
    # newline: what stands between elements at this level, with its indentation.
    inner = newline + b"  " if newline else b""
    separator = inner
    if isinstance(value, dict) and value:
        add(b"{")
        for name, member in value.items():
            add(separator + _string(name) + (b": " if newline else b":"))
            _write(member, inner, add)
            separator = b"," + inner
        add(newline + b"}")
    elif isinstance(value, list | tuple) and value:
        add(b"[")
        for member in value:
            add(separator)
            _write(member, inner, add)
            separator = b"," + inner
        add(newline + b"]")
    elif isinstance(value, str):
        add(_string(value))
    elif isinstance(value, Literal):
        add(value.spelling.encode())
    else:
        add(_encode(value))


def _string(text: str) -> bytes:
    """A JSON string; lone surrogates stay escapes, all else as usual."""
    try:
        return _encode(text)
    except UnicodeEncodeError:
        import json

        quoted: str = json.dumps(text, ensure_ascii=False)
        return quoted.encode("utf-8", "backslashreplace")
