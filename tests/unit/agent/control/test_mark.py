"""What tells a process from others."""

import os
import subprocess

import pytest

from sprite_agent.control import mark
from sprite_agent.control.mark import is_alive, process_mark
from tests.harness.waiting import wait_for


@pytest.fixture(params=["files", "psutil"])
def _source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the facts come from."""
    if request.param == "psutil":
        monkeypatch.setattr(mark, "_BOOT_ID", "/nowhere")


@pytest.mark.usefixtures("_source")
def test_process_is_alive_until_it_ends() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        found = process_mark(process.pid)
        assert is_alive(found)
        assert process_mark(process.pid) == found
        process.kill()
        # It has ended, though nobody has waited for it.
        wait_for(lambda: not is_alive(found), what="its end")
    assert not is_alive(found)
    assert process_mark(process.pid) == ""


@pytest.mark.parametrize("text", ["", "odd", "-1 x", "{own} other", "{own}"])
def test_mark_of_nobody_is_of_nobody(text: str) -> None:
    text = text.replace("{own}", str(os.getpid()))
    assert not is_alive(text)


def test_name_of_a_process_may_be_anything() -> None:
    with subprocess.Popen(["bash", "-c", "printf ') Z 1 (' > /proc/$$/comm; echo; read"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        assert is_alive(process_mark(process.pid))
        process.kill()
