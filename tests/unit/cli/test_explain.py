"""`explain`: the table of reasons, the same in both programs."""

import json
from collections.abc import Callable, Sequence

import pytest

from manager.cli import main as ops_manager
from spritemesh.cli import main as spritemesh
from spritemesh.reasons import REASONS

Main = Callable[[Sequence[str]], int]
both = pytest.mark.parametrize("main", [ops_manager, spritemesh], ids=["ops-manager", "spritemesh"])


@both
@pytest.mark.parametrize("words", [["nothing_pending"], ["--reason", "nothing_pending"]])
def test_one_reason_is_told_with_its_next_step(
    main: Main, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *words]) == 0
    row = REASONS["nothing_pending"]
    assert json.loads(capsys.readouterr().out) == {
        "code": row.code,
        "severity": row.severity,
        "fault": row.fault,
        "meaning": row.meaning,
        "nextStep": row.next_step,
    }


@both
def test_all_reasons_are_told_one_a_line(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    codes = [json.loads(line)["code"] for line in capsys.readouterr().out.splitlines()]
    assert codes == sorted(REASONS)


def test_person_reads_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert ops_manager(["explain", "unknown_path", "--output", "table"]) == 0
    row = REASONS["unknown_path"]
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["unknown_path (error)", f"  {row.meaning}", f"  Next: {row.next_step}"]


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("nothing_pendig", "did you mean nothing_pending"),
        ("Target-Changed", "did you mean target_changed"),
        ("zzz", "all of them"),
    ],
)
def test_unknown_reason_is_refused_with_near_ones(
    code: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ops_manager(["explain", code]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (code in captured.err, hint in captured.err) == (True, True)


def test_second_word_is_an_unknown_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert ops_manager(["explain", "nothing_pending", "more"]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("usage: ops-manager explain")
    assert "unknown argument: more" in captured.err
