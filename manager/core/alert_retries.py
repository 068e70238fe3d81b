"""Which alerts are tried again, and when (contract L17).

An entry is one escalation that not all of its sinks took. It is tried again on later passes, after 60 s
and then twice as long each time, up to an hour. A sink is given up after it was asked MAX_TRIES times; a
pass that could not ask it counts for nothing. While an escalation is on its way it has an entry, too: a crash
finds there which sinks took it already.
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


class Asked(NamedTuple):
    """How often a sink was asked to take an alert. last_at: epoch seconds."""

    times: int
    last_at: float


class Entry(NamedTuple):
    """An escalation on its way.

    line: number of its line, from 1. tries: passes that tried it. next_at: epoch seconds of the next try;
    None while the first one runs. delivered: elements (contract I.3) of the sinks that took it. waiting:
    id -> reason of those that did not, "" of those that were not asked yet. routed: who is to be told was
    known at the last try. digest: of the line, since another file may have another escalation there.
    asked: by id.
    """

    line: int
    escalation: JSON
    tries: int = 0
    next_at: float | None = None
    delivered: tuple[JSON, ...] = ()
    waiting: dict[str, str] = {}  # noqa: RUF012 - a tuple's default, never changed
    routed: bool = False
    digest: str = ""
    asked: dict[str, Asked] = {}  # noqa: RUF012 - as above

    @property
    def key(self) -> tuple[int, str]:
        """Tells entries apart."""
        return self.line, self.digest

    def was_asked(self, sink_id: str, now: float) -> "Entry":
        """After one more request to a sink."""
        times = self.asked[sink_id].times if sink_id in self.asked else 0
        return self._replace(asked=self.asked | {sink_id: Asked(times + 1, now)})

    def took(self, element: JSON) -> "Entry":
        """With one more sink that took it."""
        waiting = {name: reason for name, reason in self.waiting.items() if name != element["id"]}
        return self._replace(delivered=(*self.delivered, element), waiting=waiting)

    def failed(self, waiting: dict[str, str], now: float) -> "Entry":
        """After a try that left these sinks waiting."""
        tries = self.tries + 1
        return self._replace(tries=tries, next_at=now + pause_after(tries), waiting=waiting)

    def postponed(self, waiting: dict[str, str], now: float) -> "Entry":
        """After a pass that asked nobody."""
        return self._replace(next_at=now + _FIRST_PAUSE_SECONDS, waiting=waiting)

    @property
    def settled(self) -> bool:
        """Whether nobody waits, once its line is passed."""
        return self.routed and not self.waiting

    @property
    def exhausted(self) -> bool:
        """Whether it was tried often enough although nobody knows whom to tell."""
        return not self.routed and self.tries >= MAX_TRIES

    @property
    def spent(self) -> list[str]:
        """Waiting sinks that were asked often enough."""
        return [name for name in self.waiting if name in self.asked and self.asked[name].times >= MAX_TRIES]

    @property
    def urgency(self) -> tuple[float, int]:
        """The least comes first: who was never asked, then who was asked longest ago, so that none starves
        when a pass can ask only once."""
        last = [self.asked[name].last_at if name in self.asked else 0.0 for name in self.waiting]
        return min(last, default=0.0), self.line


def pause_after(tries: int) -> int:
    """Seconds between one try and the next."""
    return min(_FIRST_PAUSE_SECONDS << min(tries - 1, 16), _LONGEST_PAUSE_SECONDS)


def is_due(entry: Entry, now: float) -> bool:
    """Whether to try again; also when the clock was set back so far that it would never come."""
    return entry.next_at is None or entry.next_at <= now or entry.next_at > now + _LONGEST_PAUSE_SECONDS + 1


def document_of(entries: Sequence[Entry], *, now: float, loop_id: str) -> dict[str, JSON]:
    """The queue as a file."""
    return {
        "schemaVersion": "v1",
        "updatedAt": format_utc(now),
        "loopId": loop_id,
        "entries": [
            {
                "line": entry.line,
                "lineDigest": entry.digest,
                "tries": entry.tries,
                "nextTryAt": None if entry.next_at is None else format_utc(entry.next_at),
                "routed": entry.routed,
                "waiting": entry.waiting,
                "asked": {
                    name: {"times": asked.times, "lastAt": format_utc(asked.last_at)}
                    for name, asked in entry.asked.items()
                },
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
    digest = get(item, "lineDigest")
    return Entry(
        line,
        get(item, "escalation"),
        tries,
        next_at,
        tuple(delivered),
        waiting,
        get(item, "routed") is True,
        digest if isinstance(digest, str) else "",
        _asked(get(item, "asked"), where),
    )


def _asked(found: JSON, where: str) -> dict[str, Asked]:
    if found is not None and not isinstance(found, dict):
        raise _fault(where, "asked must be an object")
    asked: dict[str, Asked] = {}
    for name, item in (found or {}).items():
        times, last_at = whole(get(item, "times")), parse_rfc3339(get(item, "lastAt"))
        if times is None or last_at is None:
            raise _fault(where, f"asked.{name}: times or lastAt is none")
        asked[name] = Asked(times, last_at)
    return asked


def _fault(where: str, problem: str) -> OpsError:
    return OpsError("document_invalid", f"retry queue {where}: {problem}")
