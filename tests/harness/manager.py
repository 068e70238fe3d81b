"""`ops-manager`, run to its end in this process, or as a process of its own."""

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest

from manager.cli import main
from tests.harness import secrets
from tests.harness.agents import ROOT, environment
from tests.harness.waiting import wait_for

_SECONDS = 30.0


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def events(self) -> list[int]:
        """Line numbers of the printed events."""
        return [document["sequence"]["value"] for document in self.documents]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "manager", *words]


def run(*words: str, **variables: str) -> Ran:
    """Run one command to its end, in this process: a tenth of a second is saved, and tests run hundreds."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - set(environment()):
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        code = main(words)
    texts = []
    for stream in (out, err):
        stream.seek(0)
        texts.append(stream.read())
        secrets.look("output of a command", texts[-1])
    return Ran(code, *texts)


class Running:
    """A command that stays; what it prints is gathered line by line."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment()
        )
        self.out: list[bytes] = []
        self.err: list[bytes] = []
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        streams = ((self.process.stdout, self.out), (self.process.stderr, self.err))
        self._readers = [threading.Thread(target=_gather, args=pair) for pair in streams]
        for reader in self._readers:
            reader.start()

    @property
    def events(self) -> list[int]:
        return [json.loads(line)["sequence"]["value"] for line in list(self.out)]

    @property
    def said(self) -> str:
        return b"".join(self.err).decode()

    def wait_for_event(self, line: int) -> None:
        wait_for(lambda: line in self.events, what=f"event {line}; so far {self.events}, {self.said}")

    def end(self, number: int | None = None) -> Ran:
        """Send a signal, if any, and wait for the end."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(_SECONDS)
        for reader in self._readers:
            reader.join()
        for lines in (self.out, self.err):
            secrets.look("output of a command", b"".join(lines))
        return Ran(code, b"".join(self.out).decode(), self.said)

    def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self.process.poll() is None:
            self.process.kill()
        self.end()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


def cursor_of(path: Path) -> dict[str, Any]:
    """A cursor document."""
    found = json.loads(path.read_text())
    assert isinstance(found, dict)
    return found


def _gather(stream: IO[bytes], lines: list[bytes]) -> None:
    for line in stream:
        lines.append(line)  # noqa: PERF402 - a line must be seen as soon as it comes
