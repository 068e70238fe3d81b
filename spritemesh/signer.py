"""Keys of a file that may change at any time, and requests signed with them: so a key is exchanged without
restarting anybody."""

import logging
import os
import time
from collections.abc import Callable
from functools import lru_cache

from spritemesh.errors import OpsError
from spritemesh.renewed import Renewed, Secret
from spritemesh.signing import MAX_FILE_BYTES, NONCE_BYTES, SigningKey, parse_keys, sign

_log = logging.getLogger("spritemesh")
SIGNING_KEY_FLAG = "--signing-key-file"


class KeyFile:
    """The keys of a file, read anew when it changes. field: the flag or member that the path came from.

    Raises OpsError `signing_key_invalid` when it is made from a file that cannot be used. One that becomes
    such later is told in the log, and the keys before stay in force.
    """

    def __init__(self, path: str, field: str = SIGNING_KEY_FLAG) -> None:
        self._path = os.path.abspath(path)
        self._field = field
        self._keys = Renewed(
            self._read,
            (self._path,),
            Secret(self._path, f"{field} {self._path}"),
            log=_log,
            kept="the keys before",
            told=self._told,
        )

    def current(self) -> tuple[SigningKey, ...]:
        """One or two; the first is the one to sign with. Costs a stat."""
        return self._keys.current()

    def _told(self, before: tuple[SigningKey, ...], keys: tuple[SigningKey, ...]) -> str | None:
        if keys == before:
            return None
        return f"{self._field} {self._path}: keys are {', '.join(key.id for key in keys)} now"

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
