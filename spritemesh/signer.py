"""Keys of a file that may change at any time, and requests signed with them: so a key is exchanged without
restarting anybody."""

import logging
import os
import stat
import time
from collections.abc import Callable
from functools import lru_cache

from spritemesh.errors import OpsError
from spritemesh.signing import MAX_FILE_BYTES, NONCE_BYTES, SigningKey, parse_keys, sign

_log = logging.getLogger("spritemesh")
# Longer than any tick of a file system's clock: within one, a second change would look like none.
_UNSETTLED_NS = 20_000_000
SIGNING_KEY_FLAG = "--signing-key-file"


class KeyFile:
    """The keys of a file, read anew when it changes. field: the flag or member that the path came from.

    Raises OpsError `signing_key_invalid` when it is made from a file that cannot be used. One that becomes
    such later is told in the log, and the keys before stay in force.
    """

    def __init__(self, path: str, field: str = SIGNING_KEY_FLAG) -> None:
        self._path = os.path.abspath(path)
        self._field = field
        self._seen = self._state()
        self._keys = self._read()
        self._told = ""
        self._warn_of_readers()

    def current(self) -> tuple[SigningKey, ...]:
        """One or two; the first is the one to sign with. Costs a stat."""
        state = self._state()
        if state != self._seen:
            self._seen = state
            self._renew()
        return self._keys

    def _renew(self) -> None:
        try:
            keys = self._read()
        except OpsError as error:
            if error.message != self._told:
                self._told = error.message
                _log.error("%s: %s; the keys before stay in force", error.reason, error.message)
            return
        self._told = ""
        if keys != self._keys:
            self._keys = keys
            names = ", ".join(key.id for key in keys)
            _log.info("%s %s: keys are %s now", self._field, self._path, names)
        self._warn_of_readers()

    def _read(self) -> tuple[SigningKey, ...]:
        try:
            with open(self._path, "rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise OpsError(
                "signing_key_invalid",
                f"{self._field} {self._path}: cannot be read: {error.strerror}",
                field=self._field,
            ) from error
        return parse_keys(data, self._path, field=self._field)

    def _state(self) -> tuple[int, ...]:
        """What changes when the file does; nothing without one."""
        try:
            found = os.stat(self._path)
        except OSError:
            return ()
        now = time.time_ns()
        unsettled = now if 0 <= now - found.st_mtime_ns < _UNSETTLED_NS else 0
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode, unsettled

    def _warn_of_readers(self) -> None:
        if len(self._seen) > 1 and self._seen[4] & stat.S_IRWXO:
            _log.warning("%s %s: every user of this host may read it (chmod o-rwx)", self._field, self._path)


class Signer:
    """Signs requests with the first key of a file. clock: epoch seconds."""

    def __init__(self, keys: KeyFile, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock

    def header(self, method: str, loop_id: str, body: bytes) -> str:
        """The value of `x-ops-signature` for one try of a request (`signing.signed_bytes`)."""
        return sign(
            self._keys.current()[0],
            method=method,
            loop_id=loop_id,
            body=body,
            timestamp=int(self._clock() * 1000),
            nonce=os.urandom(NONCE_BYTES).hex(),
        ).text


@lru_cache(maxsize=4096)
def signer_of(path: str, field: str = SIGNING_KEY_FLAG) -> Signer:
    """The signer of a file, one for all who ask. Raises OpsError `signing_key_invalid`."""
    return Signer(KeyFile(path, field))
