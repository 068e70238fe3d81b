"""`spritemesh trace view` and `spritemesh trace stats`, as people and programs call them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest

from spritemesh.cli import main
from tests.harness.agents import environment
from tests.harness.terminal import OnTerminal
from tests.harness.tracefiles import START, Event, event, line, trees, write
from tests.harness.waiting import wait_for

ROOT = f"alt_{START}_0001"
CHILD = f"mem_{START}_0002"
HARMFUL = "\x1b]0;x\x07\x9b2J\u202e"


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def ids(self) -> list[str]:
        return [json.loads(each)["trace_id"] for each in self.out.splitlines()]

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def trace(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `spritemesh trace` with these words in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("DOPEJAR_TRACE", "DOPEJAR_TRACE_FILE"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str) -> Ran:
        code = main(["trace", *words])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def small(tmp_path: Path) -> list[Event]:
    """A tree of two, and another event, in the default file."""
    documents = [
        event(
            CHILD,
            ROOT,
            at=START + 1,
            operation="write",
            status="blocked",
            metadata={"reason": "full"},
            more=[1],
        ),
        event(
            ROOT,
            at=START,
            hrm_layer="altitude",
            operation="plan",
            metadata={"intent": "ship it"},
            duration_ms=12,
        ),
        event(f"sys_{START + 9}_0003", at=START + 9, hrm_layer="system", status="error"),
    ]
    write(tmp_path / "trace.jsonl", documents)
    return documents


@contextmanager
def following(cwd: Path, *words: str) -> Iterator["tuple[subprocess.Popen[str], IO[str]]"]:
    command = [sys.executable, "-m", "spritemesh.tracing.viewer", "--follow", *words]
    env = environment() | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            process.kill()


def test_events_come_as_they_were_written_with_all_their_members(trace: Any, small: list[Event]) -> None:
    ran = trace("view")
    assert (ran.code, ran.err) == (0, "")
    assert [json.loads(each) for each in ran.out.splitlines()] == small


def test_last_twenty_are_shown_when_nothing_is_asked_for(trace: Any, tmp_path: Path) -> None:
    documents = trees(6)
    ids = [document["trace_id"] for document in documents]
    path = write(tmp_path / "t", documents)
    assert trace("view", "--file", str(path)).ids == ids[-20:]
    assert trace("view", "--file", str(path), "--last", "3").ids == ids[-3:]
    assert trace("view", "--file", str(path), "--since", "2020-01-01").ids == ids


def test_selections_combine(trace: Any, small: list[Event]) -> None:
    for words, ids in (
        (["--hrm", "mem"], [CHILD]),
        (["--hrm", "Memory"], [CHILD]),
        (["--operation", "wri"], []),
        (["--hrm", "memory", "--status", "error"], []),
        (["--operation", "plan", "--component", "store.py"], [ROOT]),
        (["--until", "2026-11-21T19:40:01Z", "--last", "1"], [ROOT]),
        (["--since", "10m"], []),
    ):
        assert trace("view", *words).ids == ids


def test_person_is_told_that_nothing_matches_and_a_program_gets_nothing(
    trace: Any, tmp_path: Path, small: list[Event]
) -> None:
    for words, told in (
        (["--operation", "none"], "no event of 3 matches\n"),
        (["--since", "10m", "--last", "2"], "no event of 3 matches\n"),
        (["--trace-id", ROOT, "--status", "error"], "no event of 2 matches\n"),
    ):
        ran = trace("view", *words, "--output", "table")
        assert (ran.code, ran.out, ran.err) == (0, "", told)
        assert trace("view", *words).err == ""
    (tmp_path / "trace.jsonl").write_bytes(b"")
    assert trace("view", "--output", "table").err == "there are no events\n"


@pytest.mark.parametrize("asked", [ROOT, CHILD])
def test_tree_of_a_span_is_one_document(trace: Any, small: list[Event], asked: str) -> None:
    found = trace("view", "--trace-id", asked).document
    assert found["rootId"] == ROOT
    assert not found["rootIsMissing"]
    spans = [(span["depth"], span["event"], span["isAskedFor"]) for span in found["spans"]]
    assert spans == [(0, small[1], asked == ROOT), (1, small[0], asked == CHILD)]
    few = trace("view", "--trace-id", asked, "--status", "blocked").document
    assert [span["event"]["trace_id"] for span in few["spans"]] == [CHILD]


def test_person_sees_the_tree(trace: Any, small: list[Event]) -> None:
    shown = trace("view", "--trace-id", CHILD, "--output", "table").out.splitlines()
    assert shown == [
        f"[alt] plan: ship it → success (12ms)  out  {ROOT}",
        f"└─ [mem] write: in ■ blocked: full (1ms)  out  {CHILD}  ◀ asked for",
    ]


def test_person_sees_a_root_that_is_not_there(trace: Any, tmp_path: Path) -> None:
    write(tmp_path / "trace.jsonl", [event(CHILD, ROOT)])
    first, second = trace("view", "--trace-id", ROOT, "--output", "table").out.splitlines()
    assert first == f"{ROOT}: nowhere in the files; still open, or not kept  ◀ asked for"
    assert second.startswith("└─ [mem] read")
    assert trace("view", "--trace-id", CHILD).document["rootIsMissing"]


def test_rotated_and_several_files_are_read(trace: Any, tmp_path: Path, small: list[Event]) -> None:
    for name, document in zip(("a.1", "a", "b"), small, strict=True):
        write(tmp_path / name, [document])
    ids = [document["trace_id"] for document in small]
    assert sorted(trace("view", "--file", "b", "--file", "a").ids) == sorted(ids)
    assert trace("stats", "--file", "a").document["events"] == 2


@pytest.mark.parametrize("word", ["view", "stats"])
def test_malformed_lines_are_counted_and_shown_with_their_places(
    trace: Any, tmp_path: Path, word: str
) -> None:
    (tmp_path / "trace.jsonl.1").write_bytes(line(event("a")) + HARMFUL.encode() + b"\n")
    (tmp_path / "trace.jsonl").write_bytes(b"\0\0\n" + line(event("b")) + line(event("c"))[:40])
    ran = trace(word, "--output", "table")
    told = ran.err if word == "view" else ran.out
    assert ran.code == 0
    assert "3 malformed lines left out" in told
    for place in (
        "trace.jsonl.1 line 2 is not valid JSON",
        "trace.jsonl line 1 holds NUL",
        "line 3 is not valid",
    ):
        assert place in told
    assert all(each.isprintable() for each in (ran.out + ran.err).splitlines())


def test_nothing_reaches_the_terminal_that_it_acts_on(trace: Any, tmp_path: Path) -> None:
    names = ("hrm_layer", "operation", "component", "input_summary", "output_summary", "status", "timestamp")
    harmful: dict[str, Any] = dict.fromkeys(names, HARMFUL) | {
        "metadata": {"reason": [HARMFUL], HARMFUL: HARMFUL}
    }
    write(
        tmp_path / "trace.jsonl",
        [event(HARMFUL, HARMFUL, **harmful), event("a", "b") | {"status": "blocked"} | harmful],
    )
    for words in (["view"], ["view", "--trace-id", "a"], ["stats"]):
        ran = trace(*words, "--output", "table")
        assert ran.code == 0
        assert all(each.isprintable() for each in (ran.out + ran.err).splitlines())


def test_statistics_tell_of_layers_and_operations(trace: Any, small: list[Event]) -> None:
    found = trace("stats", "--top", "1").document
    assert [(row["layer"], row["errors"], row["blocked"]) for row in found["layers"]] == [
        ("altitude", 0, 0),
        ("memory", 0, 1),
        ("system", 1, 0),
    ]
    assert [row["traceId"] for row in found["slowest"]] == [ROOT]
    assert found["malformed"] == {"count": 0, "lines": []}
    assert trace("stats", "--hrm", "alt").document["events"] == 1
    assert trace("stats", "--last", "2").document["events"] == 2
    assert "altitude" in trace("stats", "--output", "table").out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["view"], "there is no trace file trace.jsonl [trace_file_not_found]"),
        (["stats", "--file", "."], "trace file . is a directory [document_invalid]"),
        (["view", "--file", ""], "--file needs a value [invalid_request]"),
        (["view", "--hrm", "mood"], "--hrm must be one of altitude (alt)"),
        (["view", "--status", "fine"], "--status must be one of success, error, blocked"),
        (["view", "--since", "soon"], "--since must be an ISO 8601 time"),
        (
            ["view", "--since", "1m", "--until", "2m"],
            "--since must not be later than --until [invalid_request]",
        ),
        (["view", "--top", "3"], "--top does not go with trace view [invalid_request]"),
        (["stats", "--follow"], "--follow does not go with trace stats [invalid_request]"),
        (["view", "--follow", "--trace-id", "x"], "--follow does not go with --trace-id"),
        (["watch"], "trace takes the word view or stats, not 'watch' [invalid_request]"),
        ([], "trace takes the word view or stats"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(trace: Any, words: Sequence[str], told: str) -> None:
    ran = trace(*words)
    assert (ran.code, ran.out) == (1, "")
    assert f"error: {told}" in ran.err


def test_unknown_id_is_said(trace: Any, small: list[Event]) -> None:
    ran = trace("view", "--trace-id", "alt_1_none")
    assert ran.err == "error: no event in trace.jsonl has trace id 'alt_1_none' [trace_not_found]\n"


def test_file_of_the_tracer_is_the_default(
    trace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "mine.jsonl", [event("a")])
    monkeypatch.setenv("DOPEJAR_TRACE_FILE", "mine.jsonl")
    assert trace("view").ids == ["a"]


def test_following_shows_what_is_written_over_a_rotation_until_it_is_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with following(tmp_path, "--status", "error") as (process, out):
        write(path, [event("fine"), event("a", status="error")])
        assert json.loads(out.readline())["trace_id"] == "a"
        path.rename(tmp_path / "trace.jsonl.1")
        write(path, [event("b", status="error")])
        assert json.loads(out.readline())["trace_id"] == "b"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


def test_modules_are_the_same_commands(tmp_path: Path, small: list[Event]) -> None:
    env = environment() | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "spritemesh.tracing.stats", "--last", "2"]
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout)["events"] == 2
    assert ran.stderr == ""


def test_table_is_the_form_on_a_terminal(tmp_path: Path, small: list[Event]) -> None:
    file = str(tmp_path / "trace.jsonl")
    terminal = OnTerminal([sys.executable, "-m", "spritemesh", "trace", "view", "--file", file], {})
    try:
        assert terminal.wait() == 0
        wait_for(lambda: "✗ error" in terminal.drawn)
        assert "\x1b[1;31m" in terminal.drawn
    finally:
        terminal.close()
