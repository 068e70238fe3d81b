"""Which process runs in a repository, and whether it is one of ours to signal.

active-run.json only claims: its process may be gone, its pid may belong to somebody else by now, or a
real runtime may have written it. A demonstration signals nothing but a demonstration.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import psutil

from sprite_agent.runtime.layout import RUNTIME_ROOT
from spritemesh import files
from spritemesh.errors import OpsError
from spritemesh.values import get

# The words by which the three ways to start the demo show in a process's command line.
_PROGRAM_WORDS = frozenset({"demo-loop", "superloop-demo", "sprite_agent.demo"})
_MODULE_PATH = os.path.join("sprite_agent", "demo", "__main__.py")
# A process that started later than this after active-run.json was written has only inherited the pid.
_START_TOLERANCE_SECONDS = 2.0


class Running(NamedTuple):
    """A live process that active-run.json names. demo: it is a demo loop of the same repository."""

    process: psutil.Process
    demo: bool

    @property
    def gone(self) -> bool:
        """Whether it ended; a zombie that nobody collected yet counts as ended."""
        try:
            return not self.process.is_running() or self.process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


def runtime_root(repo: str) -> str:
    """The directory whose lock a running demo loop holds."""
    return os.path.join(repo, RUNTIME_ROOT)


def find_running(repo: str) -> Running | None:
    """The process that active-run.json names, if it still lives; None otherwise.

    Raises OpsError `document_invalid` when the file cannot be read.
    """
    path = os.path.join(runtime_root(repo), "active-run.json")
    pid = get(files.read_object(path, what="active run"), "pid")
    if isinstance(pid, bool) or not isinstance(pid, int) or not 0 < pid < 2**31:
        return None
    try:
        written = os.stat(path).st_mtime
        process = psutil.Process(pid)
        found = Running(process, demo=False)
        if found.gone or process.create_time() > written + _START_TOLERANCE_SECONDS:
            return None
        return found._replace(demo=is_demo_of(repo, process.cmdline(), process.cwd()))
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None
    except psutil.AccessDenied as error:
        raise OpsError("already_running", f"process {pid} of {path} belongs to another user") from error


def is_demo_of(repo: str, words: Sequence[str], directory: str) -> bool:
    """Whether a command line is that of a demo loop of `repo`.

    words: the whole command line. directory: what a relative path in it refers to.
    """
    if not any(
        word in _PROGRAM_WORDS or os.path.basename(word) in _PROGRAM_WORDS or word.endswith(_MODULE_PATH)
        for word in words
    ):
        return False
    named = ""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--repo":
            named = following
        elif word.startswith("--repo="):
            named = word.removeprefix("--repo=")
    return bool(named) and os.path.realpath(os.path.join(directory, named)) == os.path.realpath(repo)
