"""The repository of one case, running commands in it as a process or inside this one, and asking services."""

import http.client
import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from manager.cli import main
from tests.contract.cases import HttpRequest

# Longer than a service confirms (contract D.3).
ASK_TIMEOUT_SECONDS = 50
PROCESS_TIMEOUT_SECONDS = 50


class Outcome(NamedTuple):
    """What a command gave."""

    code: int
    out: str
    err: str


class Answer(NamedTuple):
    """What a service gave."""

    status: int
    content_type: str
    body: str


class Workspace:
    """Directories of one case: the repository, a private home and a private temporary directory.

    manager: another, empty repository, for a manager that controls the first through a service.
    """

    def __init__(self, root: Path) -> None:
        self.repo = root / "repo"
        self.manager = root / "manager"
        self.home = root / "home"
        self.tmp = root / "tmp"
        for directory in (self.repo, self.manager, self.home, self.tmp):
            directory.mkdir()

    def write(self, path: str, text: str, *, append: bool = False) -> None:
        file = self.repo / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab" if append else "wb") as stream:
            stream.write(text.encode("utf-8", "surrogateescape"))

    def read(self, path: str) -> str | None:
        """The text of a file, None when there is none; a byte that is no UTF-8 becomes U+FFFD."""
        file = self.repo / path
        return file.read_bytes().decode("utf-8", "replace") if file.is_file() else None

    def delete(self, path: str) -> None:
        (self.repo / path).unlink()

    def set_mode(self, path: str, mode: int) -> None:
        (self.repo / path).chmod(mode)

    def files(self) -> set[str]:
        return {str(path.relative_to(self.repo)) for path in self.repo.rglob("*") if path.is_file()}

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """The environment that golden cases were recorded in, plus `extra`."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "USER": "operator",
            "TZ": "UTC",
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            **extra,
        }

    def call(self, words: Sequence[str], env: Mapping[str, str]) -> Outcome:
        """Run `ops-manager` with `words` inside this process."""
        streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
        out, err = streams
        with (
            self._standing_here(),
            mock.patch.dict(os.environ, self.environment(env), clear=True),
            mock.patch.object(sys, "stdout", out),
            mock.patch.object(sys, "stderr", err),
        ):
            code = main(list(words))
        texts = [stream.buffer.getvalue().decode() for stream in streams]
        return Outcome(code, *texts)

    def spawn(self, words: Sequence[str], env: Mapping[str, str]) -> Outcome:
        """Run `python -m manager` with `words` as a process."""
        path = os.pathsep.join(entry for entry in sys.path if entry)
        done = subprocess.run(
            [sys.executable, "-m", "manager", *words],
            cwd=self.repo,
            env=self.environment({"PYTHONPATH": path, **env}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROCESS_TIMEOUT_SECONDS,
            check=False,
        )
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    @contextmanager
    def _standing_here(self) -> Iterator[None]:
        before = os.getcwd()
        os.chdir(self.repo)
        try:
            yield
        finally:
            os.chdir(before)


def ask(url: str, request: HttpRequest) -> Answer:
    """Send one request with just these headers."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=ASK_TIMEOUT_SECONDS)
    try:
        body = None if request.body is None else request.body.encode()
        connection.request(request.method, request.path, body=body, headers=request.headers)
        response = connection.getresponse()
        text = response.read().decode()
        return Answer(response.status, response.headers.get("Content-Type", ""), text)
    finally:
        connection.close()
