"""Who signed a request, and that nobody sent it before (docs/security.md)."""

import hmac
import os
import time
from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from spritemesh.errors import OpsError
from spritemesh.names import SIGNATURE_HEADER
from spritemesh.signer import KeyFile
from spritemesh.signing import MIN_SECRET_BYTES, SKEW_SECONDS, Signature, mac, read_signature, signed_bytes

# 12 MB when full. With more calls within the window, the oldest are forgotten, and what was signed
# before them is refused: no replay passes, but late calls do not either.
MAX_NONCES = 65_536
_SKEW_MS = SKEW_SECONDS * 1000
_WRONG = "the signature is of no key of this server, or not of this request"


class Signatures:
    """Checks signatures with the keys of a file. Of one event loop. clock: epoch seconds.

    Raises OpsError `signing_key_invalid` when it is made.
    """

    def __init__(
        self, path: str, *, clock: Callable[[], float] = time.time, max_nonces: int = MAX_NONCES
    ) -> None:
        self._keys = KeyFile(path)
        self._clock = clock
        # Unknown keys take as long as known ones.
        self._nobody = os.urandom(MIN_SECRET_BYTES)
        self._nonces = Nonces(int(clock() * 1000), max_nonces)

    @staticmethod
    def check_present(headers: Iterable[tuple[str, str | bytes]]) -> None:
        """Refuse a call that is not signed with OpsError `signature_missing`."""
        if all(name != SIGNATURE_HEADER for name, _ in headers):
            raise _missing()

    def verify(
        self, headers: Iterable[tuple[str, str | bytes]], *, method: str, loop_id: str, body: bytes
    ) -> str:
        """The id of the key that signed the request; each signature is taken once.

        headers: lower-case names. The others as in `signing.signed_bytes`. Raises OpsError: what it says of
        clock and repetition hears only who has proved a key.
        """
        signature = _find(headers)
        secret, is_known = self._nobody, False
        for key in self._keys.current():
            if key.id == signature.key_id:
                secret, is_known = key.secret, True
        try:
            signed = signed_bytes(method, loop_id, signature.timestamp, signature.nonce, body)
        except ValueError:
            raise OpsError("signature_wrong", _WRONG) from None
        is_right = hmac.compare_digest(mac(secret, signed), signature.mac)
        if not (is_right and is_known):
            raise OpsError("signature_wrong", _WRONG)
        self._check_time(signature)
        if not self._nonces.take(signature):
            raise OpsError("nonce_replayed", "the signature was used before; each try needs its own")
        return signature.key_id

    def _check_time(self, signature: Signature) -> None:
        now = int(self._clock() * 1000)
        ahead = signature.timestamp - now
        if abs(ahead) > _SKEW_MS:
            way = "ahead of" if ahead > 0 else "behind"
            raise OpsError(
                "signature_expired",
                f"the call was signed {abs(ahead) / 1000:.1f} s {way} the server's clock;"
                f" {SKEW_SECONDS} s are taken",
            )
        self._nonces.forget_before(now - _SKEW_MS)
        late = self._nonces.floor - signature.timestamp
        if late >= 0:
            raise OpsError(
                "signature_expired",
                f"the call was signed {late / 1000:.3f} s before all that the server remembers of others;"
                " sign it again",
                # On a clock that is behind ours, the moment has not come yet.
                retry_after=min(late / 1000 + 0.001, SKEW_SECONDS),
            )


class Nonces:
    """Nonces that were used, the oldest first to go. Times are milliseconds since 1970.

    floor: what was signed at this time or before may have been forgotten, and is not taken: first the start,
    for another process may have taken it. most: how many are kept.
    """

    def __init__(self, start: int, most: int) -> None:
        self.floor = start
        self._most = most
        self._known: set[bytes] = set()
        self._oldest: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._known)

    def take(self, signature: Signature) -> bool:
        """Remember a nonce; whether it is new. The signature is of after the floor."""
        # Of whatever key: ids are not signed, and what one key signed may come again under another id of it.
        name = bytes.fromhex(signature.nonce)
        if name in self._known:
            return False
        self._known.add(name)
        heappush(self._oldest, (signature.timestamp, name))
        if len(self._known) > self._most:
            self._forget_one()
        return True

    def forget_before(self, time: int) -> None:
        """Forget what is older, for it is refused anyway; also on a clock that was set back."""
        while self._oldest and self._oldest[0][0] < time:
            self._forget_one()

    def _forget_one(self) -> None:
        time, name = heappop(self._oldest)
        self._known.discard(name)
        self.floor = max(self.floor, time)


def _missing() -> OpsError:
    return OpsError("signature_missing", f"the call must be signed, in `{SIGNATURE_HEADER}`")


def _find(headers: Iterable[tuple[str, str | bytes]]) -> Signature:
    """The one signature of a call. Raises OpsError."""
    texts = [value for name, value in headers if name == SIGNATURE_HEADER]
    if not texts:
        raise _missing()
    text = texts[0] if isinstance(texts[0], str) else texts[0].decode("latin-1")
    signature = read_signature(text.strip()) if len(texts) == 1 else None
    if signature is None:
        raise OpsError(
            "signature_wrong", f"`{SIGNATURE_HEADER}` must be one v1;KEY_ID;MILLISECONDS;NONCE;HMAC"
        )
    return signature
