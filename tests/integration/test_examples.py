"""The examples do what they say, and docs/tracing.md shows what they, the viewer and the statistics print."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from spritemesh import cli
from spritemesh.tracing.catalog import POINTS
from tests.harness.agents import ROOT, environment

EXAMPLE = ROOT / "examples/four_layers.py"
PAGE = (ROOT / "docs/tracing.md").read_text("utf-8")
OUTCOMES = """\
T-101  routed  billing: accounts
T-102  routed  outage: on-call
T-103  routed  billing: accounts
T-104  blocked  privacy: a person has to allow it
T-105  failed  T-105 says nothing
T-106  routed  outage: on-call
"""
# A command, and what it prints; lines of `…` stand for others.
SHOWN = re.findall(r"^```text\n\$ (spritemesh trace .*?)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
# What differs from one run to the next: durations, ids, times, and the widths of columns.
_VARIES = re.compile(r"[\d.]+m?s\b|\b[a-z]{3}_\d+_[0-9a-f]+|^20[\d :.-]+| +")


class Traced(NamedTuple):
    """A run of the example with `--trace`. spans: the lines of its trace file."""

    directory: Path
    out: str
    console: str
    spans: list[dict[str, Any]]


def run(directory: Path, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, EXAMPLE, *words],
        capture_output=True,
        text=True,
        cwd=directory,
        env=environment() | variables,
        check=True,
        timeout=30,
    )


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    directory = tmp_path_factory.mktemp("example")
    ended = run(directory, "--trace")
    lines = (directory / "trace.jsonl").read_bytes().splitlines()
    return Traced(directory, ended.stdout, ended.stderr, [json.loads(line) for line in lines])


def test_four_layers_triages_its_tickets_and_leaves_nothing_when_tracing_is_off(tmp_path: Path) -> None:
    ended = run(tmp_path)
    assert (ended.stdout, ended.stderr) == (OUTCOMES, "")
    assert os.listdir(tmp_path) == []


def test_four_layers_says_what_is_like_nothing_and_traces_as_the_environment_wants(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("# mine\n\nT-1 | ada | Hello there\n")
    ended = run(tmp_path, "mine.txt", DOPEJAR_TRACE="1", DOPEJAR_TRACE_LEVEL="warning")
    assert (ended.stdout, ended.stderr) == ("T-1  failed  like nothing known\n", "")
    (line,) = (tmp_path / "trace.jsonl").read_bytes().splitlines()
    span = json.loads(line)
    assert (span["operation"], span["status"]) == ("route", "blocked")


def test_four_layers_shows_on_the_console_what_the_page_shows(traced: Traced) -> None:
    assert traced.out == OUTCOMES
    shown = PAGE.partition("<!-- console of the example -->\n```text\n")[2].partition("```\n")[0]
    # Threads of the pool take turns as they like.
    assert sorted(_masked(traced.console)) == sorted(_masked(shown))


def test_four_layers_traces_all_layers_over_threads_tasks_and_processes_as_one_tree(traced: Traced) -> None:
    by_id = {span["trace_id"]: span for span in traced.spans}
    assert len(by_id) == len(traced.spans)
    assert {span["hrm_layer"] for span in traced.spans} == {*POINTS, "system"}
    assert [span["operation"] for span in traced.spans if span["parent_id"] is None] == ["plan"]
    below = {
        (span["operation"], by_id[span["parent_id"]]["operation"])
        for span in traced.spans
        if span["parent_id"] is not None
    }
    # Over the pool, over a task, and over the child process.
    assert below >= {("classify", "execute"), ("route", "execute"), ("classify", "escalate")}


def test_four_layers_blocks_one_ticket_and_fails_at_one(traced: Traced) -> None:
    failed = {"error_class": "ValueError", "error_message": "T-105 says nothing"}
    blocked = {"operation": "privacy", "allowed": False, "reason": "a person has to allow it"}
    odd = [span for span in traced.spans if span["status"] != "success"]
    told = [(span["operation"], span["status"], span["metadata"]) for span in odd]
    assert ("classify", "error", failed) in told
    assert ("consent_check", "blocked", blocked) in told


@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=[command.split()[3] for command, _ in SHOWN])
def test_viewer_and_statistics_print_what_the_page_shows(
    command: str,
    shown: str,
    traced: Traced,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(traced.directory)
    asked = next(span["trace_id"] for span in traced.spans if span["operation"] == "generalize")
    words = [asked if word.startswith("lrn_") else word for word in shlex.split(command)]
    assert cli.main([*words[1:], "--output", "table"]) == 0
    printed = _masked(capsys.readouterr().out)
    pieces = [_masked(piece) for piece in shown.split("…\n")]
    begin = 0
    for piece in filter(None, pieces):
        begin = _found(piece, printed, begin) + len(piece)
    assert shown.endswith("…\n") or begin == len(printed)


def _found(piece: Sequence[str], lines: Sequence[str], begin: int) -> int:
    """Where the lines of `piece` are, one after the other, from `begin` on."""
    for number in range(begin, len(lines)):
        if lines[number : number + len(piece)] == piece:
            return number
    raise AssertionError(f"not printed: {piece}\nbut: {lines[begin:]}")


def _masked(text: str) -> list[str]:
    return [_VARIES.sub("*", line) for line in text.splitlines()]
