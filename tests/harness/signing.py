"""Files of signing keys, and requests that are signed otherwise than our client would."""

import base64
import itertools
import time
from pathlib import Path

from spritemesh.names import SIGNATURE_HEADER
from spritemesh.signing import SigningKey, sign
from tests.harness import secrets

_nonces = itertools.count(1)

FIRST = SigningKey("first", secrets.SIGNING_KEY.encode())
SECOND = SigningKey("second", secrets.OTHER_SIGNING_KEY.encode())


def key_lines(*keys: SigningKey) -> str:
    """The text of a file with keys."""
    return "".join(f"{key.id} {base64.b64encode(key.secret).decode()}\n" for key in keys)


def write_keys(path: Path, *keys: SigningKey) -> Path:
    """Put a file with keys in its place, in one step."""
    text = key_lines(*keys)
    if not path.exists():
        secrets.write(path, text).chmod(0o600)
        return path
    fresh = secrets.write(path.with_suffix(".new"), text)
    fresh.chmod(0o600)
    return fresh.replace(path)


def signature(
    method: str,
    loop_id: str,
    body: bytes,
    *,
    key: SigningKey = FIRST,
    at: float | None = None,
    nonce: str = "",
) -> tuple[str, str]:
    """The metadata of a signed request. at: epoch seconds, now by default; nonce "": one never used."""
    moment = time.time() if at is None else at
    found = sign(
        key,
        method=method,
        loop_id=loop_id,
        body=body,
        timestamp=round(moment * 1000),
        nonce=nonce or f"{next(_nonces):032x}",
    )
    return SIGNATURE_HEADER, found.text
