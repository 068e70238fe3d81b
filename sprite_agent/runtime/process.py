"""Facts about processes: the one that active-run.json names, and our own."""

import os
from typing import NamedTuple

import psutil

from sprite_agent.runtime.statefiles import StateFiles
from spritemesh.bridge.parts import storable
from spritemesh.errors import OpsError
from spritemesh.ids import validate_loop_id
from spritemesh.jsontext import JSON
from spritemesh.values import get

# A process that started later than this after active-run.json was written has only inherited the pid.
_START_TOLERANCE_SECONDS = 2.0


class ProcessFacts(NamedTuple):
    """started_at: seconds since 1970. cpu_seconds: user and system."""

    started_at: float
    rss_bytes: int
    cpu_seconds: float


class ActiveRun(NamedTuple):
    """What active-run.json says, and whether it is still so. process: None when not alive."""

    pid: int
    loop_id: str
    stage: str
    process: ProcessFacts | None


class RunReader:
    """Reads active-run.json, and looks whether the process that it names lives. One thread at a time uses it.

    A process that was once found to be the run's stays so as long as it lives: when somebody sets the clock,
    its start, which the system counts from now, moves away from the time that the file was written.
    """

    def __init__(self, files: StateFiles, relative: str) -> None:
        """relative: path of the file in the repository."""
        self._files = files
        self._relative = relative
        # The process, and when the file that named it was written.
        self._known: tuple[psutil.Process, int] | None = None

    def read(self) -> ActiveRun | None:
        """The run that the file names; None when there is no file or it names no process.

        A file that cannot be read names none: heartbeats go on without it.
        """
        try:
            found = self._files.read(self._relative)
        except OpsError:
            return None
        pid = get(found.value, "pid")
        if isinstance(pid, bool) or not isinstance(pid, int) or not 0 < pid < 2**31:
            return None
        facts = self._facts(pid, found.reference.mtime_epoch)
        return ActiveRun(pid, _loop_id(get(found.value, "loop_id")), _text(get(found.value, "stage")), facts)

    def _facts(self, pid: int, written: int) -> ProcessFacts | None:
        """Of the run's process. written: when the file was, whole epoch seconds."""
        known, self._known = self._known, None
        try:
            if known is not None and known[0].pid == pid and written >= known[1] and known[0].is_running():
                process = known[0]
            else:
                process = psutil.Process(pid)
                if process.create_time() > written + 1 + _START_TOLERANCE_SECONDS:
                    return None
            facts = _facts_of(process)
        except (psutil.Error, OSError):
            return None
        if facts is not None:
            self._known = process, written
        return facts


def process_facts(pid: int) -> ProcessFacts | None:
    """Facts about a process; None when it does not exist or is a zombie."""
    try:
        return _facts_of(psutil.Process(pid))
    except (psutil.Error, OSError):
        return None


def own_facts() -> ProcessFacts:
    """Facts about this process."""
    facts = process_facts(os.getpid())
    return facts if facts is not None else ProcessFacts(0.0, 0, 0.0)


def _facts_of(process: psutil.Process) -> ProcessFacts | None:
    """None for a zombie. Raises psutil.Error and OSError."""
    with process.oneshot():
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        times = process.cpu_times()
        return ProcessFacts(process.create_time(), process.memory_info().rss, times.user + times.system)


def _loop_id(value: JSON) -> str:
    """The loop id if it is one that may become a path; "" otherwise."""
    try:
        return validate_loop_id(value) if isinstance(value, str) else ""
    except OpsError:
        return ""


def _text(value: JSON) -> str:
    return storable(value) if isinstance(value, str) else ""
