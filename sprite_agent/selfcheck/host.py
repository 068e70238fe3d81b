"""The host of an agent: what it needs of the machine and the system."""

import os
import resource
import shutil
import stat
import time

from sprite_agent.control.command import runtime_program
from sprite_agent.probe.steps import Found, warn, well
from sprite_agent.runtime.layout import RUNTIME_ROOT
from sprite_agent.runtime.watch import DirectoryWatch
from spritemesh.errors import OpsError
from spritemesh.times import format_utc

# Fewer leave little for streams once the agent has its own.
LOW_OPEN_FILES = 1024
# A file may be dated so far ahead by another machine that shares the disk, seconds.
_AHEAD_SECONDS = 5.0


def check_runtime(given: str | None) -> Found:
    """The step: the runtime's program, without which control fails and everything else works."""
    program = runtime_program(given, os.environ)
    found = shutil.which(program)
    if found is not None:
        return well(found)
    if os.path.isfile(program):
        mode = stat.S_IMODE(os.stat(program).st_mode)
        return warn("runtime_not_executable", f"{program} may not be executed ({mode:04o})")
    return warn(
        "runtime_not_found",
        f"there is no program {program}; control will fail until there is one",
        "Set SUPERLOOP_BIN or --runtime-command.",
    )


def check_inotify(repo: str) -> Found:
    """The step: whether the kernel tells of changes in the runtime's directory."""
    watch = DirectoryWatch()
    try:
        directory = os.path.join(repo, RUNTIME_ROOT)
        if not watch.add(directory if os.path.isdir(directory) else repo):
            return warn("inotify_unavailable", f"{directory} cannot be watched{_inotify_limits()}")
    finally:
        watch.close()
    return well(f"changes are told at once{_inotify_limits()}")


def check_open_files() -> Found:
    """The step: how many files the process may open. An agent raises the soft limit to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return well("without limit")
    if hard < LOW_OPEN_FILES:
        return warn("open_files_low", f"at most {hard}")
    return well(f"at most {hard}")


def check_clock(repo: str) -> Found:
    """The step: the clock is not behind what was written in the repository."""
    now = time.time()
    newest, at = "", 0.0
    root = os.path.join(repo, RUNTIME_ROOT)
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                seen = entry.stat(follow_symlinks=False).st_mtime
                if seen > at:
                    newest, at = entry.path, seen
    except FileNotFoundError:
        return well(format_utc(now))
    except OSError as error:
        raise OpsError("artifact_invalid", f"{root} cannot be read: {error.strerror}") from error
    if at > now + _AHEAD_SECONDS:
        return warn(
            "clock_implausible", f"it is {format_utc(now)}, and {newest} was written {format_utc(at)}"
        )
    return well(f"{format_utc(now)}; nothing was written later")


def _inotify_limits() -> str:
    values = []
    for name in ("max_user_instances", "max_user_watches"):
        try:
            with open(f"/proc/sys/fs/inotify/{name}", encoding="ascii") as file:
                values.append(f"{name} {file.read().strip()}")
        except OSError:
            continue
    return f" ({', '.join(values)})" if values else ""
