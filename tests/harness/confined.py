"""Programs confined as the units and manifests of deploy/ have it: no root, no capability, nothing writable
but one directory, and no memory that is both written and executed.

Without systemd or a cluster, by namespaces of Linux: so a user without rights can do it, too, where the
kernel allows that.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.harness.agents import Wrapper

USER = 1000
# The directory stays as it is; every other file system is made read-only.
_MOUNTS = """
set -e
mount --bind "$1" "$1"
while read -r _ _ _ _ at _; do
    case $at in
        "$1" | /proc | /proc/* | /sys | /sys/* | /dev | /dev/*) ;;
        *) mount -o remount,bind,ro "$at" ;;
    esac
done < /proc/self/mountinfo
shift
exec "$@"
"""
# PR_SET_MDWE with PR_MDWE_REFUSE_EXEC_GAIN; a kernel before 6.3 knows neither and refuses.
_NO_NEW_CODE = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); os.execvp(sys.argv[1], sys.argv[1:])"
)


def confined(writable: Path) -> Wrapper:
    """Makes a command line that runs another one so."""

    def wrap(words: list[str]) -> list[str]:
        user = ("unshare", "--user", f"--map-user={USER}", f"--map-group={USER}")
        powers = ("setpriv", "--no-new-privs", "--inh-caps=-all")
        # The namespace of the mounts first, by a user who may mount; then one without.
        mounts = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _MOUNTS, "sh", str(writable))
        return [*mounts, *user, *powers, sys.executable, "-c", _NO_NEW_CODE, *words]

    return wrap


def why_not(directory: Path) -> str:
    """Why nothing can be confined here; "" where it can."""
    try:
        done = subprocess.run(
            confined(directory)(["true"]), capture_output=True, text=True, timeout=20, check=False
        )
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


def facts(pid: int) -> dict[str, str]:
    """What the kernel says of a process: fields of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def writable_mounts(pid: int) -> set[str]:
    """Where file systems are mounted that a process may write, those of the kernel left out."""
    lines = (line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text("utf-8").splitlines())
    is_kernels: Callable[[str], bool] = lambda at: at.split("/")[1] in {"proc", "sys", "dev"}  # noqa: E731
    return {line[4] for line in lines if "rw" in line[5].split(",") and not is_kernels(line[4])}
