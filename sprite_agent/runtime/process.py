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


def read_active_run(files: StateFiles, relative: str) -> ActiveRun | None:
    """The run that the file names; None when there is no file or it names no process.

    A file that cannot be read names none: heartbeats go on without it.
    """
    try:
        found = files.read(relative)
    except OpsError:
        return None
    pid = get(found.value, "pid")
    if isinstance(pid, bool) or not isinstance(pid, int) or not 0 < pid < 2**31:
        return None
    process = process_facts(pid)
    if (
        process is not None
        and process.started_at > found.reference.mtime_epoch + 1 + _START_TOLERANCE_SECONDS
    ):
        process = None
    return ActiveRun(pid, _loop_id(get(found.value, "loop_id")), _text(get(found.value, "stage")), process)


def process_facts(pid: int) -> ProcessFacts | None:
    """Facts about a process; None when it does not exist or is a zombie."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            times = process.cpu_times()
            return ProcessFacts(process.create_time(), process.memory_info().rss, times.user + times.system)
    except (psutil.Error, OSError):
        return None


def own_facts() -> ProcessFacts:
    """Facts about this process."""
    facts = process_facts(os.getpid())
    return facts if facts is not None else ProcessFacts(0.0, 0, 0.0)


def _loop_id(value: JSON) -> str:
    """The loop id if it is one that may become a path; "" otherwise."""
    try:
        return validate_loop_id(value) if isinstance(value, str) else ""
    except OpsError:
        return ""


def _text(value: JSON) -> str:
    return storable(value) if isinstance(value, str) else ""
