"""The program: finding commands, and what becomes of their endings."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from manager import cli
from spritemesh import __version__, program
from spritemesh.errors import OpsError
from tests.unit.cli.conftest import Call

# Loading any of these for a help text would cost more than the text is worth.
HEAVY = ("argparse", "msgspec", "google.protobuf", "grpc", "rich", "asyncio", "logging", "dataclasses")


def _failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `health` fail with `error`."""

    def run(_: object) -> int:
        raise error

    module = types.SimpleNamespace(configure=lambda _: None, run=run)
    monkeypatch.setitem(sys.modules, "manager.cli.health", module)


def _spawn(*words: str, stdout: int | None = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": path},
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_tells_every_command_in_one_line(call: Call, flag: str) -> None:
    code, out, err = call(flag)
    assert (code, err) == (0, "")
    for name, command in cli.COMMANDS.items():
        assert f"  {name}" in out
        assert command.summary in out
    assert max(map(len, out.splitlines())) <= 100


def test_version_is_told(call: Call) -> None:
    assert call("--version") == (0, f"ops-manager {__version__}\n", "")


def test_value_before_the_command_is_not_repeated(call: Call) -> None:
    code, out, err = call("--token=planted", "status")
    assert (code, out) == (1, "")
    assert err.startswith("error: unknown command: --token (")
    assert "planted" not in err


def test_unknown_command_is_named_with_the_nearest_one(call: Call) -> None:
    code, out, err = call("helth")
    assert (code, out) == (1, "")
    assert err.startswith("error: unknown command: helth")
    assert "health" in err


def test_missing_command_gives_usage_and_an_error(call: Call) -> None:
    code, out, err = call()
    assert code == 1
    assert out.startswith("usage: ops-manager")
    assert err.startswith("error: ")


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_has_usage(call: Call, name: str) -> None:
    code, out, err = call(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: ops-manager {name} ")
    # One prints what a service answered, byte for byte.
    assert ("--output FORM" in out) == (name != "service-client")


def test_failure_is_the_last_line_of_standard_error(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    _failing(monkeypatch, OpsError("document_invalid", "first\nsecond"))
    assert call("health") == (1, "", "error: first second [document_invalid]\n")


def test_defect_is_told_in_one_line_without_a_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    _failing(monkeypatch, ZeroDivisionError("a\nb"))
    code, out, err = call("health")
    assert (code, out) == (1, "")
    assert err.startswith("error: ZeroDivisionError: a b")
    assert err.endswith(" [internal_error]\n")
    assert err.count("\n") == 1


def test_defect_is_told_with_its_traceback_on_request(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    _failing(monkeypatch, ZeroDivisionError("a"))
    monkeypatch.setenv("SPRITEMESH_DEBUG", "1")
    _, _, err = call("health")
    assert "Traceback" in err
    assert err.splitlines()[-1].endswith("[internal_error]")


def test_interrupt_ends_quietly(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    _failing(monkeypatch, KeyboardInterrupt())
    assert call("health") == (130, "", "")


def test_reader_that_went_away_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = _spawn("-m", "manager", "health", stdout=write_end)
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (program.EXIT_BROKEN_PIPE, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_full_disk_under_the_output_is_an_error() -> None:
    with open("/dev/full", "wb") as full:
        done = _spawn("-m", "manager", "health", stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: cannot write to standard output")


def test_help_loads_no_heavy_module() -> None:
    script = (
        "import sys; from manager.cli import main; main(['--help']);"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = _spawn("-c", script)
    assert done.stdout.decode().splitlines()[-1] == "[]"
