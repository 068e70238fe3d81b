"""Which alerts are tried again, and when (contract L17).

An entry is one escalation that not all of its sinks took. It is tried again on later passes, after 60 s
and then twice as long each time, up to an hour, and given up after MAX_TRIES tries. While an escalation is
on its way it has an entry, too: a crash finds there which sinks took it already.
"""

from collections.abc import Sequence
from typing import NamedTuple

from spritemesh.errors import OpsError, kind_of
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc, parse_rfc3339
from spritemesh.values import get, whole

MAX_TRIES = 8
# Beyond that the oldest are given up: the queue is written whole at each change.
MAX_ENTRIES = 500
# In one pass; the others stay due.
MAX_RETRIES_PER_PASS = 50

_FIRST_PAUSE_SECONDS = 60
_LONGEST_PAUSE_SECONDS = 3600


class Entry(NamedTuple):
    """An escalation on its way.

    line: number of its line, from 1. tries: how often it was tried in full. next_at: epoch seconds of the
    next try; None while the first one runs. delivered: elements (contract I.3) of the sinks that took it.
    waiting: id -> reason of those that did not, "" of those that are being asked. routed: who is to be told
    was known at the last try.
    """

    line: int
    escalation: JSON
    tries: int = 0
    next_at: float | None = None
    delivered: tuple[JSON, ...] = ()
    waiting: dict[str, str] = {}  # noqa: RUF012 - a tuple's default, never changed
    routed: bool = False

    def took(self, element: JSON) -> "Entry":
        """With one more sink that took it."""
        waiting = {name: reason for name, reason in self.waiting.items() if name != element["id"]}
        return self._replace(delivered=(*self.delivered, element), waiting=waiting)

    def failed(self, waiting: dict[str, str], now: float) -> "Entry":
        """After a try that left these sinks waiting."""
        tries = self.tries + 1
        return self._replace(tries=tries, next_at=now + pause_after(tries), waiting=waiting)

    @property
    def settled(self) -> bool:
        """Whether nobody waits, once its line is passed."""
        return self.next_at is None or (self.routed and not self.waiting)

    @property
    def exhausted(self) -> bool:
        return self.tries >= MAX_TRIES


def pause_after(tries: int) -> int:
    """Seconds between one try and the next."""
    return min(_FIRST_PAUSE_SECONDS << min(tries - 1, 16), _LONGEST_PAUSE_SECONDS)


def is_due(entry: Entry, now: float) -> bool:
    """Whether to try again; also when the clock was set back so far that it would never come."""
    return entry.next_at is not None and (
        entry.next_at <= now or entry.next_at > now + _LONGEST_PAUSE_SECONDS + 1
    )


def document_of(entries: Sequence[Entry], *, now: float, loop_id: str) -> dict[str, JSON]:
    """The queue as a file."""
    return {
        "schemaVersion": "v1",
        "updatedAt": format_utc(now),
        "loopId": loop_id,
        "entries": [
            {
                "line": entry.line,
                "tries": entry.tries,
                "nextTryAt": None if entry.next_at is None else format_utc(entry.next_at),
                "routed": entry.routed,
                "waiting": entry.waiting,
                "delivered": list(entry.delivered),
                "escalation": entry.escalation,
            }
            for entry in entries
        ],
    }


def entries_of(document: JSON, path: str) -> list[Entry]:
    """The entries in a file. Raises OpsError `document_invalid`, naming the path: to guess here could tell a
    sink twice."""
    entries = get(document, "entries")
    if not isinstance(entries, list):
        raise _fault(path, f"entries must be an array, found {kind_of(entries)}")
    return [_entry(item, f"{path}: entries[{number}]") for number, item in enumerate(entries)]


def _entry(item: JSON, where: str) -> Entry:
    line, tries = whole(get(item, "line")), whole(get(item, "tries"))
    waiting, delivered, due = (get(item, name) for name in ("waiting", "delivered", "nextTryAt"))
    next_at = parse_rfc3339(due)
    if line is None or tries is None or (due is not None and next_at is None):
        raise _fault(where, "line, tries or nextTryAt is none")
    if not isinstance(waiting, dict) or not all(isinstance(reason, str) for reason in waiting.values()):
        raise _fault(where, "waiting must be an object of texts")
    if not isinstance(delivered, list) or not all(isinstance(get(sink, "id"), str) for sink in delivered):
        raise _fault(where, "delivered must be an array of sinks")
    return Entry(
        line, get(item, "escalation"), tries, next_at, tuple(delivered), waiting, get(item, "routed") is True
    )


def _fault(where: str, problem: str) -> OpsError:
    return OpsError("document_invalid", f"retry queue {where}: {problem}")
