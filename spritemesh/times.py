"""Times of the v1 documents (contract 0.3, L13): read generously, written in one form."""

import re
import time
from datetime import datetime
from functools import lru_cache

_FORM = "%Y-%m-%dT%H:%M:%SZ"
_DATE_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}"
# Compiled at first use.
_STRICT = _DATE_TIME.replace("Tt", "T") + r"Z\Z"
# fromisoformat takes more than RFC 3339: week dates, times without colons, seconds that are left out.
_RFC3339 = _DATE_TIME + r"(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})\Z"
_SECONDS = slice(17, 19)
_LONGEST = 100  # characters; the fraction of a second has no limit of its own


def format_utc(epoch_seconds: float) -> str:
    """`epoch_seconds` as YYYY-MM-DDTHH:MM:SSZ; fractions are cut."""
    return _format(int(epoch_seconds))


# One step of a loop says the same second a dozen times.
@lru_cache(maxsize=64)
def _format(epoch_seconds: int) -> str:
    return time.strftime(_FORM, time.gmtime(epoch_seconds))


def format_utc_milliseconds(epoch_seconds: float) -> str:
    """`epoch_seconds` as YYYY-MM-DDTHH:MM:SS.mmmZ, for documents that v1 does not have."""
    milliseconds = round(epoch_seconds * 1000)
    return f"{format_utc(milliseconds // 1000)[:-1]}.{milliseconds % 1000:03d}Z"


def parse_strict(text: str) -> int | None:
    """Whole epoch seconds of YYYY-MM-DDTHH:MM:SSZ; None for every other form."""
    parsed = parse_rfc3339(text) if re.match(_STRICT, text) else None
    return None if parsed is None else int(parsed)


def parse_rfc3339(text: object) -> float | None:
    """Epoch seconds of an RFC 3339 time with its offset; None when `text` is none.

    Fractions, numeric offsets and lower-case `t` and `z` count (L13), and so does a leap second, as the
    second after it. A time without an offset does not: it says nothing sure.
    """
    return _parse(text) if isinstance(text, str) and len(text) <= _LONGEST else None


@lru_cache(maxsize=4096)
def _parse(text: str) -> float | None:
    if not re.match(_RFC3339, text):
        return None
    leap = text[_SECONDS] == "60"
    if leap:
        text = text[:17] + "59" + text[19:]
    try:
        return datetime.fromisoformat(text.upper()).timestamp() + leap
    except (ValueError, OverflowError):
        return None
