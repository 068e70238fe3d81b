"""Who decides whether a process is traced: an argument over the environment over a settings file."""

import os
from pathlib import Path

import pytest

from spritemesh.tracing.settings import DEFAULT_MAX_BYTES, Settings, resolved
from spritemesh.tracing.tracers import Tracer
from tests.harness.tracing import read_lines, traced


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DOPEJAR_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write_settings(text: str, path: str = ".superloop/settings.yaml") -> None:
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")


def test_tracing_is_off_when_nobody_says_anything() -> None:
    assert resolved({}) == Settings(enabled=False)
    assert not Tracer().enabled
    assert not list(Path().iterdir())


@pytest.mark.parametrize("word", ["1", "true", "YES", "on"])
def test_the_environment_switches_on(word: str) -> None:
    assert resolved({"DOPEJAR_TRACE": word}) == Settings(enabled=True, output="trace.jsonl", level="info")


@pytest.mark.parametrize("word", ["0", "false", "No", "off"])
def test_the_environment_switches_off_what_a_file_switches_on(word: str) -> None:
    write_settings("tracing: {enabled: true}")
    assert resolved({}).enabled
    assert not resolved({"DOPEJAR_TRACE": word}).enabled
    assert resolved({"DOPEJAR_TRACE": ""}).enabled


def test_an_argument_is_before_the_environment_and_that_before_the_file() -> None:
    write_settings("tracing: {enabled: true, output: file.jsonl, level: error}\nother: [1]")
    environment = {"DOPEJAR_TRACE_FILE": "environment.jsonl", "DOPEJAR_TRACE_LEVEL": "warning"}
    found = [
        resolved({}),
        resolved(environment),
        resolved(environment | {"DOPEJAR_TRACE": "0"}, enabled=True, output="given.jsonl", level="debug"),
        resolved(environment, enabled=False),
    ]
    assert [(row.enabled, row.output, row.level) for row in found] == [
        (True, "file.jsonl", "error"),
        (True, "environment.jsonl", "warning"),
        (True, "given.jsonl", "debug"),
        (False, "trace.jsonl", "info"),
    ]
    assert not any(row.problems for row in found)


def test_a_file_may_be_named_by_the_environment() -> None:
    write_settings("tracing: {enabled: yes, output: /elsewhere/trace.jsonl}", "mine.yaml")
    found = resolved({"DOPEJAR_SETTINGS": "mine.yaml"})
    assert (found.enabled, found.output, found.problems) == (True, "/elsewhere/trace.jsonl", ())
    (problem,) = resolved({"DOPEJAR_SETTINGS": "missing.yaml"}).problems
    assert problem == "missing.yaml cannot be read: No such file or directory; ignored"


@pytest.mark.parametrize("output", ["/tmp/x.jsonl", "../x.jsonl", "link/x.jsonl", "a/../../x"])
def test_a_file_that_is_just_there_names_no_output_outside_its_directory(output: str) -> None:
    Path("link").symlink_to("/tmp")
    write_settings(f"tracing: {{enabled: true, output: {output}}}")
    found = resolved({})
    assert found.output == "trace.jsonl"
    assert "has to be a path below the working directory" in found.problems[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tracing: {", ".superloop/settings.yaml is no YAML; ignored"),
        ("tracing: !!python/object/apply:os.getcwd []", ".superloop/settings.yaml is no YAML; ignored"),
        ("tracing: [1]", ".superloop/settings.yaml: tracing has to be an object, not array; ignored"),
        ("tracing: {enabled: maybe}", "tracing.enabled has to be true or false, not 'maybe'; ignored"),
        ("tracing: {enabled: [1]}", "tracing.enabled has to be true or false, not array; ignored"),
        ("#tracing" * 20_000, ".superloop/settings.yaml has more than 65536 bytes; ignored"),
        ("tracing: " + "{a: " * 1_000, ".superloop/settings.yaml is no YAML; ignored"),
    ],
    ids=range(7),
)
def test_a_file_that_is_wrong_is_ignored_and_said(text: str, problem: str) -> None:
    write_settings(text)
    assert resolved({}) == Settings(enabled=False, problems=(problem,))


def test_members_that_there_are_not_are_named_in_one_warning() -> None:
    told = ".superloop/settings.yaml: tracing has no {}, only enabled, output, level; ignored"
    write_settings("tracing: {enabled: true, outptu: mine.jsonl, level: error}")
    found = resolved({})
    assert (found.enabled, found.output, found.level) == (True, "trace.jsonl", "error")
    assert found.problems == (told.format("'outptu'"),)
    write_settings('tracing: {enabeld: true, 1: 1, "\\e[2J": 1, a: 1, b: 1}')
    (problem,) = resolved({}).problems
    assert problem.isprintable()
    assert problem.startswith(".superloop/settings.yaml: tracing has no 'enabeld', number, ")
    assert ", ..., only enabled" in problem


def test_all_that_is_wrong_is_told_though_tracing_stays_off() -> None:
    write_settings("tracing: {enabled: maybe, level: loud}")
    found = resolved({})
    assert not found.enabled
    assert [problem.split()[0] for problem in found.problems] == ["tracing.enabled", "tracing.level"]
    write_settings("tracing: {enabled: false, level: loud}")
    assert resolved({}) == Settings(enabled=False)


def test_files_without_the_section_and_pipes_are_nobodys_business() -> None:
    write_settings("other: {")
    assert resolved({}) == Settings(enabled=False)
    Path(".superloop/settings.yaml").unlink()
    os.mkfifo(".superloop/settings.yaml")
    assert resolved({}) == Settings(enabled=False)


def test_wrong_values_are_ignored_one_by_one() -> None:
    write_settings("tracing: {enabled: true, level: 3, output: [x]}")
    environment = {
        "DOPEJAR_TRACE": "perhaps",
        "DOPEJAR_TRACE_LEVEL": "loud\n",
        "DOPEJAR_TRACE_MAX_BYTES": "1",
    }
    found = resolved(environment | {"DOPEJAR_TRACE_PARENT": "none"}, level=5, output=b"\0")
    assert found[:5] == (True, "trace.jsonl", "info", DEFAULT_MAX_BYTES, "")
    assert [problem.split()[0] for problem in found.problems] == [
        "DOPEJAR_TRACE", "output", "tracing.output", "level", "DOPEJAR_TRACE_LEVEL", "tracing.level",
        "DOPEJAR_TRACE_MAX_BYTES", "DOPEJAR_TRACE_PARENT",
    ]  # fmt: skip


def test_a_wrong_setting_is_warned_of_once_and_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with traced(Path("trace.jsonl"), level="loud") as tracing:
        tracing.tracer.event("alt", "plan")
        assert len(tracing.lines()) == 1
    assert capsys.readouterr().err == (
        "spritemesh: level has to be one of debug, info, warning, error, not 'loud'; ignored\n"
    )


@pytest.mark.parametrize("output", [".", "../missing/x.jsonl", "/missing/x.jsonl", "file/x.jsonl", "x" * 300])
def test_an_output_that_cannot_be_written_is_warned_of_once_and_leaves_tracing_off(
    output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").touch()
    tracer = Tracer()
    tracer.configure(enabled=True, output=output)
    with tracer.span("alt", "plan") as ctx:
        assert not ctx
    assert not tracer.enabled
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"spritemesh: {output} cannot be written: ")
    assert warning.endswith("; tracing is off")


def test_a_missing_directory_below_the_working_directory_is_made_for_its_owner_alone() -> None:
    with traced(Path(".superloop/mine/trace.jsonl")) as tracing:
        tracing.tracer.event("alt", "plan")
        assert len(tracing.lines()) == 1
    for path in (Path(".superloop"), Path(".superloop/mine")):
        assert path.stat().st_mode & 0o777 == 0o700


def test_the_first_call_reads_the_settings_and_no_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOPEJAR_TRACE", "1")
    tracer = Tracer()
    assert not Path("trace.jsonl").exists()
    tracer.event("alt", "plan")
    monkeypatch.setenv("DOPEJAR_TRACE", "0")
    tracer.event("alt", "plan")
    tracer.close()
    tracer.event("alt", "plan")
    assert len(read_lines(Path("trace.jsonl"))) == 2


def test_switching_over_takes_what_was_told_before_along() -> None:
    with traced(Path("first.jsonl")) as tracing:
        tracing.tracer.event("alt", "plan")
        tracing.tracer.configure(enabled=True, output=Path("second.jsonl"))
        tracing.tracer.event("alt", "execute")
    assert [line["operation"] for line in read_lines(Path("first.jsonl"))] == ["plan"]
    assert [line["operation"] for line in read_lines(Path("second.jsonl"))] == ["execute"]


def test_an_output_that_does_not_tell_its_path_is_ignored() -> None:
    class Broken:
        def __fspath__(self) -> str:
            raise RuntimeError

    (problem,) = resolved({}, enabled=True, output=Broken()).problems
    assert problem.startswith("output has to be the path of a file")
