"""Which program is run with which words in which environment (contract E.1)."""

import sys
from pathlib import Path

import pytest

from sprite_agent.control.command import child_environment, command_line, runtime_program
from spritemesh.control import ControlRequest

APPROVE = ["bin", "approve", "--repo", "/repo", "--loop", "a b", "--by"]


@pytest.mark.parametrize(
    ("intent", "by", "note", "words"),
    [
        ("cancel", "me", "why", ["bin", "cancel", "--repo", "/repo"]),
        ("approve", "me", "", [*APPROVE, "me"]),
        ("approve", "", "why", [*APPROVE, "", "--note", "why"]),
        ("reject", "me", "", [*APPROVE, "me", "--reject"]),
        ("reject", "me", "--reject", [*APPROVE, "me", "--reject", "--note", "--reject"]),
    ],
)
def test_words_are_those_of_the_intent(intent: str, by: str, note: str, words: list[str]) -> None:
    request = ControlRequest("a b", intent, "key", requested_by=by, note=note)
    assert command_line("bin", "/repo", request) == words


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where superloop.sh would stand beside the running program."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin" / "ops-manager")])
    return tmp_path / "bin" / "superloop.sh"


def test_program_is_the_one_given_else_of_the_variable(beside: Path) -> None:
    beside.write_text("")
    assert runtime_program("given", {"SUPERLOOP_BIN": "named"}) == "given"
    assert runtime_program(None, {"SUPERLOOP_BIN": "named"}) == "named"


def test_program_is_beside_the_running_one_else_on_path(beside: Path, tmp_path: Path) -> None:
    path = tmp_path / "path"
    path.mkdir()
    environment = {"SUPERLOOP_BIN": "", "PATH": str(path)}
    assert runtime_program(None, environment) == "superloop.sh"
    (path / "superloop.sh").write_text("")
    (path / "superloop.sh").chmod(0o755)
    assert runtime_program(None, environment) == str(path / "superloop.sh")
    beside.write_text("")
    assert runtime_program(None, environment) == str(beside)


def test_environment_has_the_trace_and_not_the_token() -> None:
    ours = {
        "A": "a",
        "OPS_MANAGER_SERVICE_TOKEN": "secret",
        "OPS_MANAGER_TRACE_ID": "old",
        "TRACEPARENT": "old",
        "DOPEJAR_TRACE_PARENT": "alt_1705180800_a3f2",
    }
    found = child_environment(ours, "/repo", "t-1")
    assert found == {"A": "a", "OPS_MANAGER_TRACE_ID": "t-1", "DOPEJAR_TRACE_FILE": "/repo/trace.jsonl"}
    digits = "4bf92f3577b34da6a3ce929d0e0e4736"
    assert child_environment(ours, "/repo", digits)["TRACEPARENT"].split("-")[1] == digits
    assert ours["OPS_MANAGER_TRACE_ID"] == "old"


def test_runtime_traces_into_the_repository_unless_somebody_said_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def told(**ours: str) -> str | None:
        return child_environment(ours, "/repo", "t-1").get("DOPEJAR_TRACE_FILE")

    assert told(DOPEJAR_TRACE="1", DOPEJAR_TRACE_FILE="") == "/repo/trace.jsonl"
    assert told(DOPEJAR_TRACE_FILE="mine.jsonl") == "mine.jsonl"
    assert told(DOPEJAR_SETTINGS="settings.yaml") is None
    (tmp_path / ".superloop").mkdir()
    (tmp_path / ".superloop" / "settings.yaml").write_text("tracing: {output: here.jsonl}")
    assert told() is None


def test_runtime_heeds_the_settings_of_its_repository_unless_the_agent_has_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, elsewhere = tmp_path / "repo", tmp_path / "elsewhere"
    (repo / ".superloop").mkdir(parents=True)
    elsewhere.mkdir()
    settings = repo / ".superloop" / "settings.yaml"
    settings.write_text("tracing: {enabled: true, output: /elsewhere}")
    monkeypatch.chdir(elsewhere)
    found = child_environment({}, str(repo), "t-1")
    # The place is ours: a repository does not choose it, and what is written there is served.
    assert (found["DOPEJAR_SETTINGS"], found["DOPEJAR_TRACE_FILE"]) == (
        str(settings),
        str(repo / "trace.jsonl"),
    )
    mine = {"DOPEJAR_SETTINGS": "mine.yaml"}
    assert child_environment(mine, str(repo), "t-1")["DOPEJAR_SETTINGS"] == "mine.yaml"
    monkeypatch.chdir(repo)
    assert "DOPEJAR_SETTINGS" not in child_environment({}, str(repo), "t-1")
