"""The v1 rules for values of unsure kind (contract 0.2): first, text, num, nz, drop.

They are written down in one place because every document of v1 rests on them, and because they differ
from what Python would do: `false` counts as missing, 0 and "" do not.
"""

import re
from collections.abc import Mapping
from math import isfinite, isnan

import msgspec

from spritemesh import jsontext
from spritemesh.jsontext import JSON

# Compiled at first use, which most commands never come to.
_NUMBER = r"[ \t\r\n]*(-?)0*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)[ \t\r\n]*\Z"


def get(value: JSON, *path: str) -> JSON:
    """The member of nested objects at `path`; None when any step is missing or no object."""
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def with_member(document: dict[str, JSON], part: str, name: str, value: JSON) -> dict[str, JSON]:
    """`document` with one member of its object `part` set; whatever else stood there gives way."""
    inner = document.get(part)
    return document | {part: (inner if isinstance(inner, dict) else {}) | {name: value}}


def first(*values: JSON) -> JSON:
    """The first value that is neither None nor False; the last one when there is none."""
    for value in values:
        if value is not None and value is not False:
            return value
    return values[-1]


def text(value: JSON) -> str:
    """`value` as v1 turns it into text: trailing newlines and NUL characters are lost."""
    if isinstance(value, str):
        result = value
    elif value is None or isinstance(value, bool):
        result = {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, int | float):
        result = number_text(value)
    else:
        result = jsontext.pretty(_in_v1_numbers(value)).decode()
    return result.replace("\0", "").rstrip("\n")


def num(value: JSON) -> int | float:
    """`value` as a number: numbers as they are, strings that are one JSON number, anything else 0."""
    number = numeric(value)
    return 0 if number is None else number


def numeric(value: JSON) -> int | float | None:
    """`value` by the rule of num, and None where that makes it 0 for want of a number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        match = re.match(_NUMBER, value)
        if match:
            # The spelling is valid JSON, and what it says beyond int and double is not lost here either.
            number: int | float = jsontext.parse(match[1] + match[2])
            return number
    return None


def nz(value: str) -> str | None:
    """`value`, or None when it is empty."""
    return value or None


def drop(members: Mapping[str, JSON]) -> dict[str, JSON]:
    """`members` without those that are None, at this one level."""
    return {name: value for name, value in members.items() if value is not None}


def digits(value: JSON) -> int | None:
    """The number that text(value) spells when it is digits only; None otherwise."""
    spelled = text(value)
    return (
        int(spelled)
        if spelled.isascii() and spelled.isdigit() and len(spelled) < jsontext.MAX_INT_DIGITS
        else None
    )


def whole(value: JSON) -> int | None:
    """`value` when it is a non-negative whole number (1.0 counts); None otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return None
    # An integer may be too large for a double, and so for isfinite.
    if isinstance(value, float) and (not isfinite(value) or value != int(value)):
        return None
    return int(value)


def number_text(value: float) -> str:
    """A number in the spelling of contract 0.1; integers stay exact."""
    if isinstance(value, int):
        return str(value)
    if not isfinite(value):
        return "null" if isnan(value) else ("-" if value < 0 else "") + "1.7976931348623157e+308"
    sign = "-" if str(value).startswith("-") else ""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole_part, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits_ = (whole_part + fraction).lstrip("0")
    if not digits_:
        return sign + "0"
    leading = len(whole_part + fraction) - len((whole_part + fraction).lstrip("0"))
    point = len(whole_part) - leading + int(exponent or 0)
    digits_ = digits_.rstrip("0")
    n = len(digits_)
    if point <= -4 or point > n + 15:
        tail = "." + digits_[1:] if n > 1 else ""
        power = point - 1
        return f"{sign}{digits_[0]}{tail}e{'-' if power < 0 else '+'}{abs(power):02d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits_}"
    if point >= n:
        return sign + digits_ + "0" * (point - n)
    return f"{sign}{digits_[:point]}.{digits_[point:]}"


def _in_v1_numbers(value: JSON) -> JSON:
    """`value` with its doubles in the spelling of contract 0.1, which shows once it is text."""
    if isinstance(value, float):
        return msgspec.Raw(number_text(value).encode())
    if isinstance(value, dict):
        members: dict[str, JSON] = {}
        for name, member in value.items():
            members[name] = _in_v1_numbers(member)
        return members
    if isinstance(value, list | tuple):
        elements: list[JSON] = []
        for element in value:
            elements.append(_in_v1_numbers(element))  # noqa: PERF401 - a comprehension takes a frame more
        return elements
    return value
