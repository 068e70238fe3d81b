"""Ends what the demonstration started once the demonstration is gone, be it by SIGKILL.

    python -m manager.demo.keeper DIRECTORY [HEARTBEAT]

Reads the ids of processes, one a line, from standard input, which closes when its other end does. Then it
ends them, the last before the others, so that it does not miss its sources; removes the heartbeat that our
agent kept, and the directory.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

from spritemesh.heartbeat import is_marked

_STOP_SECONDS = 8.0
_POLL_SECONDS = 0.02


def main() -> int:
    directory, heartbeat = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    _end(list(_told(sys.stdin)))
    if heartbeat:
        _remove_heartbeat(heartbeat)
    shutil.rmtree(directory, ignore_errors=True)
    return 0


def _told(lines: Iterable[str]) -> Iterable[psutil.Process]:
    """The processes. Who was started when is looked at now: an id may be another's later."""
    for line in lines:
        with suppress(psutil.NoSuchProcess):
            yield psutil.Process(int(line))


def _end(processes: list[psutil.Process]) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    for stage in (processes[-1:], processes[:-1]):
        for process in stage:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        while (living := [process for process in stage if _lives(process)]) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        for process in living:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _lives(process: psutil.Process) -> bool:
    """Whether it runs; one that nobody has waited for yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _remove_heartbeat(path: str) -> None:
    """Remove the heartbeat that our agent kept, and nobody else's."""
    with suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
        if is_marked(json.load(file)):
            os.unlink(path)


if __name__ == "__main__":
    sys.exit(main())
