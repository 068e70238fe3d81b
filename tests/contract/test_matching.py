"""The comparison itself: what it lets pass, and above all what it does not."""

import pytest

from spritemesh.times import format_utc
from tests.contract.matching import Mismatch, Run, match_text

# A fixed one: processes that share the tests must give them the same names.
RUN = Run(1_700_000_000, {"<repo>": "/r"})
NOW = format_utc(RUN.started + 1)


@pytest.mark.parametrize(
    ("recorded", "found"),
    [
        ('{"a":1}\n', '{"a":1.0}\n'),
        ('{"a":"é"}\n', '{"a":"\\u00e9"}\n'),
        ('{"at":"<now>"}\n', f'{{"at":"{NOW}"}}\n'),
        ('{"at":"<now-30>"}\n', f'{{"at":"{format_utc(RUN.started - 30)}"}}\n'),
        ('{"lag":"<int>"}\n', '{"lag":30}\n'),
        ('{"observed":"<int>"}\n', '{"observed":"30"}\n'),
        ('{"path":"<repo>/x","tmp":"<tmp>"}\n', '{"path":"/r/x","tmp":"/t"}\n'),
        ('{"t":"<uuid>"}\n', '{"t":"12345678-1234-4123-8123-123456789abc"}\n'),
        ("plain <text>\n", "plain words\nand more\n"),
        ("", ""),
    ],
)
def test_what_was_recorded_matches(recorded: str, found: str) -> None:
    match_text("here", recorded, found, RUN)


@pytest.mark.parametrize(
    ("recorded", "found"),
    [
        ('{"a":1,"b":2}\n', '{"b":2,"a":1}\n'),
        ('{"a":1}\n', '{"a":1,"b":2}\n'),
        ('{"a":1}\n', '{"a":true}\n'),
        ('{"a":null}\n', "{}\n"),
        ('{"a":[1,2]}\n', '{"a":[1]}\n'),
        ('{"a":"x"}\n', '{"a":"x "}\n'),
        ('{"a":1}\n', '{\n  "a": 1\n}\n'),
        ('{"a":1}\n', '{"a":1}'),
        ('{"a":1}\n{"a":2}\n', '{"a":1}\n'),
        ('{"at":"<now>"}\n', '{"at":"2020-01-01T00:00:00Z"}\n'),
        ('{"at":"<now>"}\n', '{"at":"now"}\n'),
        ('{"lag":"<int>"}\n', '{"lag":1.5}\n'),
        ('{"lag":"<int>"}\n', '{"lag":null}\n'),
        ('{"tmp":"<tmp>"}\n', '{"tmp":""}\n'),
        ('{"t":"<uuid>"}\n', '{"t":"12345678-1234-1123-8123-123456789abc"}\n'),
        ('{"a":1}\n', "not JSON\n"),
        ("", "something\n"),
    ],
)
def test_anything_else_does_not(recorded: str, found: str) -> None:
    with pytest.raises(Mismatch):
        match_text("here", recorded, found, RUN)
