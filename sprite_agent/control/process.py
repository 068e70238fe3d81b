"""Running one command: no shell, a process group of its own, bounded time and bounded output."""

import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from sprite_agent.control.tail import Tail
from spritemesh.modes import given_umask

# Before the first child: gRPC's fork handlers kill one now and then.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# Where it is ignored, as some supervisors leave it, nobody learns how a child ended.
if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

_READ_BYTES = 64 * 1024
# After each of the two signals that end a command, seconds.
_GRACE_SECONDS = 2.0
# The most that a pipe holds, unless an administrator raised the limit.
_PIPE_BYTES = 1024 * 1024
# Where nothing tells of the end of a process.
_POLL_SECONDS = 0.02

NEVER_RAN = frozenset({"runtime_not_found", "runtime_not_executable"})


class Ran(NamedTuple):
    """How a command ended. reason: "" or why, more finely than its exit code. seconds: how long it took."""

    exit_code: int
    tail: str
    truncated: bool
    reason: str
    seconds: float


def run(
    words: list[str],
    *,
    environment: Mapping[str, str],
    timeout: float,
    started: Callable[[int], None] = lambda _pid: None,
) -> Ran:
    """Run a command; what goes wrong is told by what is returned. `started` is told its process id.

    It reads nothing. Its output is read as it comes, and the end of it kept. After `timeout` seconds its
    group gets SIGTERM, then SIGKILL.
    """
    began = time.monotonic()
    try:
        # A program without a slash in its name is looked for on PATH.
        process = subprocess.Popen(
            words,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            # Who may read the runtime's files is the runtime's matter.
            umask=given_umask(),
        )
    except (OSError, ValueError) as error:
        return _not_run(words[0], environment, error)
    tail = Tail()
    try:
        started(process.pid)
        timed_out = _follow(process, tail, began + timeout)
    except BaseException:
        # Nobody waits for it any more, so it shall not go on unseen.
        _signal_group(process.pid, signal.SIGTERM)
        raise
    finally:
        pipe: Any = process.stdout
        pipe.close()
        if process.returncode is None:
            # We were interrupted, or it hangs in the kernel whatever signals it gets: nobody waits for it.
            process.returncode = -signal.SIGKILL
    code = process.returncode
    seconds = time.monotonic() - began
    text, truncated = tail.kept()
    reason = ""
    if timed_out:
        reason = "runtime_timeout"
        text = _with_note(text, f"the runtime did not end within {timeout:g} s and was ended [{reason}]")
    elif code < 0:
        reason = "runtime_killed"
        text = _with_note(text, f"{_signal_name(-code)} ended the runtime [{reason}]")
    return Ran(code if code >= 0 else 128 - code, text, truncated, reason, seconds)


def _follow(process: "subprocess.Popen[bytes]", tail: Tail, until: float) -> bool:
    """Read until the command has ended; whether that was for the time limit, `until`."""
    pipe: Any = process.stdout
    handle = pipe.fileno()
    os.set_blocking(handle, False)
    signals = iter((signal.SIGTERM, signal.SIGKILL))
    timed_out = closed = False
    with selectors.DefaultSelector() as selector, _EndOf(process.pid) as end:
        selector.register(handle, selectors.EVENT_READ)
        if end >= 0:
            selector.register(end, selectors.EVENT_READ)
        while not _has_ended(process.pid):
            now = time.monotonic()
            if now >= until:
                number = next(signals, None)
                if number is None:
                    break
                timed_out = True
                _signal_group(process.pid, number)
                until = now + _GRACE_SECONDS
            wait = max(0.0, until - now)
            ready = selector.select(wait if end >= 0 else min(wait, _POLL_SECONDS))
            if any(key.fd == handle for key, _ in ready) and not _read(handle, tail):
                # Everybody closed it; the command itself may still run.
                selector.unregister(handle)
                closed = True
    if not closed:
        _drain(handle, tail)
    if timed_out:
        # Its children may have outlived it. Until it is waited for, its number is nobody else's.
        _signal_group(process.pid, signal.SIGKILL)
    process.poll()
    return timed_out


def _has_ended(pid: int) -> bool:
    """Whether a child has ended, which is not waited for yet."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _drain(handle: int, tail: Tail) -> None:
    """Take what an ended command left in the pipe, which a background process may hold open for ever."""
    left = _PIPE_BYTES
    while left > 0:
        try:
            data = os.read(handle, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            return
        tail.add(data)
        left -= len(data)


class _EndOf:
    """A descriptor that turns readable when a child ends; -1 where the system has none."""

    def __init__(self, pid: int) -> None:
        try:
            self._handle = os.pidfd_open(pid)
        except (OSError, AttributeError):
            self._handle = -1

    def __enter__(self) -> int:
        return self._handle

    def __exit__(self, *_: object) -> None:
        if self._handle >= 0:
            os.close(self._handle)


def _read(handle: int, tail: Tail) -> bool:
    """Take what is there; False at the end."""
    try:
        data = os.read(handle, _READ_BYTES)
    except BlockingIOError:
        return True
    tail.add(data)
    return bool(data)


def _signal_group(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _not_run(program: str, environment: Mapping[str, str], error: OSError | ValueError) -> Ran:
    """What a shell would tell of a program that cannot be started."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        if shutil.which(program, path=environment.get("PATH")) is None:
            return _told(127, "runtime_not_found", f"{program}: there is no such program")
        told = "the interpreter that its first line names is missing"
    else:
        told = getattr(error, "strerror", None) or str(error)
    return _told(126, "runtime_not_executable", f"{program}: cannot be started: {told}")


def _told(code: int, reason: str, told: str) -> Ran:
    return Ran(code, f"{told} [{reason}]", False, reason, 0.0)


def _with_note(text: str, note: str) -> str:
    return f"{text}\n{note}" if text else note
