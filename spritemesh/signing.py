"""Signatures of requests: the file with keys, the bytes that are signed, and how a signature travels.

Pure: no clock, no chance, no files. docs/security.md tells the same with a test vector.
"""

import base64
import hashlib
import hmac
import re
from typing import NamedTuple
from urllib.parse import parse_qsl

from spritemesh import jsontext
from spritemesh.errors import OpsError

ALGORITHM = "spritemesh-hmac-sha256-v1"
# How far the signer's clock may be from the server's.
SKEW_SECONDS = 60
# Two at once, so that one can take the place of the other.
MAX_KEYS = 2
# RFC 2104, 3: a key shorter than the hash is weaker than it; half of it is what is still accepted.
MIN_SECRET_BYTES = 16
MAX_FILE_BYTES = 4096
NONCE_BYTES = 16

# Of POST: the loop id is in the body.
CONTROL_PATH = "/ops/control"

_MAX_PARAMETERS = 100
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
# A time of more digits is beyond every calendar; none begins with a zero, so that each has one spelling.
_HEADER = re.compile(
    r"v1;([A-Za-z0-9._-]{1,64});(0|[1-9][0-9]{0,14});([0-9a-f]{32});([0-9a-f]{64})\Z", re.ASCII
)


class SigningKey(NamedTuple):
    """A key. secret: shown nowhere, not even where this is printed."""

    id: str
    secret: bytes

    def __repr__(self) -> str:
        return f"SigningKey({self.id!r})"


class Signature(NamedTuple):
    """What a signed request carries. timestamp: milliseconds since 1970. nonce, mac: hexadecimal."""

    key_id: str
    timestamp: int
    nonce: str
    mac: str

    @property
    def text(self) -> str:
        """The value of the header."""
        return f"v1;{self.key_id};{self.timestamp};{self.nonce};{self.mac}"


def parse_keys(data: bytes, path: str, *, field: str) -> tuple[SigningKey, ...]:
    """The keys of a file: the first signs, all are accepted.

    path, field: for messages. Raises OpsError `signing_key_invalid`, which names file and line and shows
    nothing of either's content.
    """

    def fault(problem: str, number: int = 0) -> OpsError:
        place = f"{path}, line {number}" if number else path
        return OpsError("signing_key_invalid", f"{field} {place}: {problem}", field=field)

    if len(data) > MAX_FILE_BYTES:
        raise fault(f"holds more than {MAX_FILE_BYTES} bytes")
    keys: list[SigningKey] = []
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise fault(f"must be KEY_ID BASE64, found words: {len(words)}", number)
        key_id, text = words
        if not _KEY_ID.match(key_id):
            raise fault("a key's id has 1 to 64 characters of A-Z, a-z, 0-9, dot, _ and -", number)
        if any(key.id == key_id for key in keys):
            raise fault("the id is that of a key above", number)
        if len(keys) == MAX_KEYS:
            raise fault(f"there may be {MAX_KEYS} keys", number)
        secret = _secret(text)
        if secret is None:
            raise fault("the second word must be base64", number)
        if len(secret) < MIN_SECRET_BYTES:
            raise fault(f"a key has at least {MIN_SECRET_BYTES} bytes, found {len(secret)}", number)
        keys.append(SigningKey(key_id, secret))
    if not keys:
        raise fault("holds no key")
    return tuple(keys)


def signed_bytes(method: str, loop_id: str, timestamp: int, nonce: str, body: bytes) -> bytes:
    """What is signed: six lines, each ended by a newline.

    method: gRPC's path, or HTTP's method, a space, and the target as sent. loop_id: "" without one. Of all
    parts only the loop id may hold a newline, and so no two requests have the same bytes: it is what stands
    between the second line and the last three. Raises ValueError for a method with a newline.
    """
    if "\n" in method:
        raise ValueError("a method holds no newline")
    digest = hashlib.sha256(body).hexdigest()
    text = f"{ALGORITHM}\n{method}\n{loop_id}\n{timestamp}\n{nonce}\n{digest}\n"
    return text.encode("utf-8", "surrogatepass")


def http_loop_id(path: str, query: str, body: bytes) -> str:
    """The loop id of a request over HTTP as it is signed: of a control request the body's member, of others
    the query's; "" where there is none, or none can be read."""
    try:
        if path == CONTROL_PATH:
            document = jsontext.parse(body)
            found = document.get("loopId") if isinstance(document, dict) else None
        else:
            pairs = parse_qsl(query, errors="strict", max_num_fields=_MAX_PARAMETERS)
            found = next((value for name, value in pairs if name == "loopId"), None)
    except ValueError:  # so are all that parsing raises
        return ""
    return found if isinstance(found, str) else ""


def mac(secret: bytes, signed: bytes) -> str:
    """HMAC-SHA256, lower-case hexadecimal."""
    return hmac.digest(secret, signed, "sha256").hex()


def sign(key: SigningKey, *, method: str, loop_id: str, body: bytes, timestamp: int, nonce: str) -> Signature:
    """The signature of a request. nonce: 32 hexadecimal digits, never used before."""
    signed = signed_bytes(method, loop_id, timestamp, nonce, body)
    return Signature(key.id, timestamp, nonce, mac(key.secret, signed))


def read_signature(text: str) -> Signature | None:
    """The signature of a header's value; None for what is none."""
    found = _HEADER.match(text)
    return None if found is None else Signature(found[1], int(found[2]), found[3], found[4])


def _secret(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None
