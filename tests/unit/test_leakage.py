"""A secret that is left behind is found, wherever a test leaves it."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.harness import secrets
from tests.harness.agents import ROOT, environment
from tests.harness.secrets import AGENT_TOKEN, PAGERDUTY_KEY, SIGNING_KEY

# What each inner test does, and what is said of it.
LEAKS = {
    "(tmp_path / 'a.log').write_text(f'..{S}')": "a.log holds the agent token",
    "logging.getLogger('x').warning('with %s', S)": "Captured log call holds the agent token",
    "print(S)": "Captured stdout call holds the agent token",
    "subprocess.run(['echo', S], stdout=-1)": "standard output of a process holds the agent token",
    "secrets.look('a manager', S.encode())": "a manager holds the agent token",
    "secrets.write(tmp_path / 'token', S); (tmp_path / 'copy').write_text(S)": "copy holds the agent token",
    "(tmp_path_factory.mktemp('shared') / 'b').write_text(S)": "b holds the agent token",
}


def test_a_test_that_leaks_fails() -> None:
    # Not below the outer test's own files, which are searched as well.
    with TemporaryDirectory() as directory:
        lines = ["import logging, subprocess", "from tests.harness import secrets"]
        lines.append("S = secrets.AGENT_TOKEN")
        for number, words in enumerate(LEAKS):
            lines += [f"def test_{number}(tmp_path, tmp_path_factory):", f"    {words}"]
        lines += ["def test_honest(tmp_path):", "    secrets.write(tmp_path / 'token', S)"]
        module = Path(directory) / "test_leaky.py"
        module.write_text("\n".join(lines) + "\n")
        done = subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "pytest",
                    "-q",
                    "-p",
                    "tests.harness.leakage",
                    "-p",
                    "no:hypothesispytest",
                    "--show-capture=no",
                ),
                *("-c", os.devnull, "--rootdir", directory, "--basetemp", f"{directory}/t", str(module)),
            ],
            cwd=ROOT,
            env=environment() | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    for told in LEAKS.values():
        assert told in done.stdout, done.stdout
    # Those of single tests, and at the end of the last one what they shared.
    assert f"{len(LEAKS) + 1} passed, {len(LEAKS)} errors" in done.stdout


def found(directory: Path) -> list[str]:
    return [leak.removeprefix(f"{directory}/") for leak in secrets.leaks(directory)]


@pytest.fixture
def directory() -> Iterator[Path]:
    """Outside of what is searched when this test ends."""
    with TemporaryDirectory() as name:
        yield Path(name)


def test_every_file_is_searched_but_those_that_are_to_hold_one(directory: Path) -> None:
    secrets.write(directory / "key", SIGNING_KEY)
    below = directory / "one" / "two"
    below.mkdir(parents=True)
    (below / "large").write_bytes(b"." * ((1 << 21) - 20) + PAGERDUTY_KEY.encode() + b".")
    with (below / "sparse").open("wb") as file:
        file.seek(1 << 40)
        file.write(PAGERDUTY_KEY.encode())
    (below / "header").write_bytes(b"Basic " + base64.b64encode(f"user:{AGENT_TOKEN}".encode()))
    (below / "link").symlink_to(directory / "key")
    (below / f"x{AGENT_TOKEN}").touch()
    os.mkfifo(below / "pipe")
    assert sorted(found(directory)) == [
        "one/two/header holds the beginning of a secret, or its base64",
        "one/two/large holds the pagerduty key",
        "one/two/sparse holds the pagerduty key",
        f"one/two/x{AGENT_TOKEN.replace('planted-secret', '***')} holds the agent token",
    ]
    assert list(secrets.leaks(directory, [str(below)])) == []


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_base64_is_known_wherever_the_secret_begins(skip: int) -> None:
    assert secrets.secret_in(base64.b64encode(b"\xff" * (30 + skip) + AGENT_TOKEN.encode()))
    assert not secrets.secret_in(base64.b64encode(b"\xff" * 60))
