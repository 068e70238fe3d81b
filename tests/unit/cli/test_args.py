"""Command lines are read as v1 reads them (contract 0.5)."""

import os
from pathlib import Path

import pytest

from sprite_agent.runtime.layout import resolve_repo
from spritemesh.commandline import Parser, Stop, choice, digits, keep_empty, positive
from spritemesh.errors import OpsError


@pytest.fixture
def parser() -> Parser:
    parser = Parser("ops-manager try", "Try things.")
    parser.add_argument("--repo", required=True, metavar="DIR")
    parser.add_argument("--count", type=digits, default=7, metavar="N")
    parser.add_argument("--kind", choices=("a", "b"))
    parser.add_argument("--note", default="none")
    parser.add_argument("--code", type=keep_empty, default="x")
    parser.add_argument("--force", action="store_true")
    return parser


def test_values_and_defaults_are_read(parser: Parser) -> None:
    args = parser.read(["--repo", "/r", "--count", "12", "--force"])
    assert (args.repo, args.count, args.kind, args.note, args.force) == ("/r", 12, None, "none", True)


def test_value_may_stand_behind_an_equals_sign(parser: Parser) -> None:
    args = parser.read(["--repo=/r", "--note=a=b"])
    assert (args.repo, args.note) == ("/r", "a=b")


@pytest.mark.parametrize("value", ["-1", "--force", "--help", "-"])
def test_value_may_look_like_a_flag(parser: Parser, value: str) -> None:
    args = parser.read(["--repo", "/r", "--note", value])
    assert args.note == value
    assert args.force is False


def test_last_of_repeated_flags_counts_even_when_an_earlier_value_is_wrong(parser: Parser) -> None:
    assert parser.read(["--repo", "/r", "--count", "many", "--count", "2"]).count == 2


def test_empty_value_means_not_given(parser: Parser) -> None:
    assert parser.read(["--repo", "/r", "--note", ""]).note == "none"


def test_empty_value_counts_where_it_says_something(parser: Parser) -> None:
    assert parser.read(["--repo", "/r", "--code", ""]).code == ""


@pytest.mark.parametrize("words", [["--rep", "/r"], ["--nope"], ["stray"], ["-x"], ["--"]])
def test_unknown_argument_gives_usage_and_an_error_that_names_it(parser: Parser, words: list[str]) -> None:
    with pytest.raises(Stop) as stop:
        parser.read(["--repo", "/r", *words])
    assert stop.value.code == 1
    assert stop.value.out.startswith("usage: ops-manager try")
    assert words[0] in stop.value.error


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("--tokn=planted", "--tokn"),
        ("-tokn=planted=", "-tokn"),
        ("tokn=planted", "tokn"),
        ("--force=planted", "--force (takes no value)"),
    ],
)
def test_value_of_an_unknown_flag_is_not_repeated(parser: Parser, word: str, told: str) -> None:
    with pytest.raises(Stop) as stop:
        parser.read(["--repo", "/r", word])
    assert stop.value.error == f"unknown argument: {told}"
    assert "planted" not in stop.value.out


def test_last_flag_without_value_ends_silently(parser: Parser) -> None:
    with pytest.raises(Stop) as stop:
        parser.read(["--repo"])
    assert (stop.value.code, stop.value.out, stop.value.error) == (1, "", "")


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--count", "many", "--help"], ["--help", "--nope"]])
def test_help_before_an_error_gives_usage(parser: Parser, words: list[str]) -> None:
    with pytest.raises(Stop) as stop:
        parser.read(words)
    assert (stop.value.code, stop.value.error) == (0, "")
    assert "--force" in stop.value.out


def test_help_after_an_unknown_argument_comes_too_late(parser: Parser) -> None:
    with pytest.raises(Stop) as stop:
        parser.read(["--nope", "--help"])
    assert stop.value.code == 1


@pytest.mark.parametrize("words", [[], ["--repo", ""], ["--count", "1"]])
def test_missing_required_flag_is_named(parser: Parser, words: list[str]) -> None:
    with pytest.raises(OpsError, match="--repo is required") as error:
        parser.read(words)
    assert error.value.reason == "invalid_request"


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--count", "-1"), ("--count", ""), ("--count", "1.5"), ("--kind", "c"), ("--kind", "")],
)
def test_refused_value_is_told_with_its_flag(parser: Parser, flag: str, value: str) -> None:
    with pytest.raises(OpsError, match=flag):
        parser.read(["--repo", "/r", flag, value])


@pytest.mark.parametrize("text", ["", "-1", "+1", " 1", "1\n", "1.0", "1e3", "٣", "9" * 19, "9" * 5000])
def test_digits_refuses_what_is_not_a_small_row_of_digits(text: str) -> None:
    with pytest.raises(ValueError, match=r"digits|larger"):
        digits(text)


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("007", 7), (str(2**63 - 1), 2**63 - 1)])
def test_digits_reads_digits(text: str, value: int) -> None:
    assert digits(text) == value


def test_positive_refuses_zero() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        positive("0")


def test_choice_names_what_is_allowed() -> None:
    assert choice("a", "b")("b") == "b"
    with pytest.raises(ValueError, match="a, b"):
        choice("a", "b")("c")


def test_repo_is_made_absolute_and_keeps_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "link")
    monkeypatch.setenv("PWD", str(tmp_path / "link"))
    assert resolve_repo(".") == str(tmp_path / "link")
    assert resolve_repo("inner/..") == str(tmp_path / "link")
    assert resolve_repo(str(tmp_path / "link" / "inner")) == str(tmp_path / "link" / "inner")


def test_repo_is_physical_when_the_named_directory_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", "/")
    assert resolve_repo(".") == os.getcwd()


@pytest.mark.parametrize("path", ["absent", "file"])
def test_repo_that_is_no_directory_is_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OpsError, match=path) as error:
        resolve_repo(str(tmp_path / path))
    assert error.value.reason == "repo_not_found"


@pytest.mark.parametrize("words", [["ID", "--count", "3"], ["--count", "3", "ID"]])
def test_word_is_taken_where_one_is_declared(words: list[str]) -> None:
    parser = Parser("ops-manager try", "Try things.")
    parser.add_argument("name", nargs="?", metavar="NAME")
    parser.add_argument("--count", type=digits, default=7)
    args = parser.read(words)
    assert (args.name, args.count) == ("ID", 3)
    assert parser.read([]).name is None
    with pytest.raises(Stop) as stop:
        parser.read([*words, "other"])
    assert stop.value.error == "unknown argument: other"
