"""What files hold that may change at any time, such as keys and certificates."""

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from spritemesh.errors import OpsError
from spritemesh.files import UNSETTLED_NS

_T = TypeVar("_T")
# How often files that could not be used are read again while they look the same.
RETRY_SECONDS = 1.0


class Secret(NamedTuple):
    """A file that only its owner should read. shown: as the log names it."""

    path: str
    shown: str


class Renewed(Generic[_T]):
    """What files hold. Any thread may ask.

    read: gives the content, and raises OpsError for what cannot be used: when this is made, and later only
    in the log, once, while what was there before stays in force. paths: of the files; secret: the one of them
    that is. log, kept: where, and as what, it is told what stays in force. told: what the log says of new
    content, None: it is no other.

    Files that could not be used are read again each second, whether or not they look changed: what was wrong
    may have been this process, such as one without a free descriptor, and what they hold may be there to put
    something stolen out of force.
    """

    def __init__(
        self,
        read: Callable[[], _T],
        paths: Sequence[str],
        secret: Secret,
        *,
        log: logging.Logger,
        kept: str,
        told: Callable[[_T, _T], str | None],
    ) -> None:
        self._read = read
        self._paths = paths
        self._secret = secret
        self._log = log
        self._kept = kept
        self._told = told
        self._lock = threading.Lock()
        self._refused = ""
        # By time.monotonic; None: the last reading brought what is in force.
        self._retry_at: float | None = None
        self._warned = False
        self._seen = self._state()
        self._content = read()
        self._warn_of_readers()

    def current(self) -> _T:
        """What the files hold by now. Costs a stat a file; never raises."""
        state = self._state()
        with self._lock:
            if state != self._seen or self._is_due():
                self._seen = state
                self._renew()
            return self._content

    def _is_due(self) -> bool:
        return self._retry_at is not None and time.monotonic() >= self._retry_at

    def _renew(self) -> None:
        try:
            content = self._read()
        except OpsError as error:
            self._keep(f"{error.reason}: {error.message}")
            return
        except Exception as error:
            # Whoever connects must not pay for a defect. Its words might quote a file.
            self._keep(f"internal_error: {', '.join(self._paths)}: {type(error).__name__}")
            return
        self._refused = ""
        self._retry_at = None
        told = self._told(self._content, content)
        if told is not None:
            self._content = content
            self._warned = False
            self._log.info("%s", told)
        self._warn_of_readers()

    def _keep(self, problem: str) -> None:
        """Leave in force what is. problem: told, unless it was what was told last."""
        self._retry_at = time.monotonic() + RETRY_SECONDS
        if problem != self._refused:
            self._refused = problem
            self._log.error("%s; %s stay in force", problem, self._kept)

    def _state(self) -> tuple[tuple[int, ...], ...]:
        """What changes when one of the files does, or who may read it."""
        return tuple(_state(path) for path in self._paths)

    def _warn_of_readers(self) -> None:
        """Once for each content, and each time that the file is opened to all."""
        try:
            mode = os.stat(self._secret.path).st_mode
        except OSError:
            return
        exposed = bool(mode & stat.S_IRWXO)
        if exposed and not self._warned:
            self._log.warning("%s: every user of this host may read it (chmod o-rwx)", self._secret.shown)
        self._warned = exposed


def _state(path: str) -> tuple[int, ...]:
    """() where there is nothing to look at.

    The time of the last change (ctime) counts, which nobody can set: a file with the size and times of the
    one before is another, and so is one that was given to this process's user after it came.
    """
    try:
        status = os.stat(path)
    except OSError:
        return ()
    found = (
        status.st_dev,
        status.st_ino,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
    now = time.time_ns()
    # A second change within the same tick of the file system's clock would look like none.
    return (*found, now) if 0 <= now - status.st_ctime_ns < UNSETTLED_NS else found
