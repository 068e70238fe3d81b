"""The secrets of all tests, planted so that a leak of any of them is found, and the search for leaks.

Each is text that stands nowhere else. At the end of a test all that it left behind is searched: its
temporary files, what was captured of its processes, and what it logged. A secret is in its place only in a
file that `write` was told of, where it is written. `watch` sees what any process says that a test runs to its
end; a harness that reads a process line by line calls `look`.
"""

import base64
import os
import stat
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

_MARK = "planted-secret"
# What a text holds whose base64 is looked for: the letters of it that do not depend on where it begins.
_SIGNS = (_MARK.encode(), *(base64.b64encode(b"-" * skip + _MARK.encode())[4:16] for skip in range(3)))
# Larger files are read in pieces of this size, each with so much of the next that no secret is cut.
_READ_BYTES = 1 << 20
_OVERLAP = 256


def _plant(name: str, tail: str) -> str:
    return f"{_MARK}-{name}-{tail}"


AGENT_TOKEN = _plant("agent-token", "9b1d5e7f2c48")
METRICS_TOKEN = _plant("metrics-token", "4e0c7a91d3b6")
MANAGER_TOKEN = _plant("manager-token", "c25f80e6a71d")
SERVICE_TOKEN = _plant("service-token", "7d3a1f5b90ec")
SIGNING_KEY = _plant("signing-key", "e8b46d0c2f9a57311c64")
OTHER_SIGNING_KEY = _plant("other-signing-key", "1a9f3c7e5d2b80469cf3")
WEBHOOK_PATH = _plant("webhook-path", "b07e92c4f5d1")
WEBHOOK_TOKEN = _plant("webhook-token", "63a8d1e0c97f")
SLACK_PATH = _plant("slack-path", "f41b6c0e8d52")
PAGERDUTY_KEY = _plant("pagerduty-key", "0d95e3b7a24c")

_NAMES = {
    value: name.lower().replace("_", " ")
    for name, value in list(globals().items())
    if isinstance(value, str) and name.isupper() and value.startswith(f"{_MARK}-")
}
_written: set[str] = set()
_found: list[str] = []


def write(path: Path, text: str) -> Path:
    """Write a file in which secrets may stand: a token's or a key's."""
    _written.add(str(path))
    path.write_text(text)
    return path


def look(where: str, said: str | bytes | None) -> None:
    """Search what a process said; a leak fails the test at its end."""
    data = said.encode(errors="replace") if isinstance(said, str) else said
    if data and (name := secret_in(data)):
        _found.append(f"{where} holds the {name}")


def take() -> list[str]:
    """What `look` has found since the last call."""
    found = _found.copy()
    _found.clear()
    return found


def leaks(directory: str | os.PathLike[str], but: Iterable[str] = ()) -> Iterator[str]:
    """Each file below a directory that holds a secret, and the name of the secret.

    but: directories to leave out. Files of names that hold a secret are leaks, too.
    """
    left_out = set(but)
    for above, names, files in os.walk(directory):
        names[:] = [name for name in names if os.path.join(above, name) not in left_out]
        for name in files:
            path = os.path.join(above, name)
            if path not in _written and (secret := secret_in(os.fsencode(name)) or _secret_of(path)):
                yield f"{path.replace(_MARK, '***')} holds the {secret}"


def secret_in(data: bytes) -> str:
    """Which secret stands in some bytes, as it is or in base64; "" for none."""
    for sign in _SIGNS:
        at = data.find(sign)
        if at >= 0:
            begun = data[at : at + 100]
            return next(
                (name for value, name in _NAMES.items() if begun.startswith(value.encode())),
                "beginning of a secret, or its base64",
            )
    return ""


@contextmanager
def watch() -> Iterator[None]:
    """Look at what every process says that is run to its end meanwhile."""
    communicate = subprocess.Popen.communicate

    def watched(process: "subprocess.Popen[Any]", *args: Any, **named: Any) -> Any:
        said = communicate(process, *args, **named)
        for what, text in zip(("standard output", "standard error"), said, strict=True):
            look(f"{what} of a process", text)
        return said

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "communicate", watched)
        yield


def _secret_of(path: str) -> str:
    # What is gone, or may not be read, leaks nothing; a pipe would wait.
    with suppress(OSError):
        status = os.stat(path, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return ""
        with open(path, "rb") as file:
            if status.st_size <= _READ_BYTES:
                return secret_in(file.read())
            for piece in _pieces(file.fileno()):
                if name := secret_in(piece):
                    return name
    return ""


def _pieces(handle: int) -> Iterator[bytes]:
    """A large file, without its holes: each piece ends with the beginning of the one after."""
    at, end = 0, 0
    with suppress(OSError):  # there is no data any more
        while True:
            if at >= end:
                at = os.lseek(handle, at, os.SEEK_DATA)
                end = os.lseek(handle, at, os.SEEK_HOLE)
            yield os.pread(handle, min(_READ_BYTES, end - at) + _OVERLAP, at)
            at = min(at + _READ_BYTES, end)
