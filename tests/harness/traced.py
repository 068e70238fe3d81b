"""Programs that trace themselves, run as processes of their own, and what they leave."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from spritemesh.rotation import KEEP
from tests.harness.agents import ROOT, environment

SECONDS = 30.0
_BEGINNING = """\
import os, sys, threading, time
from spritemesh.tracing import tracer
tracer.configure(enabled=True, output=sys.argv[1])
"""


class Traced:
    """A program that runs, and traces to `trace`. Use it in `with`.

    code: what it does, after tracing is on. arguments: its own, from sys.argv[2] on. beginning: what comes
    first. variables: more of its environment.
    """

    def __init__(
        self, trace: Path | str, code: str, *arguments: object, beginning: str = _BEGINNING, **variables: str
    ) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with this
        self.process = subprocess.Popen(
            [sys.executable, "-c", beginning + code, str(trace), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=environment() | variables,
        )

    def __enter__(self) -> "Traced":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=SECONDS)
        self._errors.close()

    def says(self) -> str:
        """The next line on its standard output, without its end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def tell(self, line: str = "") -> None:
        """A line for its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit status, negative for a signal."""
        return self.process.wait(SECONDS)

    @property
    def errors(self) -> str:
        """What is on its standard error."""
        self._errors.seek(0)
        return self._errors.read()


def events(trace: Path | str) -> list[dict[str, Any]]:
    """What is in a trace file and the old ones beside it, the oldest first; all lines have to be whole."""
    paths = [Path(f"{trace}.{number}") for number in range(KEEP, 0, -1)] + [Path(trace)]
    data = b"".join(path.read_bytes() for path in paths if path.exists())
    assert not data or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def told(trace: Path | str) -> list[str]:
    """The inputs of all of its events."""
    return [event["input_summary"] for event in events(trace)]
