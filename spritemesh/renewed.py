"""What files hold that may change at any time, such as keys and certificates."""

import logging
import os
import stat
import threading
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from spritemesh.errors import OpsError
from spritemesh.files import signature

_T = TypeVar("_T")


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
        self._seen = self._state()
        self._content = read()
        self._warn_of_readers()

    def current(self) -> _T:
        """What the files hold by now. Costs a stat a file; never raises."""
        state = self._state()
        with self._lock:
            if state != self._seen:
                self._seen = state
                self._renew()
            return self._content

    def _renew(self) -> None:
        try:
            content = self._read()
        except OpsError as error:
            if error.message != self._refused:
                self._refused = error.message
                self._log.error("%s: %s; %s stay in force", error.reason, error.message, self._kept)
            return
        self._refused = ""
        told = self._told(self._content, content)
        if told is not None:
            self._content = content
            self._log.info("%s", told)
        self._warn_of_readers()

    def _state(self) -> tuple[tuple[int, ...], ...]:
        """What changes when one of the files does, its mode included."""
        return tuple(_state(path) for path in self._paths)

    def _warn_of_readers(self) -> None:
        try:
            mode = os.stat(self._secret.path).st_mode
        except OSError:
            return
        if mode & stat.S_IRWXO:
            self._log.warning("%s: every user of this host may read it (chmod o-rwx)", self._secret.shown)


def _state(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_mode, *signature(status)
