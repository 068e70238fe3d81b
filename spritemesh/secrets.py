"""Taking secrets out of what another program says, before anybody keeps or shows it."""

import codecs
from base64 import b64encode
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus, urlsplit

from spritemesh import jsontext

SHOWN = "***"
# Shorter parts of an address, such as `v2`, are words that anybody may say.
_LEAST_PART_CHARS = 8


class Scrubber:
    """Knows some secrets, and how they may be spelled in an answer."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """secrets: what nobody may see; what gives one away by itself is a secret, too."""
        known: set[str] = set()
        for secret in secrets:
            known |= _spellings(secret)
            for part in _parts(secret):
                known |= _spellings(part)
        self._known = sorted(known - {""}, key=len, reverse=True)

    @property
    def longest(self) -> int:
        """Characters of the longest spelling."""
        return len(self._known[0]) if self._known else 0

    def scrub(self, text: str | bytes, *, cut: bool = False) -> str:
        """`text` without secrets; bytes are read as UTF-8.

        cut: there was more, which is not known, so that the end of `text` may be the beginning of a secret
        and goes, too, if it is.
        """
        if isinstance(text, bytes):
            # A character of which a half is there would hide that a secret begins before it.
            text = codecs.getincrementaldecoder("utf-8")("replace").decode(text, final=not cut)
        found = [place for secret in self._known for place in _places(text, secret)]
        if cut:
            found += [(len(text) - size, len(text)) for size in (self._begun(text),) if size]
        shown: list[str] = []
        end = 0
        # Secrets may overlap: what belongs to any of them goes.
        for start, stop in sorted(found):
            if start >= end:
                shown += [text[end:start], SHOWN]
            end = max(end, stop)
        return "".join([*shown, text[end:]])

    def _begun(self, text: str) -> int:
        """Characters at the end of `text` with which a secret begins."""
        for size in range(min(len(text), self.longest), 0, -1):
            end = text[-size:]
            if any(secret.startswith(end) for secret in self._known):
                return size
        return 0


def _places(text: str, secret: str) -> Iterator[tuple[int, int]]:
    """Start and end of each place, those that overlap, too."""
    start = text.find(secret)
    while start >= 0:
        yield start, start + len(secret)
        start = text.find(secret, start + 1)


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
