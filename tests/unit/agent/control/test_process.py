"""Running commands: real ones, of every kind that a runtime may turn out to be."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sprite_agent.control import process
from sprite_agent.control.process import Ran, run
from sprite_agent.control.tail import TAIL_BYTES
from tests.harness.waiting import wait_for


def sh(script: str, *, timeout: float = 10.0, **variables: str) -> Ran:
    """Run a shell script; the shell is the program here."""
    return run(["/bin/sh", "-c", script], environment={**os.environ, **variables}, timeout=timeout)


def program(tmp_path: Path, text: str, mode: int = 0o755) -> str:
    path = tmp_path / "program"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet counts as ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_GRACE_SECONDS", 0.2)


def test_output_and_errors_are_one_stream_in_their_order() -> None:
    ran = sh("echo out; echo err >&2; echo out again; exit 9")
    assert ran[:4] == (9, "out\nerr\nout again", False, "")
    assert 0 < ran.seconds < 5


def test_command_has_a_group_of_its_own_no_input_and_the_environment_that_it_is_given() -> None:
    script = (
        "import os, sys; print(sys.stdin.read() == '', os.getpid() == os.getpgrp(), dict(os.environ)['A'])"
    )
    ran = run([sys.executable, "-c", script], environment={"A": "given"}, timeout=10.0)
    assert ran.tail == "True True given"
    assert sh("echo ${A:-none}").tail == "none"


def test_words_reach_no_shell(tmp_path: Path) -> None:
    words = ["$(touch x)", "`id`", "a;b", "", "it's", "*", "two\nlines"]
    path = program(tmp_path, "#!/bin/sh\nprintf '<%s>' \"$@\"\n")
    ran = run([path, *words], environment=os.environ, timeout=10.0)
    assert ran.tail == "".join(f"<{word}>" for word in words)


@pytest.mark.parametrize("name", ["/nowhere/runtime", "no-such-runtime", "/etc/hostname/runtime"])
def test_program_that_is_absent_was_not_run(name: str) -> None:
    ran = run([name, "cancel"], environment=os.environ, timeout=10.0)
    assert (ran.exit_code, ran.reason) == (127, "runtime_not_found")
    assert ran.tail == f"{name}: there is no such program [runtime_not_found]"


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        ("#!/bin/sh\n", 0o644, "Permission denied"),
        ("#!/nowhere/sh\n", 0o755, "the interpreter that its first line names is missing"),
        ("echo no first line\n", 0o755, "Exec format error"),
    ],
)
def test_program_that_cannot_be_started_was_not_run(tmp_path: Path, text: str, mode: int, told: str) -> None:
    path = program(tmp_path, text, mode)
    ran = run([path], environment=os.environ, timeout=10.0)
    assert (ran.exit_code, ran.reason) == (126, "runtime_not_executable")
    assert ran.tail == f"{path}: cannot be started: {told} [runtime_not_executable]"


def test_directory_is_no_program(tmp_path: Path) -> None:
    ran = run([str(tmp_path)], environment=os.environ, timeout=10.0)
    assert (ran.exit_code, ran.reason) == (126, "runtime_not_executable")


def test_exit_code_127_of_a_program_is_its_own() -> None:
    assert sh("exit 127")[:4] == (127, "", False, "")


def test_program_without_a_slash_is_found_on_path(tmp_path: Path) -> None:
    program(tmp_path, "#!/bin/sh\necho found\n")
    ran = run(["program"], environment={"PATH": str(tmp_path)}, timeout=10.0)
    assert ran.tail == "found"


def test_signal_that_ends_it_is_told() -> None:
    ran = sh("echo before; kill -KILL $$")
    assert (ran.exit_code, ran.reason) == (137, "runtime_killed")
    assert ran.tail == "before\nSIGKILL ended the runtime [runtime_killed]"


def test_command_that_hangs_is_ended_with_all_its_children(tmp_path: Path) -> None:
    note = tmp_path / "child"
    ran = sh(f"echo begun; sleep 60 & echo $! > {note}; wait", timeout=0.2)
    assert (ran.exit_code, ran.reason) == (143, "runtime_timeout")
    assert ran.tail == "begun\nthe runtime did not end within 0.2 s and was ended [runtime_timeout]"
    wait_for(lambda: is_gone(int(note.read_text())), what="the child to end")


@pytest.mark.usefixtures("short_grace")
def test_command_that_ignores_the_request_to_end_is_killed() -> None:
    ran = sh("trap '' TERM; while :; do sleep 0.01; done", timeout=0.1)
    assert (ran.exit_code, ran.reason) == (137, "runtime_timeout")
    assert ran.seconds < 5


@pytest.mark.usefixtures("short_grace")
def test_child_that_ignores_the_request_to_end_does_not_outlive_its_command(tmp_path: Path) -> None:
    note = tmp_path / "child"
    stubborn = "trap '' TERM; while :; do sleep 0.05; done"
    ran = sh(f'sh -c "{stubborn}" & echo $! > {note}; wait', timeout=0.3)
    assert ran.reason == "runtime_timeout"
    wait_for(lambda: is_gone(int(note.read_text())), what="the child to end")


@pytest.mark.usefixtures("short_grace")
def test_command_that_closes_its_output_is_still_bounded() -> None:
    ran = sh("exec >&- 2>&-; exec sleep 60", timeout=0.2)
    assert (ran.exit_code, ran.reason) == (143, "runtime_timeout")


def test_command_may_end_in_its_own_way_when_it_is_told_to() -> None:
    ran = sh("trap 'echo tidied; exit 3' TERM; echo begun; sleep 60 & wait", timeout=0.2)
    assert (ran.exit_code, ran.reason) == (3, "runtime_timeout")
    assert "tidied" in ran.tail.splitlines()


def test_flood_is_bounded_in_memory_and_time() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ran = sh("yes flooding", timeout=0.5)
    assert ran.reason == "runtime_timeout"
    assert ran.truncated
    assert ran.seconds < 5
    assert ran.tail.splitlines()[:-1] == ["flooding"] * 40
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


def test_flood_without_lines_keeps_its_end() -> None:
    ran = sh("head -c 5000000 /dev/zero | tr '\\0' x; printf end")
    assert (ran.exit_code, ran.reason, ran.truncated) == (0, "", True)
    assert ran.tail == "x" * (TAIL_BYTES - 3) + "end"


def test_background_process_that_holds_the_output_holds_nobody_up(tmp_path: Path) -> None:
    note = tmp_path / "child"
    started = time.monotonic()
    ran = sh(f"sleep 60 & echo $! > {note}; echo done; exit 4")
    assert time.monotonic() - started < 5
    assert ran[:4] == (4, "done", False, "")
    child = int(note.read_text())
    assert not is_gone(child)  # it may be what the runtime wanted
    os.kill(child, signal.SIGKILL)


@pytest.mark.usefixtures("short_grace")
def test_nothing_needs_descriptors_that_tell_of_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    assert sh("echo done; exit 4")[:4] == (4, "done", False, "")
    assert sh("sleep 60", timeout=0.1).reason == "runtime_timeout"
    assert sh("exec >&- 2>&-; exec sleep 0.1; exit 4").exit_code == 0


def test_exit_code_is_known_though_the_signal_of_it_was_ignored() -> None:
    """As a supervisor may have left it for all that it starts."""
    script = (
        "import os; from sprite_agent.control.process import run;"
        "print(run(['sh', '-c', 'exit 4'], environment=dict(os.environ), timeout=10).exit_code)"
    )
    supervisor = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    supervised = [sys.executable, "-c", supervisor, "-c", script]
    told = subprocess.run(supervised, stdout=subprocess.PIPE, check=True)
    assert told.stdout == b"4\n"


def test_what_was_written_at_the_end_is_kept_though_another_holds_the_output(tmp_path: Path) -> None:
    note = tmp_path / "child"
    ran = sh(f"sleep 60 & echo $! > {note}; head -c 60000 /dev/zero | tr '\\0' x; echo; echo end")
    os.kill(int(note.read_text()), signal.SIGKILL)
    assert (ran.tail[-5:], len(ran.tail)) == ("x\nend", 60004)
