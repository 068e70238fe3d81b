"""Taking secrets out of what a sink answers, before anybody keeps it."""

from base64 import b64encode
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, urlsplit

from spritemesh import jsontext

SHOWN = "***"
# Shorter parts of an address, such as `v2`, are words that anybody may say.
_LEAST_PART_CHARS = 8


class Scrubber:
    """Knows some secrets, and how they may be spelled in an answer."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """secrets: values of variables; what gives one away by itself is a secret, too."""
        known: set[str] = set()
        for secret in secrets:
            known |= _spellings(secret)
            for part in _parts(secret):
                known |= _spellings(part)
        # The longest first, so that no end of one is left.
        self._known = sorted(known - {""}, key=len, reverse=True)

    @property
    def longest(self) -> int:
        """Characters of the longest spelling."""
        return len(self._known[0]) if self._known else 0

    def scrub(self, text: str) -> str:
        """`text` without secrets."""
        for secret in self._known:
            text = text.replace(secret, SHOWN)
        return text


def _spellings(secret: str) -> set[str]:
    in_json = jsontext.encode(secret).decode()[1:-1]
    in_address = {quote(secret, errors="replace"), quote(secret, safe="", errors="replace")}
    return {secret, in_json, in_json.replace("/", "\\/"), *in_address, quote_plus(secret, errors="replace")}


def _parts(secret: str) -> list[str]:
    """What gives a secret away by itself: of an address its login, path and query; of a text its words."""
    if "://" not in secret:
        return [word for word in secret.split() if len(word) >= _LEAST_PART_CHARS]
    try:
        address = urlsplit(secret)
        user, password = address.username or "", address.password or ""
    except ValueError:
        return []
    login = [user, password] if user or password else []
    if login:
        # As the header says it.
        login.append(b64encode(f"{user}:{password}".encode("utf-8", "replace")).decode())
    path = [address.path, address.path.lstrip("/"), *address.path.split("/")]
    query = [address.query, *(pair.partition("=")[2] for pair in address.query.split("&"))]
    return login + [part for part in (*path, *query, address.fragment) if len(part) >= _LEAST_PART_CHARS]
