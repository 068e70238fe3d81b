"""One document, three forms (contract 0.1)."""

import io
import json
import sys
from typing import Any

import pytest

from manager.cli import output

DOCUMENT = {"b": [], "a": {"é": "x\x7fy", "n": 1.0}}


class Terminal(io.TextIOWrapper):
    """Standard output as a terminal would be."""

    def isatty(self) -> bool:
        return True


def emitted_on_a_terminal(monkeypatch: pytest.MonkeyPatch, *args: Any, **options: Any) -> bytes:
    written = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setenv("TERM", "xterm")
        patch.setattr(sys, "stdout", Terminal(written, encoding="utf-8", write_through=True))
        output.emit(*args, **options)
        return written.getvalue()


def test_json_is_one_line_in_v1_spelling(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    output.emit(DOCUMENT)
    out = capsysbinary.readouterr().out
    assert out.startswith('{"b":[],"a":{"é":"x\\u007fy","n":1'.encode())
    assert out.endswith(b"}\n")
    assert out.count(b"\n") == 1


@pytest.mark.parametrize("choice", [{"pretty": True}, {"output": "pretty"}])
def test_pretty_is_indented_json(capsysbinary: pytest.CaptureFixture[bytes], choice: dict[str, Any]) -> None:
    output.emit({"a": {"b": 1}, "c": []}, **choice)
    assert capsysbinary.readouterr().out == b'{\n  "a": {\n    "b": 1\n  },\n  "c": []\n}\n'


def test_table_is_for_people_and_has_no_colour_in_a_pipe(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    output.emit(DOCUMENT, output="table")
    out = capsysbinary.readouterr().out.decode()
    assert "é" in out
    assert "\x1b" not in out
    with pytest.raises(ValueError, match=r"."):
        json.loads(out)


def test_terminal_gets_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    written = emitted_on_a_terminal(monkeypatch, {"a": "healthy"})
    assert b"healthy" in written
    assert b"{" not in written


@pytest.mark.parametrize("choice", [{"output": "json"}, {"pretty": True}])
def test_terminal_gets_json_on_request(monkeypatch: pytest.MonkeyPatch, choice: dict[str, Any]) -> None:
    assert json.loads(emitted_on_a_terminal(monkeypatch, {"a": 1}, **choice)) == {"a": 1}


def test_output_flag_wins_over_pretty(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    output.emit({"a": 1}, pretty=True, output="json")
    assert capsysbinary.readouterr().out == b'{"a":1}\n'


def test_json_on_a_terminal_steers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"a": "é\x9b\x7f\u202e\u2066\ud800"}
    written = emitted_on_a_terminal(monkeypatch, document, output="json")
    assert written == b'{"a":"\xc3\xa9\\u009b\\u007f\\u202e\\u2066\\ud800"}\n'
